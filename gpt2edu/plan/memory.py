"""How much memory a training step needs at its peak, and how long its parts take here."""

# Made by tools/book.py from ../../book/tough/ch15a_memory.md: edit that, then `make book`.

# %% auto #0
__all__ = ['AT_ONCE', 'LOGITS_AT_ONCE', 'LOGITS_ON_CUDA', 'PIECES', 'FORGET', 'SHORT', 'USABLE',
           'block_bytes', 'activation_bytes', 'loss_bytes', 'weight_bytes', 'split_bytes',
           'muon_bytes', 'row_tokens', 'memory', 'largest_micro_batch', 'check_memory',
           'median_seconds', 'Probe', 'held_by', 'time_update', 'time_parts']

# %% ../../nbs/tough/ch15a_memory.ipynb #e24921a7
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from gpt2edu.machine.limits import need_memory
from gpt2edu.model.heads import divisors
from gpt2edu.model.variants import (
    block_shapes,
    hidden_width,
    numbers,
    outer_shapes,
    parameters,
)
from gpt2edu.train.config import (
    MODEL_SIZES,
    TrainConfig,
    kept_bytes,
    portion,
    trained_bytes,
    trained_shapes,
)

# %% ../../nbs/tough/ch15a_memory.ipynb #d9692ff4
# as in model.gpt, model.attention and train.optim, which need PyTorch; a test compares them
AT_ONCE = 2**26
LOGITS_AT_ONCE = 2**26
LOGITS_ON_CUDA = 2**28
PIECES = 16
FORGET = 2**22
SHORT = 256
# share of a memory to plan with; the rest is for what is not counted
USABLE = {"cpu": 0.6, "mps": 0.6, "cuda": 0.9}


def block_bytes(
    config: TrainConfig,
    tokens: int,  # B x T of a micro-batch
    width: int,  # bytes of a number in matrix products
    cpu: bool,  # whether it is for a CPU, which attends to short texts in fp32
) -> int:  # bytes
    "Count what one block keeps: its activations, and 16-bit copies of its matrices."
    c = config
    copies = width * numbers(block_shapes(c), 2) if width < 4 else 0
    kept = kept_bytes(tokens, c, width, cpu and c.block_size <= SHORT) + copies
    hidden = tokens * hidden_width(c.n_embd, c.mlp)  # numbers that the GELU makes
    forgets = c.mlp == "gelu" and not c.recompute and hidden >= FORGET
    return kept - forgets * width * hidden


def activation_bytes(
    config: TrainConfig,
    tokens: int,  # B x T of a micro-batch
    width: int,  # bytes of a number in matrix products
    cpu: bool,  # whether it is for a CPU, which attends to short texts in fp32
) -> int:  # bytes
    "Count what the blocks keep for the backward pass, and the input of the last LayerNorm."
    L, C, n = config.n_layer, config.n_embd, tokens
    one = block_bytes(config, n, width, cpu)
    blocks = (L - 1) * 4 * n * C + one if config.recompute else L * one
    turns = (config.position == "rope") * 4 * config.block_size * C // config.n_head
    last = (config.norm == "rms") * 4 * n * C  # what ln_f keeps beside its input
    return blocks + turns + last + 4 * n * C + 16 * n  # x and y


def loss_bytes(
    config: TrainConfig,
    tokens: int,  # B x T of a micro-batch
    vocab_size: int,  # V
    width: int,  # bytes of a number in matrix products
    cpu: bool,  # whether it is for a CPU, which takes smaller chunks than a GPU
) -> tuple[int, int]:  # bytes at the end of its forward pass, and in its backward pass
    "Count what the loss holds: all logits at once, or a chunk of them if they are too many."
    C, V, n = config.n_embd, vocab_size, tokens
    halves = width < 4
    table, stream, logits = 4 * V * C, 4 * n * C, 4 * n * V  # bytes
    chunks = math.ceil(n * V / (LOGITS_AT_ONCE if cpu else LOGITS_ON_CUDA))
    if chunks <= 1:  # kept: log-probabilities, and what the output matrix multiplies
        kept = logits + (width * (V * C + n * C) if halves else stream)
        return kept + logits + halves * stream, kept + 2 * logits
    # kept: the gradients of the stream and of the token table
    kept = stream + table
    rows = math.ceil(n / chunks)
    chunk = (rows if rows < 128 else math.ceil(rows / 128) * 128) * V  # numbers
    piece = max((4 + halves * 4) * chunk, width * V * C) // PIECES
    forward = kept + stream + width * chunk + piece + halves * width * V * C
    return forward, 2 * kept


