"""Test a device by one small training step that must agree with the CPU's, up to rounding."""

# Made by tools/book.py from ../../book/tough/ch14b_selftest.md: edit that, then `make book`.

# %% auto #0
__all__ = ['PROBE', 'UNITS', 'probe_step', 'disagreement', 'self_test', 'tested_device']

# %% ../../nbs/tough/ch14b_selftest.ipynb #6b990e7a
from collections.abc import Callable

import torch
from torch import Tensor

from gpt2edu.machine.device import (
    Choice,
    autocast,
    grad_scaler,
    pick_device,
    pick_dtype,
    multiply_fp32,
    set_precision,
)
from gpt2edu.model.gpt import GPT, IGNORE, GPTConfig, cross_entropy
from gpt2edu.train.optim import build_optimizers

# %% ../../nbs/tough/ch14b_selftest.ipynb #905090eb
# heads of 64, as GPT-2 has them
PROBE = GPTConfig(n_layer=2, n_head=2, n_embd=128, block_size=64, vocab_size=384)


def _probe_model(generator: torch.Generator) -> GPT:
    "Build the model: no softmax flat, no GELU straight, no gain 1, no bias 0."
    # building also draws from PyTorch's global generator; leave its state as it was
    with torch.random.fork_rng(devices=[]):
        model = GPT(PROBE, generator)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
    return model


def _probe_losses(
    model: GPT,
    ids: Tensor,  # (B, T) token ids
    targets: Tensor,  # (B, T) ids to predict, `IGNORE` among them
) -> tuple[Tensor, Tensor]:  # nats/token: all positions at once, and in chunks
    "Compute the loss by both forms of the cross-entropy."
    x = model.embed(ids)  # (B, T, C)
    for block in model.transformer.h:
        x = block(x)
    x = model.transformer.ln_f(x).flatten(0, 1)  # (B * T, C)
    head = (x, model.lm_head.weight, targets.flatten())
    at_once = 32 * PROBE.vocab_size  # 32 positions at a time
    return cross_entropy(*head), cross_entropy(*head, at_once=at_once)


def _probe_gradients(model: GPT, scale: float) -> dict[str, Tensor]:
    "Name the gradients, without the scale. Those of q, k and v apart: v's would hide the others."
    found = {}
    for name, p in model.named_parameters():
        grad = p.grad / scale
        if name.endswith("c_attn.weight"):
            parts = zip("qkv", grad.chunk(3), strict=True)
            found |= {f"gradient of {name}, {part}": g for part, g in parts}
        else:
            found[f"gradient of {name}"] = grad
    return found


def _probe_updates(model: GPT, generator: torch.Generator) -> dict[str, Tensor]:
    "Clip gradients that are drawn, so that every device has the same, and take a step of AdamW."
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator).to(p.device)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    # AdamW's first step does not see how long they are, so they are compared too
    clipped = torch.cat([p.grad.flatten() for p in model.parameters()])
    for optimizer in build_optimizers(model, "adamw", lr=0.01):
        optimizer.step()
    after = model.named_parameters()
    updates = {f"AdamW's update of {name}": p.detach() - before[name] for name, p in after}
    return {"norm that clipping finds": norm, "clipped gradient": clipped} | updates


def probe_step(
    device: str | torch.device,
    dtype: torch.dtype,  # of the matrix products
    update: bool = True,  # let AdamW take a step too; without, nothing but PyTorch's core is loaded
    seed: int = 0,  # of weights and data
) -> dict[str, Tensor]:  # losses, gradients, updates: fp32, on the CPU
    "Take one small training step of our own GPT, with every kernel that a training needs."
    generator = torch.Generator().manual_seed(seed)
    model = _probe_model(generator).to(device)
    scaler = grad_scaler(device, dtype)
    found = {}
    for B, T in ((4, 64), (3, 37)):
        # (B, T) each
        ids, targets = torch.randint(PROBE.vocab_size, (2, B, T), generator=generator)
        targets[:, ::5] = IGNORE
        with autocast(device, dtype):
            whole, chunked = _probe_losses(model, ids.to(device), targets.to(device))
        scaler.scale((whole + chunked) / 4).backward()
        found |= {f"loss at T = {T}": whole, f"loss in chunks at T = {T}": chunked}
    found |= _probe_gradients(model, scaler.get_scale())
    if update:
        found |= _probe_updates(model, generator)
    return {name: t.detach().float().cpu() for name, t in found.items()}

