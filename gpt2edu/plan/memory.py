"""What a training step holds at its fullest moment, and how long its parts take here."""

# Made by tools/book.py from ../../book/tough/ch14a_memory.md: edit that, then `make book`.

# %% auto #0
__all__ = ['LOGITS_AT_ONCE', 'SHORT', 'USABLE', 'memory', 'largest_micro_batch', 'machine_memory',
           'median_seconds', 'time_parts']

# %% ../../nbs/tough/ch14a_memory.ipynb #e24921a7
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gpt2edu.train.config import TrainConfig, count_params, kept_bytes, optimizer_bytes

# %% ../../nbs/tough/ch14a_memory.ipynb #d9692ff4
LOGITS_AT_ONCE, SHORT = (
    2**26,
    256,
)  # of gpt2edu.model.gpt and gpt2edu.model.attention, which need PyTorch
USABLE = {
    "cpu": 0.6,
    "mps": 0.6,
    "cuda": 0.9,
}  # share of a memory to plan with; the rest is for what is not counted


def memory(
    config: TrainConfig,
    vocab_size: int,  # V, rows of the token table
    width: int = 4,  # bytes of a number in matrix products: 4 in fp32, 2 in bf16 and fp16
    ranks: int = 1,  # more than one: DDP keeps its buckets of gradients
    micro_batch: int | None = None,  # windows; None: the config's
    cpu: bool = False,  # whether it is for a CPU, which attends to short texts in fp32
) -> dict:  # bytes of each kind, and of the peak; and when, the moment of the peak
    "Predict what the tensors of a training step take on one rank, not counted what libraries and"
    "allocators hold."
    L, C, T, V, B = (
        config.n_layer,
        config.n_embd,
        config.block_size,
        vocab_size,
        micro_batch or config.micro_batch,
    )
    n, halves = B * T, width < 4
    weights = 4 * count_params(L, C, T, V)
    optimizer = optimizer_bytes(L, C, T, V, config.optimizer)
    table, stream, logits = (
        4 * V * C,
        4 * n * C,
        n * V,
    )  # bytes of the token table and of the residual stream; numbers
    blocks = L * (kept_bytes(n, C, config.n_head, width) + halves * width * 12 * C * C)
    if cpu and halves and T <= SHORT:
        blocks += (
            L * n * C * (3 * (4 - width) + 4)
        )  # q, k and v are wider, and attention's result is kept twice
    activations = blocks + stream + 16 * n  # the last LayerNorm's input; x and y
    chunks = math.ceil(logits / LOGITS_AT_ONCE)
    if chunks <= 1:  # kept: log-probabilities, and what the output matrix multiplies
        kept = 4 * logits + (width * (V * C + n * C) if halves else stream)
        forward, backward = kept + 4 * logits + halves * stream, kept + 8 * logits
    else:  # kept: the gradients of the stream and of the token table
        kept, chunk = stream + table, math.ceil(n / chunks) * V
        forward = kept + stream + (8 + halves * width) * chunk + halves * width * V * C
        backward = 2 * kept
    before = (
        weights if ranks > 1 or config.total_batch > n * ranks else 0
    )  # gradients of earlier micro-batches
    fixed = weights + optimizer
    moments = {
        "the forward pass of the loss": fixed + before + activations + forward,
        "the backward pass of the loss": fixed + before + activations + backward,
        "the backward pass of the last block": fixed
        + before
        + activations
        + table
        + n * C * (8 + 5 * width),
        "the backward pass of the embedding": fixed + weights + (2 + bool(before)) * table + stream,
    }
    when = max(moments, key=moments.get)
    return {
        "weights": weights,
        "gradients": weights,
        "optimizer": optimizer,
        "activations": activations,
        "loss": max(forward, backward),
        "peak": moments[when],
        "when": when,
    }


def largest_micro_batch(
    config: TrainConfig,
    vocab_size: int,  # V
    width: int,  # bytes of a number in matrix products
    budget: float,  # bytes that the tensors of a step may take
    ranks: int = 1,
    cpu: bool = False,
) -> int:  # windows; 0 if not even one fits
    "Find the largest micro-batch that divides the batch and fits."
    windows = config.total_batch // (config.block_size * ranks)
    fits = (b for b in range(1, windows + 1) if windows % b == 0)
    return max(
        (b for b in fits if memory(config, vocab_size, width, ranks, b, cpu)["peak"] <= budget),
        default=0,
    )


