"""Where a CPU's fused attention is quicker in fp32.

Forward and backward pass of one layer in either precision.

    python benchmarks/attention.py                              the shape of `tiny`
    python benchmarks/attention.py --shape 8 12 512 64

Prints a JSON object: medians in ms and their ratio, A B A B. The inputs are bf16, as the products
before leave them.
"""

import argparse
import json
import statistics

import torch
from muon import in_turn
from torch.nn import functional as F

from gpt2edu.machine.device import describe


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument(
        "--shape", type=int, nargs=4, default=(16, 3, 128, 64), metavar=("B", "nh", "T", "hs")
    )
    ap.add_argument("--rounds", type=int, default=40)
    a = ap.parse_args()
    B, nh, T, hs = a.shape
    qkv = torch.randn(B, T, 3 * nh * hs, generator=torch.Generator().manual_seed(0))
    qkv = qkv.bfloat16().requires_grad_()

    def run(attend):
        q, k, v = (p.view(B, T, nh, hs).transpose(1, 2) for p in qkv.split(nh * hs, dim=2))
        attend(q, k, v).transpose(1, 2).reshape(B, T, nh * hs).sum().backward()

    def wide(q, k, v):
        return F.scaled_dot_product_attention(
            q.float(), k.float(), v.float(), is_causal=True
        ).bfloat16()

    jobs = {
        "bf16": lambda: run(
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)
        ),
        "fp32": lambda: run(wide),
    }
    ms = {name: 1000 * statistics.median(times) for name, times in in_turn(jobs, a.rounds).items()}
    found = {k: round(v, 2) for k, v in ms.items()} | {"ratio": round(ms["bf16"] / ms["fp32"], 2)}
    print(json.dumps({"hardware": describe("cpu"), "shape": a.shape} | found))


if __name__ == "__main__":
    main()