def weight_bytes(
    config: TrainConfig,
    vocab_size: int,  # V, rows of the token table
    parts: int,  # ranks that share every tensor; 1: none do
) -> tuple[int, int]:  # bytes of weights and of gradients
    "Count what is held from step to step: frozen weights get no gradient, an adapter adds both."
    c = config
    block, outer = (portion(s, parts) for s in (block_shapes(c), outer_shapes(c, vocab_size)))
    weights = gradients = 4 * (c.n_layer * numbers(block) + numbers(outer))
    if c.freeze or c.lora_rank:
        gradients = 4 * numbers(portion(trained_shapes(c, vocab_size), parts))
        weights += gradients if c.lora_rank else 0
    return weights, gradients


def split_bytes(
    config: TrainConfig,
    vocab_size: int,  # V, rows of the token table
    parts: int,  # ranks that share every tensor
    several: bool,  # whether a step has several micro-batches
) -> dict[str, int]:  # bytes
    "Count what ranks that split a model put together for a time."
    whole, gradients = weight_bytes(config, vocab_size, 1)
    outer, block = 4 * numbers(outer_shapes(config, vocab_size)), 4 * numbers(block_shapes(config))
    return {
        "outer": outer,  # embeddings and last norm, whole during a step
        # two blocks: one is computed, one arrives; their gradients, and a buffer to send them
        "blocks": 4 * block,
        "before": gradients if several else 0,  # each rank's own, whole until the last micro-batch
        "whole": whole + block,  # all weights, while nothing is trained
    }


def muon_bytes(
    config: TrainConfig,
    parts: int,  # ranks that share every tensor; 1: none do
) -> int:  # bytes
    "Count what Muon holds in its step: a look ahead for each matrix, and thrice one shape's stack."
    c, alike = config, Counter()  # (short side, long side) -> matrices
    if c.optimizer != "muon":
        return 0
    some = c.freeze or c.lora_rank
    shapes = trained_shapes(c, 1) if some else block_shapes(c)
    for name, shape in shapes.items():
        if len(shape) == 2 and (".h." in name or not some):
            alike[tuple(sorted(shape))] += 1 if some else c.n_layer
    sizes = [n * math.prod(shape) for shape, n in alike.items()]  # numbers
    stack = 4 * min(max(sizes, default=0), AT_ONCE)
    return 4 * sum(sizes) // parts + (3 + (parts > 1)) * stack


def row_tokens(
    config: TrainConfig,
) -> int:  # T, or more
    "Count the tokens of a row: by reward it holds a question, and all answers to it behind it."
    c = config
    return c.block_size + (c.group - 1) * c.answer_tokens if c.reward else c.block_size


