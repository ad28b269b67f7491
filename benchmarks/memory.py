"""What it is worth to keep freed memory.

Whole steps of `tiny` in processes with and without `keep_freed_memory`.

    python benchmarks/memory.py                    the precision that `auto` takes here
    python benchmarks/memory.py --dtype fp32

Prints a JSON object: the median step and the page faults of one, over all processes of a kind. A B
A B.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from muon import stepper

from gpt2edu.machine import device
from gpt2edu.train.config import preset


def measure(how: str, dtype: torch.dtype, steps: int) -> dict:
    "Take steps in this process."
    if how == "kept":
        device.keep_freed_memory()
    step, seconds = stepper(preset("tiny"), dtype, "muon"), []
    for i in range(steps + 3):
        if i == 3:
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        t0 = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - t0)
    faults = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / steps
    return {"ms": 1000 * statistics.median(seconds[3:]), "faults": faults}


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("--dtype", default="auto", choices=["auto", "fp32", "bf16"])
    ap.add_argument("--rounds", type=int, default=4)
    ap.add_argument("--steps", type=int, default=20)
    ap.add_argument("--child", choices=["kept", "given_back"], help=argparse.SUPPRESS)
    a = ap.parse_args()
    dtype = device.pick_dtype(a.dtype, torch.device("cpu")).value
    if a.child:
        print(json.dumps(measure(a.child, dtype, a.steps)))
        return
    found = {"given_back": [], "kept": []}
    for _ in range(a.rounds):
        for how, rows in found.items():
            child = [sys.executable, __file__, *sys.argv[1:], "--child", how]
            rows.append(
                json.loads(subprocess.run(child, capture_output=True, text=True, check=True).stdout)
            )
    result = {
        how: {k: round(statistics.median(r[k] for r in rows), 1) for k in ("ms", "faults")}
        for how, rows in found.items()
    }
    ratio = result["kept"]["ms"] / result["given_back"]["ms"]
    result = {"hardware": device.describe("cpu"), "dtype": str(dtype)} | result
    print(json.dumps(result | {"ratio": round(ratio, 3)}))


if __name__ == "__main__":
    main()
