"""Does a block of today beat GPT-2's at equal time? Chapter 26 shows the record.

    python -m benchmarks.modern time                  # milliseconds of a step, all variants in turn
    python -m benchmarks.modern train --seconds 200   # as many of the missing runs as fit
    python -m benchmarks.modern table                 # loss above the floor, with errors
    python -m benchmarks.modern record                # what chapter 26 holds

`tiny` on the embedded stories, at the preset's learning rates, which were chosen for GPT-2's block.
GPT-2 trains for 100 steps, and each variant for as many as it takes in the same time. The time of a
step is that of one thread on its processor, so other work on the machine cannot favour a variant.
Everything is kept in benchmarks/logs/modern.json, and what is there is not run again.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.timing import commit

LOG = Path(__file__).parent / "logs" / "modern.json"
STEPS = 100  # of GPT-2
SEEDS = (1337, 1, 2)
WHOLE = {"position": "rope", "norm": "rms", "mlp": "swiglu", "bias": False, "tied": False}
WHOLE |= {"n_kv_head": 1}
VARIANTS = {
    "GPT-2": {},
    "RoPE": {"position": "rope"},
    "RMSNorm": {"norm": "rms"},
    "SwiGLU": {"mlp": "swiglu"},
    "ReLU²": {"mlp": "relu2"},
    "QK-norm": {"qk_norm": True},
    "no bias": {"bias": False},
    "untied head": {"tied": False},
    "one head of keys": {"n_kv_head": 1},
    "Llama's block": WHOLE,
    "all together": WHOLE | {"qk_norm": True},
}


def read() -> dict:
    return json.loads(LOG.read_text(encoding="utf-8")) if LOG.exists() else {"runs": []}


def write(log: dict):
    text = json.dumps(log, indent=1, ensure_ascii=False)
    LOG.write_text(text + "\n", encoding="utf-8")


def stepper(flags: dict):
    "A function that takes one training step of a variant, on random tokens."
    import torch

    from gpt2edu.machine import device
    from gpt2edu.model.gpt import GPT, GPTConfig
    from gpt2edu.train.config import preset
    from gpt2edu.train.setup import Machine, choose_optimizers, sizes

    c = preset("tiny", **flags)
    where = torch.device("cpu")
    dtype = device.pick_dtype(c.dtype, where)
    machine = Machine(where, dtype, device.pick_compile("off", where), None)
    model = GPT(GPTConfig(**sizes(c), vocab_size=896), torch.Generator().manual_seed(0))
    optimizers = choose_optimizers(c, model, machine)
    ids = torch.randint(896, (2, c.micro_batch, c.block_size))

    def step():
        for o in optimizers:
            o.zero_grad()
        with device.autocast(where, dtype.value):
            loss = model(*ids)[1]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), c.grad_clip)
        for o in optimizers:
            o.step()

    return step


def time_steps(rounds: int = 5, at_once: int = 3):
    """Let the variants take steps in turn, one thread each, and keep the fastest quarter.

    Time is that of the processor: other programs can only make a step slower, never faster.
    """
    import torch

    from gpt2edu.machine.device import describe, keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()
    steppers = {name: stepper(flags) for name, flags in VARIANTS.items()}
    took = {name: [] for name in VARIANTS}
    for turn in range(rounds + 1):  # the first one warms up
        for name, step in steppers.items():
            for i in range(at_once):
                t0 = time.process_time()
                step()
                if turn and i:
                    took[name].append(1000 * (time.process_time() - t0))
    log = read()
    ms = {name: round(sorted(t)[len(t) // 4], 2) for name, t in took.items()}
    steps = {name: round(STEPS * ms["GPT-2"] / t) for name, t in ms.items()}
    hardware = describe(torch.device("cpu"))
    log |= {"hardware": hardware, "commit": commit(), "ms": ms, "steps": steps}
    write(log)
    print(json.dumps(log["ms"]), json.dumps(steps))


def train_one(name: str, seed: int, steps: int, place: Path) -> dict:
    from gpt2edu.train.config import preset
    from gpt2edu.train.trainer import Trainer

    clock = dict.fromkeys(("max_steps", "eval_every", "sample_every", "save_every"), steps)
    flags = {"seed": seed, "choice_items": 0, "data_dir": str(place / "data"), **clock}
    config = preset("tiny", **flags, **VARIANTS[name])
    folder = Path(tempfile.mkdtemp(dir=place))
    Trainer(config, folder, say=lambda line: None).run()
    text = (folder / "log.jsonl").read_text(encoding="utf-8")
    start, *_, done = map(json.loads, text.splitlines())
    n = sum(p.numel() for p in load(folder).parameters())
    made = {"dtype": start["dtype"], "commit": commit(), "parameters": n}
    kept = {k: round(done[k], 5) for k in ("val_loss", "floor")}
    return {"variant": name, "seed": seed, "steps": steps, **kept, **made}


def load(folder: Path):
    from gpt2edu.train.runs import load_run

    return load_run(folder)[0]


def train(seconds: float, place: Path, seeds: list[int]):
    "Do missing runs, seed by seed, until the next one might not fit."
    end, longest = time.monotonic() + seconds, 0.0
    for seed, name in itertools.product(seeds, VARIANTS):
        log = read()
        if any((r["variant"], r["seed"]) == (name, seed) for r in log["runs"]):
            continue
        if time.monotonic() + longest > end:
            return print("more are left")
        t0 = time.monotonic()
        run = train_one(name, seed, log["steps"][name], place)
        log = read()  # anew: another process may train another seed
        log["runs"].append(run)
        write(log)
        longest = max(longest, time.monotonic() - t0)
        print(log["runs"][-1], round(longest, 1), flush=True)
    print("all runs are there")


def rows(log: dict) -> dict[str, tuple]:
    "For each variant: parameters, ms, steps, mean distance to the floor and its standard error."
    found = {}
    for name in log["ms"]:
        runs = [r for r in log["runs"] if r["variant"] == name]
        above = [r["val_loss"] - r["floor"] for r in runs]
        error = statistics.stdev(above) / len(above) ** 0.5
        numbers = (runs[0]["parameters"], log["ms"][name], log["steps"][name])
        found[name] = (*numbers, statistics.mean(above), error)
    return found


def record() -> list[str]:
    "The lines of chapter 26: parameters, ms, steps, then the validation loss of each seed."
    log, found = read(), []
    for name in log["ms"]:
        runs = {r["seed"]: r for r in log["runs"] if r["variant"] == name}
        losses = " ".join(f"{runs[seed]['val_loss']:.4f}" for seed in SEEDS)
        size = runs[SEEDS[0]]["parameters"]
        found.append(f"{name} | {size} {log['ms'][name]} {log['steps'][name]} {losses}")
    return found


def table() -> list[str]:
    "A line for each variant."
    head = f"{'variant':17} parameters    ms  steps  loss above the floor"
    lines = [
        f"{name:17} {n:10,} {ms:5.1f} {steps:6} {mean:8.4f} ± {error:.4f}"
        for name, (n, ms, steps, mean, error) in rows(read()).items()
    ]
    return [head, *lines]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("time", "train", "table", "record"))
    parser.add_argument("--seconds", type=float, default=200.0)
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--place", type=Path, help="a folder for the runs and their shards")
    asked = parser.parse_args()
    if asked.part == "time":
        time_steps()
    elif asked.part == "train":
        train(asked.seconds, asked.place or Path(tempfile.mkdtemp()), asked.seeds)
    else:
        print("\n".join(table() if asked.part == "table" else record()))
