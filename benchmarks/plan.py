"""Compare what gpt2edu_plan predicts with what happens: peak memory of a step, tokens/s of `tiny`.

    python benchmarks/plan.py                # both; about four minutes on 2 cores
    python benchmarks/plan.py --memory       # only memory
    python benchmarks/plan.py --speed        # only tokens/s: predictions and steps take turns
    OMP_NUM_THREADS=1 python benchmarks/plan.py --speed --cpu_time   # CPU seconds: a busy machine
    python benchmarks/plan.py --memory --full   # also 124M at T = 1024: five more minutes, 5 GB

Memory: two steps (AdamW's state exists from the first on) run in a process of their own. The peak
is VmHWM of /proc/self/status (Linux; `ru_maxrss` would inherit the parent's peak), less what the
process held after one step of a small model, which loads the libraries. It is measured twice: with
MALLOC_MMAP_THRESHOLD_=131072, with which glibc gives freed tensors back, and with glibc's defaults,
with which it keeps holes for blocks under 32 MiB. The prediction is of tensors, so the first column
must agree within 10 %; the second is what a user sees.
"""

import argparse
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BLOCK_124M = {"preset": "gpt2-124m", "block_size": 256, "vocab_size": 50304, "optimizer": "adamw"}
CASES = {
    "tiny": {"preset": "tiny", "vocab_size": 896, "dtype": "fp32"},
    "tiny, bf16": {"preset": "tiny", "vocab_size": 896, "dtype": "bf16"},
    "small-cpu": {"preset": "small-cpu", "vocab_size": 896, "dtype": "fp32"},
    "small-cpu, bf16": {"preset": "small-cpu", "vocab_size": 896, "dtype": "bf16"},
    "124M, 2 x 256": BLOCK_124M | {"micro_batch": 2, "total_batch": 512, "dtype": "fp32"},
    "124M, 2 x 256, twice": BLOCK_124M | {"micro_batch": 2, "total_batch": 1024, "dtype": "fp32"},
    "124M, 8 x 256, bf16": BLOCK_124M | {"micro_batch": 8, "total_batch": 2048, "dtype": "bf16"},
}
FULL = {
    "124M, 4 x 1024": BLOCK_124M
    | {"block_size": 1024, "micro_batch": 4, "total_batch": 4096, "dtype": "fp32"},
    "124M, 4 x 1024, bf16": BLOCK_124M
    | {"block_size": 1024, "micro_batch": 4, "total_batch": 8192, "dtype": "bf16"},
}


def status(name: str) -> int:  # bytes
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def steps(config, vocab_size: int, dtype, n_steps: int) -> None:
    import torch

    from gpt2edu.machine.device import autocast
    from gpt2edu.model.gpt import GPT, GPTConfig
    from gpt2edu.train.optim import build_optimizers

    c = config
    g = torch.Generator().manual_seed(0)
    model = GPT(GPTConfig(c.n_layer, c.n_head, c.n_embd, c.block_size, vocab_size), g)
    optimizers = build_optimizers(model, c.optimizer, 1e-4)
    for _ in range(n_steps):
        for _ in range(n_micro := c.total_batch // (c.micro_batch * c.block_size)):
            ids = torch.randint(vocab_size, (c.micro_batch, c.block_size + 1), generator=g)
            x, y = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
            with autocast("cpu", dtype):
                part = model(x, y)[1] / n_micro
            part.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in optimizers:
            o.step()
            o.zero_grad(set_to_none=True)


def child(case: dict) -> dict:
    import torch

    from gpt2edu.train.config import preset

    case = dict(case)
    V = case.pop("vocab_size")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[case["dtype"]]
    config = preset(case.pop("preset"), **case)
    steps(preset("tiny", n_layer=1, optimizer=config.optimizer), 1024, dtype, 1)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak so far
    steps(config, V, dtype, 2)
    return {"before": before, "peak": status("VmHWM") - before}


def measure(case: dict, keeps_holes: bool) -> dict:  # bytes
    env = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    env["OMP_NUM_THREADS"] = "1"
    env |= {} if keeps_holes else {"MALLOC_MMAP_THRESHOLD_": "131072"}
    command = [sys.executable, __file__, "--child", json.dumps(case)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=env, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def predict(case: dict) -> dict:
    from gpt2edu.plan.memory import memory
    from gpt2edu.train.config import preset

    case = dict(case)
    V = case.pop("vocab_size")
    numbers = 4 if case["dtype"] == "fp32" else 2  # bytes
    return memory(preset(case.pop("preset"), **case), V, numbers, cpu=True)


def compare_memory(cases: dict) -> bool:
    print(
        f"{'memory of a step, MB':24} predicted  measured  ratio   "
        "glibc as it is  ratio   fullest in"
    )
    good = True
    for name, case in cases.items():
        want = predict(case)
        given, kept = (measure(case, keeps)["peak"] for keeps in (False, True))
        r1, r2 = want["peak"] / given, want["peak"] / kept
        good &= 0.9 <= r1 <= 1.1
        numbers = (
            f"{want['peak'] / 1e6:9.1f} {given / 1e6:9.1f} {r1:6.3f}   {kept / 1e6:14.1f} {r2:6.3f}"
        )
        print(f"{name:24} {numbers}   {want['when']}", flush=True)
    return good


def compare_speed(name: str, dtype: str, rounds: int, clock) -> bool:
    from gpt2edu.plan.memory import time_parts
    from gpt2edu.train.config import preset
    from gpt2edu.train.trainer import Trainer

    with tempfile.TemporaryDirectory() as folder:
        config = preset(name, dtype=dtype, device="cpu", data_dir=f"{folder}/data")
        trainer = Trainer(config, Path(folder) / "run")
        V, ratios = trainer.model.config.vocab_size, []
        for _ in range(3):
            trainer.train_step()
        for _ in range(rounds):
            predicted = config.total_batch / sum(
                time_parts(config, V, trainer.device, trainer.dtype, clock=clock).values()
            )
            times, end = [], clock() + 4
            while clock() < end or len(times) < 5:
                t0 = clock()
                trainer.train_step()
                times.append(clock() - t0)
            measured = config.total_batch / statistics.median(times)
            ratios.append(predicted / measured)
            said = f"predicted {predicted:8,.0f}  measured {measured:8,.0f} tokens/s"
            print(f"{name:10} {dtype:5} {said}  ratio {ratios[-1]:.3f}", flush=True)
    return 0.75 <= statistics.median(ratios) <= 1.25


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("--memory", action="store_true")
    ap.add_argument("--speed", action="store_true")
    ap.add_argument("--full", action="store_true")
    ap.add_argument("--cpu_time", action="store_true")
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--child", help="run this case here and print JSON")
    a = ap.parse_args()
    if a.child:
        print(json.dumps(child(json.loads(a.child))))
        return
    clock = time.process_time if a.cpu_time else time.perf_counter
    good = True
    if a.memory or not a.speed:
        good &= compare_memory(CASES | (FULL if a.full else {}))
    if a.speed or not a.memory:
        for name, dtype in (("tiny", "fp32"), ("tiny", "bf16"), ("small-cpu", "bf16")):
            good &= compare_speed(name, dtype, a.rounds, clock)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(
        f"memory within 10 %, tokens/s within 25 %: {'yes' if good else 'NO'}; threads: {threads}"
    )
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