def memory(
    config: TrainConfig,
    vocab_size: int,  # V, rows of the token table
    width: int = 4,  # bytes of a number in matrix products: 4 in fp32, 2 in bf16 and fp16
    ranks: int = 1,  # more than one: DDP keeps its buckets of gradients
    micro_batch: int | None = None,  # windows; None: the config's
    cpu: bool = False,  # whether it is for a CPU, which attends to short texts in fp32
) -> dict:  # bytes of each part and at the peak; and when, the moment of the peak
    "Predict what the tensors of a step take on one rank; libraries and allocators hold more."
    C, V = config.n_embd, vocab_size
    B = micro_batch or config.micro_batch
    n = B * row_tokens(config)  # tokens
    judged = B * config.group * config.answer_tokens if config.reward else n  # with logits
    table, stream = 4 * V * C, 4 * n * C  # bytes of the token table and of the residual stream
    parts = ranks if config.shard else 1
    weights, gradients = weight_bytes(config, V, parts)
    start = 4 * parameters(config, V) if config.reward else 0  # its weights stay as they were
    optimizer = trained_bytes(config, V, parts)
    activations = activation_bytes(config, n, width, cpu)
    forward, backward = loss_bytes(config, judged, V, width, cpu)

    # gradients of earlier micro-batches
    several = config.total_batch > B * config.block_size * ranks
    before = gradients if several or (ranks > 1 and parts == 1) else 0
    fixed = weights + optimizer + start
    if parts > 1:
        extra = split_bytes(config, V, parts, several)
        before, fixed = extra["before"], fixed + extra["outer"]
    full = fixed + before + activations  # until the backward pass frees the activations
    one = block_bytes(config, n, width, cpu) if config.recompute else 0
    inputs = full - max(0, one - stream)  # with `recompute`, while the loss is computed
    embedding = (2 + bool(before)) * table + stream
    within = n * C * (8 + 5 * width)  # bytes of the tensors of a moment
    moments = {
        "the forward pass of the loss": inputs + forward,
        "the backward pass of the loss": inputs + backward,
        "the backward pass of the last block": full + table + within,
        "the backward pass of the embedding": fixed + gradients + embedding,
        "the step of Muon": fixed + gradients + muon_bytes(config, parts),
    }
    if parts > 1:
        moments["the backward pass of the last block"] += extra["blocks"]
        moments["the backward pass of the embedding"] += extra["outer"]
        moments["a validation"] = weights + optimizer + extra["whole"] + forward
    if config.recompute:
        moments["the backward pass of the first block"] = fixed + gradients + one + within
    when = max(moments, key=moments.get)
    found = {"weights": weights, "gradients": gradients, "optimizer": optimizer}
    found |= {"activations": activations, "loss": max(forward, backward)}
    saved = weight_bytes(config, V, 1)[0] + trained_bytes(config, V)  # of all ranks together
    return found | {"peak": moments[when], "when": when, "saved": saved}

# %% ../../nbs/tough/ch15a_memory.ipynb #569d8e8e
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
    for b in reversed(divisors(windows) if windows else []):
        if memory(config, vocab_size, width, ranks, b, cpu)["peak"] <= budget:
            return b
    return 0


def check_memory(
    config: TrainConfig,
    vocab_size: int,  # V, at least
    capacity: int | None,  # bytes of the device; None where it cannot be told
    kind: str,  # cpu, cuda or mps
    width: int = 4,  # bytes of a number in matrix products
    ranks: int = 1,
    micro_batch: int | None = None,  # windows; None: the config's
):
    "Refuse a run whose step cannot fit into the memory. ValueError, one line."
    if not capacity:
        return
    c, b = config, micro_batch or config.micro_batch
    parts = memory(c, vocab_size, width, ranks, b, kind == "cpu")
    # a compiler may keep fewer activations
    least = parts["weights"] + parts["gradients"] + parts["optimizer"] + parts["activations"] // 2
    if least <= capacity:
        return
    budget = USABLE[kind] * capacity
    fits = largest_micro_batch(c, vocab_size, width, budget, ranks, kind == "cpu")
    fix = f"try --micro_batch {fits}" if fits else "take a smaller --n_layer, --n_embd or context"
    if not (fits or c.recompute):
        thrifty = replace(c, recompute=True)
        fits = largest_micro_batch(thrifty, vocab_size, width, budget, ranks, kind == "cpu")
        fix = f"try --recompute --micro_batch {fits}" if fits else fix
    sizes = ", ".join(f"{k}={getattr(c, k)}" for k in ("n_layer", "n_embd", "block_size"))
    need_memory(least, f"a step with {sizes}, micro_batch={b}", fix, capacity)