def machine_memory() -> int | None:  # bytes; None where it cannot be told
    "Ask how much memory this process may use: the machine's, or what a container allows."
    found = []
    with suppress(AttributeError, ValueError, OSError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            found.append(int(Path(limit).read_text(encoding="utf-8")))
    return min(found, default=None)

# %% ../../nbs/tough/ch14a_memory.ipynb #569d8e8e
def median_seconds(work: Callable, budget: float, clock: Callable = time.perf_counter) -> float:
    "Time a piece of work again and again, after one round that warms up."
    work()
    end, times = clock() + budget, []
    while not times or (clock() < end and len(times) < 200):
        t0 = clock()
        work()
        times.append(clock() - t0)
    return sorted(times)[len(times) // 2]


def time_parts(
    config: TrainConfig,
    vocab_size: int,  # V
    device,  # torch.device
    dtype,  # torch.dtype of matrix products
    seconds: float = 3.0,  # to spend, about, once everything is warm
    # time.process_time where other programs run; with one thread only
    clock: Callable = time.perf_counter,
) -> dict[str, float]:  # seconds of one whole step on one rank that does all micro-batches, by part
    "Time the parts of a training step on this machine, at the run's shapes."
    import torch

    from gpt2edu.machine.device import autocast
    from gpt2edu.model.gpt import GPT, GPTConfig, cross_entropy
    from gpt2edu.train.optim import build_optimizers

    c, V = config, vocab_size
    model = GPT(
        GPTConfig(1, c.n_head, c.n_embd, c.block_size, V), torch.Generator().manual_seed(0)
    ).to(device)
    B = min(
        c.micro_batch, max(1, 2048 // c.block_size)
    )  # a part of a large micro-batch stands for the whole
    idx = torch.randint(V, (B, c.block_size), device=device)
    x = model.embed(idx).detach().requires_grad_()  # (B, T, C)
    push = torch.full_like(x, 1e-6)
    sync = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def timed(forward):
        def work():
            x.grad = None
            if (
                c.total_batch == c.micro_batch * c.block_size
            ):  # one micro-batch: gradients are new in every step
                model.zero_grad()
            with autocast(device, dtype):
                y = forward()
            y.backward(push if y.ndim else None)
            sync()

        return median_seconds(work, seconds / 4, clock)

    def head():
        return cross_entropy(
            model.transformer.ln_f(x).flatten(0, 1), model.lm_head.weight, idx.flatten()
        )

    times = c.total_batch / (B * c.block_size)  # how often a step does what is timed
    parts = {
        "blocks": c.n_layer * times * timed(lambda: model.transformer.h[0](x)),
        "loss": times * timed(head),
        "embedding": times * timed(lambda: model.embed(idx)),
    }
    optimizers = build_optimizers(
        model, c.optimizer, c.lr, c.weight_decay, (c.beta1, c.beta2), c.muon_lr
    )
    for p in model.parameters():
        p.grad = torch.full_like(p, 1e-6)

    def numbers(layers, kind):  # in the parameters that an optimizer holds
        matrices = 12 * layers * c.n_embd**2
        return (
            matrices
            if kind == "Muon"
            else count_params(layers, c.n_embd, c.block_size, V)
            - (c.optimizer == "muon") * matrices
        )

    parts["optimizer"] = 0.0
    for o in optimizers:
        more = numbers(c.n_layer, type(o).__name__) / numbers(1, type(o).__name__)
        parts["optimizer"] += more * median_seconds(
            lambda o=o: (o.step(), sync()), seconds / 8, clock
        )
    more = count_params(c.n_layer, c.n_embd, c.block_size, V) / count_params(
        1, c.n_embd, c.block_size, V
    )

    def clip():
        torch.nn.utils.clip_grad_norm_(model.parameters(), c.grad_clip)
        sync()

    return parts | {"clipping": more * median_seconds(clip, seconds / 8, clock)}
