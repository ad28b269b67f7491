"""How much of a step of `small-cpu` is the trainer's own.

Its own is everything but forward, backward and the optimisers' step.

    python benchmarks/overhead.py [--steps 30]

Both times are taken in the same steps. Loading, copying, clipping, the schedule, the log and the
bar count as overhead; what runs on the clock (validation, samples, checkpoints) does not, and a
checkpoint's copy is shown by itself.
"""

import argparse
import contextlib
import itertools
import tempfile
import time

import torch

from gpt2edu.machine import device
from gpt2edu.train.config import preset
from gpt2edu.train.trainer import Trainer

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--steps", type=int, default=30)
steps = parser.parse_args().steps

work, spent = tempfile.TemporaryDirectory(), 0.0
flags = {"dataset": ("pydocs",), "data_dir": f"{work.name}/data", "max_steps": steps + 3}
flags |= {"val_tokens": 4096, "sample_every": 10_000, "save_every": 10_000, "eval_every": 10_000}
trainer = Trainer(preset("small-cpu", **flags), f"{work.name}/runs/overhead")


@contextlib.contextmanager
def counted():
    global spent
    t0 = time.perf_counter()
    yield
    spent += time.perf_counter() - t0


def timed(function):
    def call(*args, **kw):
        with counted():
            return function(*args, **kw)

    return call


trainer.forward, torch.Tensor.backward = timed(trainer.forward), timed(torch.Tensor.backward)
for optimizer in trainer.optimizers:
    optimizer.step = timed(optimizer.step)

times = []  # seconds of a step, seconds of it in the three parts
step = trainer.train_step


def train_step(stop=None):
    global spent
    times.append((time.perf_counter(), spent))
    return step(stop)


trainer.train_step = train_step
trainer.run()
# the first steps warm up
pairs = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(times[2:])]
total, parts = (sum(column) for column in zip(*pairs, strict=True))
each = sorted(1 - part / whole for whole, part in pairs)
t0 = time.perf_counter()
trainer.save(wait=False)
copied = time.perf_counter() - t0
trainer.saved()
print(
    f"{device.describe('cpu')}; {len(pairs)} steps of small-cpu, "
    f"{trainer.config.total_batch:,} tokens each"
)
print(
    f"step {total / len(pairs) * 1e3:.0f} ms; "
    f"own share {1 - parts / total:.2%}, median {each[len(each) // 2]:.2%}"
)
written = time.perf_counter() - t0
print(
    f"a checkpoint holds the next step back by {copied * 1e3:.0f} ms, "
    f"is on disk after {written * 1e3:.0f} ms"
)
