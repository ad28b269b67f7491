"""Our model and its peers as one training step, on the same sizes.

nanoGPT (https://github.com/karpathy/nanoGPT) is not part of this repository: its `model.py` is
imported from the checkout that is named.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.timing import CannotRun

GPT2 = (12, 12, 768)  # n_layer, n_head, n_embd
V = 50304  # of all three, so that all do the same work
DTYPES = ("fp32", "bf16")


def torch_dtype(name: str):
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def nanogpt(folder: str | None):  # the module of its model
    "Import nanoGPT's model from a checkout."
    if not folder:
        raise CannotRun("no checkout of nanoGPT is named (--nanogpt PATH)")
    path = Path(folder) / "model.py"
    if not path.exists():
        raise CannotRun(f"{path} is not there; name a checkout of nanoGPT")
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["nanogpt_model"] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def gpt2_of_transformers(sizes, T: int, vocab_size: int):
    "Build the GPT-2 of transformers, without dropout."
    if not importlib.util.find_spec("transformers"):
        raise CannotRun("transformers is not installed")
    from transformers import GPT2Config, GPT2LMHeadModel

    n_layer, n_head, n_embd = sizes
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    shape = {"n_layer": n_layer, "n_head": n_head, "n_embd": n_embd, "n_positions": T}
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, **shape, **still))


def build(
    who: str,  # ours, nanoGPT or transformers
    sizes: tuple[int, int, int],  # n_layer, n_head, n_embd
    T: int,
    vocab_size: int = V,
    nanogpt_folder: str | None = None,
    device: str = "cpu",
) -> tuple:  # the model, and what gives the loss of x and y
    "Build one of the models with seeded weights."
    import torch

    torch.manual_seed(1337)
    if who == "ours":
        from gpt2edu.model.gpt import GPT, GPTConfig

        model = GPT(GPTConfig(*sizes, T, vocab_size)).to(device)
        return model, lambda x, y: model(x, y)[1]
    if who == "nanoGPT":
        theirs = nanogpt(nanogpt_folder)  # without biases, as its train.py builds it
        model = theirs.GPT(theirs.GPTConfig(T, vocab_size, *sizes, 0.0, False)).to(device)
        return model, lambda x, y: model(x, y)[1]
    model = gpt2_of_transformers(sizes, T, vocab_size).to(device)
    # it shifts by itself, so the last of each row does not count: one target in T
    return model, lambda x, y: model(input_ids=x, labels=x).loss


def optimizers_of(who: str, model, lr: float, device: str = "cpu") -> list:
    "Build the AdamW that each of them takes; transformers leaves the choice: the fused one."
    import torch

    if who == "ours":
        from gpt2edu.train.optim import build_optimizers

        return build_optimizers(model, "adamw", lr, 0.1, (0.9, 0.95))
    if who == "nanoGPT":
        return [model.configure_optimizers(0.1, lr, (0.9, 0.95), device)]
    options = {"lr": lr, "betas": (0.9, 0.95), "weight_decay": 0.1, "fused": True}
    return [torch.optim.AdamW(model.parameters(), **options)]


def whole_step(
    loss_of: Callable,  # of ids and targets
    model,
    optimizers: list,
    B: int,
    T: int,
    vocab_size: int,
    dtype: str,
    where: str = "cpu",
) -> Callable:  # takes a step and returns its loss, without waiting for a GPU
    "Make a training step on seeded random tokens."
    import torch

    from gpt2edu.machine import device

    g = torch.Generator().manual_seed(0)
    tokens = torch.randint(vocab_size, (B, T + 1), generator=g).to(where)
    x, y = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def step():
        with device.autocast(where, torch_dtype(dtype)):
            loss = loss_of(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in optimizers:
            o.step()
            o.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def training_step(
    who: str,
    sizes,
    B: int,
    T: int,
    dtype: str = "fp32",
    vocab_size: int = V,
    nanogpt: str | None = None,
    lr: float = 1e-4,
) -> Callable[[], float]:  # the loss, nats/token
    "Make a subject: whole steps on seeded random tokens."
    from gpt2edu.machine import device

    model, loss_of = build(who, tuple(sizes), T, vocab_size, nanogpt)
    if who == "ours":  # as its trainer does
        device.keep_freed_memory()
    optimizers = optimizers_of(who, model, lr)
    step = whole_step(loss_of, model, optimizers, B, T, vocab_size, dtype)
    return lambda: step().item()
