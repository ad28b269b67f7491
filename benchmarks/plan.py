"""Rows about the plan: predicted beside measured memory and speed.

The peak is what a process holds at most in two steps, less what it held after one step of a small
model, which loads the libraries. It is measured twice: with MALLOC_MMAP_THRESHOLD_=131072, with
which glibc gives freed tensors back, and with glibc's defaults, with which it keeps holes for
blocks under 32 MiB. The prediction is of tensors, so the first must agree within a tenth; the
second is what a user sees. Linux only.
"""

import ctypes
import gc
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import peers
from benchmarks.timing import CannotRun, alone, spread, status

BLOCK_124M = {"preset": "gpt2-124m", "block_size": 256, "vocab_size": 50304, "optimizer": "adamw"}
TINY = {"tiny fp32": {"preset": "tiny", "vocab_size": 896, "dtype": "fp32"}}
CASES = TINY | {
    "tiny bf16": {"preset": "tiny", "vocab_size": 896, "dtype": "bf16"},
    "small-cpu fp32": {"preset": "small-cpu", "vocab_size": 896, "dtype": "fp32"},
    "small-cpu bf16": {"preset": "small-cpu", "vocab_size": 896, "dtype": "bf16"},
    "124M 2 x 256": BLOCK_124M | {"micro_batch": 2, "total_batch": 512, "dtype": "fp32"},
    "124M 2 x 256 twice": BLOCK_124M | {"micro_batch": 2, "total_batch": 1024, "dtype": "fp32"},
    "124M 8 x 256 bf16": BLOCK_124M | {"micro_batch": 8, "total_batch": 2048, "dtype": "bf16"},
    "124M 8 x 256 bf16 --recompute": BLOCK_124M
    | {"micro_batch": 8, "total_batch": 2048, "dtype": "bf16", "recompute": True},
}


def take_steps(config, vocab_size: int, dtype, n_steps: int, device: str = "cpu") -> None:
    "Take training steps of a run's shape on random tokens."
    import torch

    from gpt2edu.machine.device import autocast
    from gpt2edu.model.gpt import GPT, GPTConfig
    from gpt2edu.train.optim import build_optimizers

    c = config
    g = torch.Generator().manual_seed(0)
    sizes = (c.n_layer, c.n_head, c.n_embd, c.block_size, vocab_size)
    model = GPT(GPTConfig(*sizes), g).to(device)
    model.recompute = c.recompute
    optimizers = build_optimizers(model, c.optimizer, 1e-4)
    for _ in range(n_steps):
        for _ in range(n_micro := c.total_batch // (c.micro_batch * c.block_size)):
            ids = torch.randint(vocab_size, (c.micro_batch, c.block_size + 1), generator=g)
            ids = ids.to(device)
            x, y = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
            with autocast(device, dtype, cache=not c.recompute):
                part = model(x, y)[1] / n_micro
            part.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in optimizers:
            o.step()
            o.zero_grad(set_to_none=True)


def step_memory(case: dict):
    "Make a subject: bytes that the tensors of two steps take at most."
    import torch

    from gpt2edu.train.config import preset

    case = dict(case)
    V, dtype = case.pop("vocab_size"), peers.torch_dtype(case["dtype"])
    config = preset(case.pop("preset"), **case)
    if not Path("/proc/self/clear_refs").exists():
        raise CannotRun("the peak of a process is reset only on Linux")

    def work() -> int:  # bytes
        torch.set_num_threads(1)
        take_steps(preset("tiny", n_layer=1, optimizer=config.optimizer), 1024, dtype, 1)
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak so far
        take_steps(config, V, dtype, 2)
        return status("VmHWM") - before

    return work


def measure(case: dict, gives_back: bool) -> int:  # bytes
    "Measure a case in a process of its own."
    env = {"MALLOC_MMAP_THRESHOLD_": "131072"} if gives_back else {}
    found = alone("plan:step_memory", env | {"OMP_NUM_THREADS": "1"}, case=case)
    if "cannot" in found:
        raise CannotRun(found["cannot"])
    return found["value"]


def predict(case: dict) -> int:  # bytes
    "Ask the plan what a step takes at its fullest moment."
    from gpt2edu.plan.memory import memory
    from gpt2edu.train.config import preset

    case = dict(case)
    V, width = case.pop("vocab_size"), 4 if case["dtype"] == "fp32" else 2  # bytes of a number
    return memory(preset(case.pop("preset"), **case), V, width, cpu=True)["peak"]


def plan_memory(asked) -> dict:
    "Predicted over measured peak: of the tensors, and of the process as glibc leaves it."
    figures, ratios = {}, {}
    for name, case in (TINY if asked.tiny else CASES).items():
        want = predict(case)
        given, kept = (measure(case, back) for back in (True, False))
        for what, n in (("predicted", want), ("measured", given), ("glibc as it is", kept)):
            figures[f"{name} {what}, MB"] = spread([n / 1e6])
        ratios[name] = spread([want / given])
        ratios[f"{name}, glibc as it is"] = spread([want / kept])
    return {"figures": figures, "ratios": ratios, "settings": {"threads": 1}}


def plan_speed(asked) -> dict:
    "Predicted over measured tokens/s: predictions and steps take turns."
    from gpt2edu.plan.memory import time_parts
    from gpt2edu.train.config import preset
    from gpt2edu.train.trainer import Trainer

    figures, ratios = {}, {}
    seconds = 0.2 if asked.tiny else 4
    for name in ("tiny",) if asked.tiny else ("tiny", "small-cpu"):
        with tempfile.TemporaryDirectory() as work:
            config = preset(name, device="cpu", data_dir=f"{work}/data")
            trainer = Trainer(config, Path(work) / "run")
            V, predicted, measured = trainer.model.config.vocab_size, [], []
            trainer.train_step()
            for _ in range(3):
                where = trainer.device, trainer.dtype
                parts = time_parts(config, V, *where, seconds=seconds)
                predicted.append(config.total_batch / sum(parts.values()))
                times, end = [], time.perf_counter() + seconds
                while time.perf_counter() < end or len(times) < 3:
                    began = time.perf_counter()
                    trainer.train_step()
                    times.append(time.perf_counter() - began)
                measured.append(config.total_batch / statistics.median(times))
        figures[f"{name} predicted, tokens/s"] = spread(predicted)
        figures[f"{name} measured, tokens/s"] = spread(measured)
        ratios[name] = spread([a / b for a, b in zip(predicted, measured, strict=True)])
    return {"figures": figures, "ratios": ratios, "settings": {"dtype": asked.auto}}