# %% ../../nbs/tough/ch15a_memory.ipynb #3b6aa0cc
def median_seconds(work: Callable, budget: float, clock: Callable = time.perf_counter) -> float:
    "Time a piece of work again and again, after one round that warms up."
    work()
    end = clock() + budget
    times = []
    while not times or (clock() < end and len(times) < 200):
        t0 = clock()
        work()
        times.append(clock() - t0)
    return sorted(times)[len(times) // 2]


class Probe:
    "A model of one block at a run's width, whose parts are timed."

    def __init__(
        self,
        config: TrainConfig,
        vocab_size: int,  # V
        device,  # torch.device
        dtype,  # torch.dtype of matrix products
    ):
        import torch

        from gpt2edu.model.gpt import GPT, GPTConfig

        c = config
        one = {k: getattr(c, k) for k in MODEL_SIZES} | {"n_layer": 1}
        shape = GPTConfig(**one, vocab_size=vocab_size)
        self.config = c
        self.device = device
        self.dtype = dtype
        self.model = GPT(shape, torch.Generator().manual_seed(0)).to(device)
        self.model.recompute = c.recompute
        self.B = min(c.micro_batch, max(1, 2048 // c.block_size))  # enough to time a larger one
        self.idx = torch.randint(vocab_size, (self.B, c.block_size), device=device)
        self.x = self.model.embed(self.idx).detach().requires_grad_()  # (B, T, C)
        self.push = torch.full_like(self.x, 1e-6)  # a gradient that comes from above
        self.alone = c.total_batch == c.micro_batch * c.block_size  # one micro-batch in a step

    def sync(self):
        "Wait until a GPU has finished its work."
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def embed(self):
        return self.model.embed(self.idx)  # (B, T, C)

    def block(self):
        block, turn = self.model.transformer.h[0], self.model.turn(self.idx)
        return self.model.through(block, self.x, turn=turn)  # (B, T, C)

    def loss(self):
        from gpt2edu.model.gpt import cross_entropy

        x = self.model.transformer.ln_f(self.x).flatten(0, 1)  # (B * T, C)
        return cross_entropy(x, self.model.lm_head.weight, self.idx.flatten())

    def both_ways(self, forward: Callable):
        "Do a part forward and backward."
        from gpt2edu.machine.device import autocast

        self.x.grad = None
        if self.alone:  # gradients are new in every step
            self.model.zero_grad()
        with autocast(self.device, self.dtype, cache=not self.config.recompute):
            y = forward()
        y.backward(self.push if y.ndim else None)
        self.sync()

    def step(self, optimizer):
        "Let an optimizer take a step."
        optimizer.step()
        self.sync()

    def clip(self):
        "Clip the gradient."
        import torch

        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        self.sync()

# %% ../../nbs/tough/ch15a_memory.ipynb #b25de266
def held_by(
    kind: str,  # AdamW or Muon
    config: TrainConfig,
    n_layer: int,  # blocks
    vocab_size: int,  # V
) -> int:  # numbers
    "Count the parameters that one of a run's optimizers holds."
    matrices = n_layer * numbers(block_shapes(config), 2)
    if kind == "Muon":
        return matrices
    everything = parameters(replace(config, n_layer=n_layer), vocab_size)
    return everything - (config.optimizer == "muon") * matrices


def time_update(
    probe: Probe,
    vocab_size: int,  # V
    budget: float,  # seconds for each thing that is timed
    clock: Callable,
) -> dict[str, float]:  # seconds of a step: optimizer, clipping
    "Time what happens once in a step, after all gradients are there."
    import torch

    from gpt2edu.train.optim import build_optimizers

    c = probe.config
    V = vocab_size
    betas = (c.beta1, c.beta2)
    optimizers = build_optimizers(probe.model, c.optimizer, c.lr, c.weight_decay, betas, c.muon_lr)
    for p in probe.model.parameters():
        p.grad = torch.full_like(p, 1e-6)
    total = 0.0
    for o in optimizers:
        kind = type(o).__name__
        more = held_by(kind, c, c.n_layer, V) / held_by(kind, c, 1, V)
        total += more * median_seconds(lambda o=o: probe.step(o), budget, clock)
    more = parameters(c, V) / parameters(replace(c, n_layer=1), V)
    return {"optimizer": total, "clipping": more * median_seconds(probe.clip, budget, clock)}


def time_parts(
    config: TrainConfig,
    vocab_size: int,  # V
    device,  # torch.device
    dtype,  # torch.dtype of matrix products
    seconds: float = 3.0,  # to spend, about, once everything is warm
    # use time.process_time if other programs run, and then one thread only
    clock: Callable = time.perf_counter,
) -> dict[str, float]:  # seconds of one whole step on one rank that does all micro-batches, by part
    "Time the parts of a training step on this machine, at the run's shapes."
    c = config
    probe = Probe(c, vocab_size, device, dtype)

    def timed(forward):
        return median_seconds(lambda: probe.both_ways(forward), seconds / 4, clock)

    times = c.total_batch / (probe.B * c.block_size)  # how often a step does what is timed
    parts = {
        "blocks": c.n_layer * times * timed(probe.block),
        "loss": times * timed(probe.loss),
        "embedding": times * timed(probe.embed),
    }
    return parts | time_update(probe, vocab_size, seconds / 8, clock)