# %% ../../nbs/tough/ch14b_selftest.ipynb #6e801f9a
# rounding of a number; fp32: of a sum
UNITS = {"fp32": 2**-15, "tf32": 2**-11, "fp16": 2**-11, "bf16": 2**-8}


def disagreement(
    got: dict[str, Tensor],  # from `probe_step`, on the device
    want: dict[str, Tensor],  # on the CPU, in fp32
    unit: float,  # one of `UNITS`
) -> str:  # what is furthest off, '' if all is rounding
    "Compare two steps: a distance of 12 units and a shift of 2 are rounding; more is not."
    worst, text = 1.0, ""
    for name, b in want.items():
        a, b = got[name].flatten().double(), b.flatten().double()
        if not a.isfinite().all():
            return f"the {name} is not finite"
        distance = float((a - b).norm() / b.norm())
        shift = abs(float(a @ b / b.norm() ** 2) - 1)
        bounds = ((distance, 12 * unit), (shift, 2 * unit))
        off, most = max(bounds, key=lambda pair: pair[0] / pair[1])
        if off / most > worst:
            worst = off / most
            text = f"the {name} is off by {off:.2%}, and rounding explains {most:.2%}"
    return text


def self_test(
    device: str | torch.device,
    dtype: torch.dtype,  # of the run's products; fp32 is tested in any case, and TF32 where it is
    update: bool = True,  # AdamW's kernels too
    step: Callable[..., dict[str, Tensor]] | None = None,  # of the device; None: `probe_step`
) -> str:  # what is wrong with the device, '' if nothing is
    "Take a small training step on a device and on the CPU in fp32, and compare the results."
    names = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
    want = probe_step("cpu", torch.float32, update)
    before = torch.get_float32_matmul_precision()
    kinds = [("fp32", torch.float32, "highest")]
    if set_precision(device).value == "high":
        kinds.append(("tf32", torch.float32, "high"))
    kinds += [(names[dtype], dtype, "highest")] * (dtype != torch.float32)
    try:
        for name, kind, products in kinds:
            multiply_fp32(products)
            if found := disagreement((step or probe_step)(device, kind, update), want, UNITS[name]):
                return f"computes a training step wrongly: in {name} {found}"
    # a kernel that is missing; a number format that the device lacks
    except (RuntimeError, TypeError) as e:
        return f"cannot take a training step: {next(iter(str(e).splitlines()), type(e).__name__)}"
    finally:
        multiply_fp32(before)
    return ""

# %% ../../nbs/tough/ch14b_selftest.ipynb #704ddb3f
def tested_device(
    choice: str = "auto",  # auto, cpu, cuda or mps
    dtype: str = "auto",  # auto, bf16, fp16 or fp32: what will be computed there
    test: bool = True,  # whether to test it: --no_self_test
    say: Callable = lambda line: None,  # called with a line when the CPU is taken instead
    # with several ranks: shares what any of them found, `distributed.agreement`
    agree: Callable[[str], str] | None = None,
    update: bool = True,  # whether it will train, so that AdamW's kernels count too
) -> Choice:  # of a torch.device
    "Choose a device as `pick_device` does, and test it. ValueError if it fails."
    chosen = pick_device(choice)
    device = chosen.value
    if device.type == "cpu" or not test:
        return chosen
    found = self_test(device, pick_dtype(dtype, device).value, update)
    found = agree(found) if agree else found
    if not found:
        return Choice(device, f"{chosen.reason}, and a small step there agrees with the CPU's")
    found = f"device={device.type} {found}"
    if choice != "auto" or agree:
        fix = "update PyTorch or the driver, take --device cpu, or insist with --no_self_test"
        raise ValueError(f"{found}; {fix}")
    say(f"{found}; this runs on the CPU instead")
    return Choice(torch.device("cpu"), f"{device.type} failed its test")
