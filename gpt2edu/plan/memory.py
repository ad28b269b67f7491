"""How much memory a training step needs at its peak, and how long its parts take here."""

# Made by tools/book.py from ../../book/tough/ch15a_memory.md: edit that, then `make book`.

# %% auto #0
__all__ = ['LOGITS_AT_ONCE', 'LOGITS_ON_CUDA', 'SHORT', 'USABLE', 'activation_bytes', 'loss_bytes',
           'memory', 'largest_micro_batch', 'check_memory', 'median_seconds', 'Probe', 'held_by',
           'time_update', 'time_parts']

# %% ../../nbs/tough/ch15a_memory.ipynb #e24921a7
import math
import time
from collections.abc import Callable

from gpt2edu.machine.limits import need_memory
from gpt2edu.model.heads import divisors
from gpt2edu.train.config import TrainConfig, count_params, kept_bytes, optimizer_bytes

# %% ../../nbs/tough/ch15a_memory.ipynb #d9692ff4
# as in model.gpt and in model.attention, which need PyTorch; a test compares them
LOGITS_AT_ONCE = 2**26
LOGITS_ON_CUDA = 2**28
SHORT = 256
# share of a memory to plan with; the rest is for what is not counted
USABLE = {"cpu": 0.6, "mps": 0.6, "cuda": 0.9}


def activation_bytes(
    config: TrainConfig,
    tokens: int,  # B x T of a micro-batch
    width: int,  # bytes of a number in matrix products
    cpu: bool,  # whether it is for a CPU, which attends to short texts in fp32
) -> int:  # bytes
    "Count what the blocks keep for the backward pass, and the input of the last LayerNorm."
    L, C, n = config.n_layer, config.n_embd, tokens
    blocks = L * kept_bytes(n, C, config.n_head, width)
    if width < 4:
        blocks += L * width * 12 * C * C  # copies of the matrices
    if cpu and width < 4 and config.block_size <= SHORT:
        # q, k and v are wider, and attention's result is kept twice
        blocks += L * n * C * (3 * (4 - width) + 4)
    return blocks + 4 * n * C + 16 * n  # x and y


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
    forward = kept + stream + (8 + halves * width) * chunk + halves * width * V * C
    return forward, 2 * kept


def memory(
    config: TrainConfig,
    vocab_size: int,  # V, rows of the token table
    width: int = 4,  # bytes of a number in matrix products: 4 in fp32, 2 in bf16 and fp16
    ranks: int = 1,  # more than one: DDP keeps its buckets of gradients
    micro_batch: int | None = None,  # windows; None: the config's
    cpu: bool = False,  # whether it is for a CPU, which attends to short texts in fp32
) -> dict:  # bytes of each part and at the peak; and when, the moment of the peak
    "Predict what the tensors of a step take on one rank; libraries and allocators hold more."
    L, C, T, V = config.n_layer, config.n_embd, config.block_size, vocab_size
    n = (micro_batch or config.micro_batch) * T  # tokens
    table, stream = 4 * V * C, 4 * n * C  # bytes of the token table and of the residual stream
    weights = 4 * count_params(L, C, T, V)
    optimizer = optimizer_bytes(L, C, T, V, config.optimizer)
    activations = activation_bytes(config, n, width, cpu)
    forward, backward = loss_bytes(config, n, V, width, cpu)

    # gradients of earlier micro-batches
    before = weights if ranks > 1 or config.total_batch > n * ranks else 0
    fixed = weights + optimizer
    full = fixed + before + activations  # until the backward pass frees the activations
    moments = {
        "the forward pass of the loss": full + forward,
        "the backward pass of the loss": full + backward,
        "the backward pass of the last block": full + table + n * C * (8 + 5 * width),
        "the backward pass of the embedding": fixed + weights + (2 + bool(before)) * table + stream,
    }
    when = max(moments, key=moments.get)
    parts = {"weights": weights, "gradients": weights, "optimizer": optimizer}
    parts |= {"activations": activations, "loss": max(forward, backward)}
    return parts | {"peak": moments[when], "when": when}

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
        shape = GPTConfig(1, c.n_head, c.n_embd, c.block_size, vocab_size)
        self.config = c
        self.device = device
        self.dtype = dtype
        self.model = GPT(shape, torch.Generator().manual_seed(0)).to(device)
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
        return self.model.transformer.h[0](self.x)  # (B, T, C)

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
        with autocast(self.device, self.dtype):
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
    matrices = 12 * n_layer * config.n_embd**2
    if kind == "Muon":
        return matrices
    everything = count_params(n_layer, config.n_embd, config.block_size, vocab_size)
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
    sizes = (c.n_embd, c.block_size, V)
    more = count_params(c.n_layer, *sizes) / count_params(1, *sizes)
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
