"""What a step with Muon costs beside a step with AdamW, and beside torch.optim.Muon.

Whole steps of `tiny`, in turn.

    python benchmarks/muon.py                    the precision that `auto` takes here
    python benchmarks/muon.py --dtype fp32
    ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 \\
        python benchmarks/muon.py --dtype fp32

Prints a JSON object. The ratios are of medians over the rounds; A B C A B C, so that a busy machine
slows all alike.
"""

import argparse
import json
import statistics
import time

import torch

from gpt2edu.machine import device
from gpt2edu.model.gpt import GPT, GPTConfig
from gpt2edu.train.config import preset
from gpt2edu.train.optim import block_matrices, build_optimizers, orthogonalise, orthogonalise_wide


def stepper(config, dtype, kind):
    "Make a function that takes one training step on random tokens."
    V = 896  # of the stories
    sizes = GPTConfig(config.n_layer, config.n_head, config.n_embd, config.block_size, V)
    model = GPT(sizes, torch.Generator().manual_seed(0))
    muon_dtype = None if dtype == torch.bfloat16 else torch.float32
    optimizers = build_optimizers(model, "adamw" if kind == "adamw" else "muon", dtype=muon_dtype)
    if kind == "torch":
        optimizers[0] = torch.optim.Muon(block_matrices(model), adjust_lr_fn="match_rms_adamw")
    shape = config.micro_batch, config.block_size + 1
    tokens = torch.randint(0, 846, shape, generator=torch.Generator().manual_seed(1))

    def step():
        with device.autocast("cpu", dtype):
            loss = model(tokens[:, :-1], tokens[:, 1:])[1]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in optimizers:
            o.step()
            o.zero_grad(set_to_none=True)

    return step


def in_turn(functions: dict, rounds: int) -> dict:  # name: seconds of each round
    "Time functions one after the other, again and again."
    times = {name: [] for name in functions}
    for i in range(rounds + 1):
        for name, f in functions.items():
            t0 = time.perf_counter()
            f()
            if i:  # the first round chooses kernels
                times[name].append(time.perf_counter() - t0)
    return times


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("--dtype", default="auto", choices=["auto", "fp32", "bf16"])
    ap.add_argument("--rounds", type=int, default=20)
    a = ap.parse_args()
    dtype = device.pick_dtype(a.dtype, "cpu").value
    steps = in_turn(
        {k: stepper(preset("tiny"), dtype, k) for k in ("adamw", "muon", "torch")}, a.rounds
    )
    median = {k: statistics.median(v) for k, v in steps.items()}
    result = {"hardware": device.describe("cpu"), "dtype": str(dtype), "rounds": a.rounds}
    result |= {f"step_ms_{k}": round(1000 * v, 1) for k, v in median.items()}
    result["muon_over_adamw"] = round(median["muon"] / median["adamw"], 3)
    result["torch_muon_over_adamw"] = round(median["torch"] / median["adamw"], 3)
    for r in (1, 2, 3, 4):  # where the Gram matrix pays, for the tiny model's width
        G = torch.randn(4, 192, 192 * r)
        ways = in_turn(
            {"plain": lambda G=G: orthogonalise(G), "gram": lambda G=G: orthogonalise_wide(G)},
            a.rounds,
        )
        result[f"gram_over_plain_r{r}"] = round(
            statistics.median(ways["gram"]) / statistics.median(ways["plain"]), 2
        )
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
