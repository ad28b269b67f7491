"""Train nanoGPT's model and ours beside each other, step by step in turn.

The same sizes, text, batches and schedule.

    python benchmarks/nanogpt.py FOLDER_WITH_NANOGPT tinyshakespeare.txt [--steps 400]

nanoGPT (https://github.com/karpathy/nanoGPT) is not part of this repository. Its `model.py` is
imported from the folder that is named; the sizes are those its README gives for a CPU: 4 layers, 4
heads, 128 channels, a context of 64, batches of 12, characters as tokens. Both use fp32, AdamW and
clipping; each step of one is followed by the same step of the other, so a busy machine slows both.
What differs is ours: chunked loss where it pays, and optimiser and loop.
"""

import argparse
import importlib.util
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from gpt2edu.data.loader import Loader
from gpt2edu.machine import device
from gpt2edu.model.gpt import GPT, GPTConfig, num_params
from gpt2edu.train.optim import build_optimizers, lr_at, set_lr

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("folder", type=Path)
parser.add_argument("text", type=Path)
parser.add_argument("--steps", type=int, default=400)
args = parser.parse_args()

spec = importlib.util.spec_from_file_location("nanogpt_model", args.folder / "model.py")
theirs = importlib.util.module_from_spec(spec)
sys.modules["nanogpt_model"] = theirs  # dataclasses look themselves up there
spec.loader.exec_module(theirs)

L, nh, C, T, B, LR = 4, 4, 128, 64, 12, 1e-3
text = args.text.read_text(encoding="utf-8")
letters = sorted(set(text))
ids = np.array([letters.index(c) for c in text], dtype=np.uint16)
train, val = ids[: len(ids) * 9 // 10], ids[len(ids) * 9 // 10 :]


def evaluate(loss_of):
    "Mean loss over 200 fixed windows of the validation text, nats/character."
    loader, total = Loader(val, 20, T, shuffle=False), 0.0
    with torch.no_grad():
        for _ in range(10):
            total += loss_of(*loader.next_batch()).item() / 10
    return total


def make_ours():
    model = GPT(GPTConfig(L, nh, C, T, len(letters)), torch.Generator().manual_seed(1337))
    optimizers = build_optimizers(model, "adamw", LR, 0.1, (0.9, 0.99))
    return model, optimizers, lambda x, y: model(x, y)[1]


def make_theirs():
    torch.manual_seed(1337)
    model = theirs.GPT(theirs.GPTConfig(T, len(letters), L, nh, C, 0.0, False))
    optimizers = [model.configure_optimizers(0.1, LR, (0.9, 0.99), "cpu")]
    for group in optimizers[0].param_groups:
        group["peak_lr"] = LR
    return model, optimizers, lambda x, y: model(x, y)[1]


both = {"gpt2edu": make_ours(), "nanoGPT": make_theirs()}
loaders = {name: Loader(train, B, T, seed=1) for name in both}
seconds = {name: [] for name in both}
for step in range(args.steps):
    for name, (model, optimizers, loss_of) in both.items():
        t0 = time.perf_counter()
        set_lr(optimizers, lr_at(step, LR, LR / 10, 100, args.steps) / LR)
        loss_of(*loaders[name].next_batch()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in optimizers:
            o.step()
            o.zero_grad(set_to_none=True)
        seconds[name].append(time.perf_counter() - t0)

print(f"{device.describe('cpu')}; {args.steps} steps of {B} x {T} characters, in turn")
for name, (model, _, loss_of) in both.items():
    ms = statistics.median(seconds[name]) * 1e3
    loss = evaluate(loss_of)
    print(
        f"{name:8} {num_params(model):,} parameters, {ms:.1f} ms a step, "
        f"validation {loss:.4f} nats/character"
    )
ratio = statistics.median(
    b / a for a, b in zip(seconds["gpt2edu"], seconds["nanoGPT"], strict=True)
)
print(f"nanoGPT's step takes {ratio:.2f} times ours (median of the pairs)")
