"""Measure peak memory and time of one 124M training step: plain and chunked cross-entropy.

    python benchmarks/chunked_loss.py            # T = 1024, B = 4; about a minute on 2 cores, 8 GB

Each step runs in a process of its own; the peak is the process's largest resident set
(`ru_maxrss`).
"""

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time


def peak_bytes() -> int:
    unit = 1 if platform.system() == "Darwin" else 1024  # Linux counts in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def one_step(kind: str, B: int, T: int, vocab_size: int) -> dict:
    import torch

    from gpt2edu.model.gpt import GPT, GPTConfig, cross_entropy

    torch.manual_seed(0)
    if kind == "plain":
        cross_entropy.__defaults__ = (sys.maxsize,)  # all logits at once: one chunk
    model = GPT(GPTConfig(block_size=T, vocab_size=vocab_size))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(vocab_size, (B, T + 1))
    before = peak_bytes()
    t0 = time.perf_counter()
    _, loss = model(ids[:, :-1], ids[:, 1:])
    loss.backward()
    optimizer.step()
    seconds = time.perf_counter() - t0
    return {
        "kind": kind,
        "loss": loss.item(),
        "seconds": seconds,
        "before": before,
        "peak": peak_bytes(),
    }


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("--B", type=int, default=4)
    ap.add_argument("--T", type=int, default=1024)
    ap.add_argument("--vocab_size", type=int, default=50304)
    ap.add_argument("--kind", choices=["plain", "chunked"], help="run this one here and print JSON")
    a = ap.parse_args()
    if a.kind:
        print(json.dumps(one_step(a.kind, a.B, a.T, a.vocab_size)))
        return
    sizes = [f"--B={a.B}", f"--T={a.T}", f"--vocab_size={a.vocab_size}"]
    rows = {}
    for kind in ("plain", "chunked"):
        out = subprocess.run(
            [sys.executable, __file__, f"--kind={kind}", *sizes], check=True, stdout=subprocess.PIPE
        )
        rows[kind] = row = json.loads(out.stdout.splitlines()[-1])
        print(
            f"{kind:8} peak {row['peak'] / 2**30:5.2f} GiB  "
            f"step {row['seconds']:5.1f} s  loss {row['loss']:.6f}"
        )
    saved = 1 - rows["chunked"]["peak"] / rows["plain"]["peak"]
    same = math.isclose(rows["plain"]["loss"], rows["chunked"]["loss"], rel_tol=1e-6)
    print(f"chunked needs {saved:.0%} less; losses {'agree' if same else 'DIFFER'}")
    print(f"B={a.B} T={a.T} V={a.vocab_size}, fp32, {os.cpu_count()} cores, {platform.machine()}")
    sys.exit(0 if same and saved >= 0.25 else 1)


if __name__ == "__main__":
    main()
