"""Every choice of a run in one place, checked before it starts, and what a token of it costs."""

# Made by tools/book.py from ../../book/tough/ch15_accounting.md: edit that, then `make book`.

# %% auto #0
__all__ = ['GPT2_RUN', 'GPT2_350M', 'GPT2_774M', 'GPT2_1558M', 'PRESETS', 'SAMPLE_TOKENS',
           'HORIZONS', 'MOST_ITEMS', 'MODEL_SIZES', 'MAY_CHANGE', 'PEAK_SIZES', 'FromPreset',
           'TrainConfig', 'batch_advice', 'preset', 'count_params', 'padded', 'flops_per_token',
           'horizon', 'optimizer_bytes', 'kept_bytes', 'measure_peak', 'mfu']

# %% ../../nbs/tough/ch15_accounting.ipynb #f2c924c9
import time
from dataclasses import dataclass, fields
from typing import Literal

from gpt2edu.choices import Compile, Device, Dtype, Optimizer, Tracker, options
from gpt2edu.data.config import GPT2_VAL_TOKENS, DataConfig
from gpt2edu.model.heads import check_heads, divisors

# %% ../../nbs/tough/ch15_accounting.ipynb #944f3bee
@dataclass(frozen=True)
class FromPreset:
    "The field that comes first in the help."

    preset: "Literal[*PRESETS]" = "tiny"  # starting values for all other flags


@dataclass(frozen=True)
class TrainConfig(DataConfig, FromPreset):  # a dataclass takes the fields of its last base first
    "Every choice of a training run; each field is a flag of `gpt2edu_train`."

    # the model
    n_layer: int = 2  # blocks
    n_head: int = 3  # attention heads in a block; divides n_embd
    n_embd: int = 96  # C, width of the residual stream
    block_size: int = 128  # T, tokens in the context
    # a step
    total_batch: int = 2048  # tokens per step, over all ranks and micro-batches
    micro_batch: int = 16  # windows of T tokens that one rank computes at a time
    optimizer: Optimizer = "muon"  # muon is for the matrices of the blocks, with AdamW for the rest
    lr: float = 0.01  # peak learning rate of AdamW
    min_lr: float = 0.0005  # learning rate at the end, of AdamW's peak
    muon_lr: float = 0.01  # peak learning rate of Muon
    warmup_steps: int = 20  # linear climb to the peak
    weight_decay: float = 0.1  # of matrices and embeddings
    beta1: float = 0.9  # memory of gradients, AdamW's and Muon's
    beta2: float = 0.95  # AdamW's memory of squared gradients
    grad_clip: float = 1.0  # largest norm of the gradient
    # how long: exactly one of these
    max_steps: int | None = None  # horizon in steps
    max_tokens: int | None = None  # horizon in tokens
    num_epochs: float | None = None  # horizon in passes over the training shards
    # the clock
    eval_every: int = 250  # steps between validations
    sample_every: int = 250  # steps between samples
    save_every: int = 250  # steps between checkpoints
    keep_last: int = 2  # checkpoints to keep
    # share of a validation window that is context only; 0: side by side, as losses are published
    val_overlap: float = 0.0
    choice_items: int = 400  # multiple-choice stories; 0 for none
    # items to answer at each validation: Rowan/hellaswag (from the hub), or a .jsonl file
    hellaswag: str | None = None
    # nats/token above the mean of 100 steps, five steps in a row: the run stops; 0 never stops it
    max_spike: float = 2.0
    tracker: Tracker | None = None  # a program that draws the curves; it gets every line of the log
    # the machine
    device: Device = "auto"  # where to compute
    dtype: Dtype = "auto"  # precision of the matrix products
    compile: Compile = "auto"  # whether torch.compile makes the model faster first
    self_test: bool = True  # compare a small step with the CPU's before training on another device
    seed: int = 1337  # of the weights and of the order of the data
    # the run
    out_dir: str = "runs"  # where runs are kept
    name: str | None = None  # of the run's folder; by default the preset's
    dry_run: bool = False  # say what would be done, and stop

    def __post_init__(self):
        if self.preset not in PRESETS:
            raise ValueError(
                f"unknown preset {self.preset!r}; expected one of {', '.join(PRESETS)}"
            )
        super().__post_init__()
        if self.optimizer not in options(Optimizer):
            raise ValueError(f"optimizer={self.optimizer!r} is unknown; use adamw or muon")
        _check_numbers(self)
        check_heads(self.n_head, self.n_embd)
        _check_batch(self)
        _check_horizon(self)

# %% ../../nbs/tough/ch15_accounting.ipynb #70668990
def _check_numbers(c: TrainConfig) -> None:
    "Refuse what is out of range: each number by itself, then those that depend on another."
    least = {"warmup_steps": 0, "choice_items": 0, "seed": 0}  # whole numbers that may be zero
    for f in fields(c):
        value = getattr(c, f.name)
        low = least.get(f.name, 1)
        if isinstance(value, int) and not isinstance(value, bool) and value < low:
            raise ValueError(f"{f.name}={value} must be {low} or more")
        if isinstance(value, float) and not 0 <= value < float("inf"):
            raise ValueError(f"{f.name}={value} must be a number, 0 or more")
    if c.min_lr > c.lr:
        raise ValueError(f"min_lr={c.min_lr} is above lr={c.lr}; lower --min_lr too")
    if max(c.beta1, c.beta2) >= 1 or not c.grad_clip:
        got = f"beta1={c.beta1}, beta2={c.beta2} and grad_clip={c.grad_clip}"
        raise ValueError(
            f"got {got}, expected betas below 1 and a clip above 0; try 0.9, 0.95 and 1.0"
        )
    if c.val_overlap >= 1:
        raise ValueError(f"val_overlap={c.val_overlap} must be below 1; try 0.5")
    if c.choice_items > MOST_ITEMS:
        raise ValueError(f"choice_items={c.choice_items} must be {MOST_ITEMS:,} or less; try 400")


def batch_advice(
    config: TrainConfig,  # one whose total_batch is not a whole number of micro-batches
    ranks: int = 1,
) -> str:  # "try --micro_batch 8"
    "Name a micro-batch that divides the batch, or else a batch that the micro-batch divides."
    window = config.block_size * ranks  # tokens of one window on every rank
    most = min(config.micro_batch, config.total_batch // config.block_size)
    windows, rest = divmod(config.total_batch, window)
    fits = [] if rest else [b for b in divisors(windows) if b <= most]
    if fits:
        return f"try --micro_batch {fits[-1]}"
    step = config.micro_batch * window
    return f"try --total_batch {max(1, config.total_batch // step) * step}"


def _check_batch(c: TrainConfig) -> None:
    "Refuse a step that is not a whole number of micro-batches."
    step = c.micro_batch * c.block_size
    if c.total_batch % step:
        raise ValueError(
            f"total_batch={c.total_batch} tokens is not a whole number of micro-batches of "
            f"micro_batch={c.micro_batch} x block_size={c.block_size} = {step} tokens; "
            f"{batch_advice(c)}"
        )


def _check_horizon(c: TrainConfig) -> None:
    "Refuse no horizon, and two that contradict each other."
    given = [f"{k}={v}" for k in HORIZONS if (v := getattr(c, k)) is not None]
    if len(given) != 1:
        got = " and ".join(given) or "none"
        raise ValueError(
            f"got {got}, expected exactly one of --max_steps, --max_tokens and --num_epochs"
        )

# %% ../../nbs/tough/ch15_accounting.ipynb #f4c7eab6
GPT2_RUN = {
    "tokenizer": "gpt2",
    "dataset": ("fineweb-edu",),
    "block_size": 1024,
    "total_batch": 524_288,
    "optimizer": "adamw",
    "lr": 6e-4,
    "min_lr": 6e-5,
    "warmup_steps": 715,
    "num_epochs": 1.0,
    "val_tokens": GPT2_VAL_TOKENS,
    "hellaswag": "Rowan/hellaswag",
    "sample_every": 1000,
    "save_every": 1000,
}
GPT2_350M = {"n_layer": 24, "n_head": 16, "n_embd": 1024, "micro_batch": 16}
GPT2_774M = {"n_layer": 36, "n_head": 20, "n_embd": 1280, "micro_batch": 8}
GPT2_1558M = {"n_layer": 48, "n_head": 25, "n_embd": 1600, "micro_batch": 4}
PRESETS = {
    "tiny": {
        "total_batch": 4096,
        "micro_batch": 32,
        "lr": 0.008,
        "min_lr": 0.0004,
        "muon_lr": 0.012,
        "weight_decay": 0.02,
        "beta2": 0.98,
        "max_steps": 740,
        "val_overlap": 0.5,
        "eval_every": 370,
        "sample_every": 370,
        "save_every": 370,
    },
    "small-cpu": {
        "n_layer": 4,
        "n_head": 4,
        "n_embd": 256,
        "block_size": 256,
        "total_batch": 8192,
        "max_steps": 2000,
    },
    "gpt2-124m": GPT2_RUN | {"n_layer": 12, "n_head": 12, "n_embd": 768, "micro_batch": 32},
    "gpt2-350m": GPT2_RUN | GPT2_350M | {"lr": 3e-4, "min_lr": 3e-5},
    "gpt2-774m": GPT2_RUN | GPT2_774M | {"lr": 2.5e-4, "min_lr": 2.5e-5},
    "gpt2-1558m": GPT2_RUN | GPT2_1558M | {"total_batch": 1_048_576},
}
SAMPLE_TOKENS = 64  # of a sample that is written while the ranks wait
HORIZONS = ("max_steps", "max_tokens", "num_epochs")
MOST_ITEMS = 1_000_000  # the standard error is at most 0.0005 then
# of the model; the vocabulary is the tokenizer's
MODEL_SIZES = ("n_layer", "n_head", "n_embd", "block_size")
# a resumed run may change these and nothing else
MAY_CHANGE = frozenset(HORIZONS) | set(
    """lr min_lr muon_lr eval_every sample_every save_every keep_last choice_items hellaswag
    max_spike tracker device dtype compile self_test micro_batch out_dir data_dir name dry_run
    preset""".split()
)


def preset(
    name: str,  # a key of `PRESETS`
    /,
    **flags,  # values that replace the preset's; a horizon replaces the preset's horizon
) -> TrainConfig:
    "Make the config of a preset. ValueError, one line, for what cannot work."
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; expected one of {', '.join(PRESETS)}")
    values = {"preset": name} | PRESETS[name]
    if any(flags.get(k) is not None for k in HORIZONS):
        values = {k: v for k, v in values.items() if k not in HORIZONS}
    return TrainConfig(**values | flags)

# %% ../../nbs/tough/ch15_accounting.ipynb #58cdb6e6
def count_params(
    n_layer: int,  # blocks
    n_embd: int,  # C
    block_size: int,  # T, tokens
    vocab_size: int,  # V, rows of the token table, padding included
) -> int:  # parameters, the tied matrix counted once
    "Count the parameters of a GPT-2."
    block = 12 * n_embd**2 + 13 * n_embd
    return vocab_size * n_embd + block_size * n_embd + n_layer * block + 2 * n_embd


def padded(
    n_vocab: int,  # ids that the tokenizer knows
) -> int:  # rows of the token table
    "Round a vocabulary up to a multiple of 128, which matrix units like: 50,257 becomes 50,304."
    return -(-n_vocab // 128) * 128

# %% ../../nbs/tough/ch15_accounting.ipynb #70adc7ab
def flops_per_token(
    n_params: int,  # N
    n_layer: int,  # L
    n_embd: int,  # C
    block_size: int,  # T
) -> int:  # floating-point operations of forward and backward
    """Estimate what one token of training costs: 6N + 12·L·T·C.

    Each weight multiplies and adds once in the forward pass and twice in the backward pass;
    attention scores and their use add the second term. Source: PaLM (arXiv 2204.02311), appendix B.
    """
    return 6 * n_params + 12 * n_layer * block_size * n_embd

# %% ../../nbs/tough/ch15_accounting.ipynb #3f38a262
def horizon(
    config: TrainConfig,
    train_tokens: int,  # in the training shards
) -> int:  # steps
    "Turn the horizon into steps, rounded down, at least one."
    tokens = config.max_tokens if config.num_epochs is None else config.num_epochs * train_tokens
    steps = config.max_steps if tokens is None else int(tokens // config.total_batch)
    return max(1, steps)

# %% ../../nbs/tough/ch15_accounting.ipynb #97a23cfe
def optimizer_bytes(
    n_layer: int,  # blocks
    n_embd: int,  # C
    block_size: int,  # T, tokens
    vocab_size: int,  # V, rows of the token table
    optimizer: str = "adamw",  # or muon: Muon for the matrices of the blocks, AdamW for the rest
) -> int:  # bytes
    "Count the optimizer's memory: two fp32 moments for AdamW, one for Muon, and AdamW's steps."
    n = count_params(n_layer, n_embd, block_size, vocab_size)
    matrices = 12 * n_layer * n_embd**2  # numbers in those of the blocks
    tensors = 12 * n_layer + 4  # 12 in a block, the two tables, and two of the last LayerNorm
    if optimizer == "muon":
        return 4 * matrices + 8 * (n - matrices) + 4 * (tensors - 4 * n_layer)
    return 8 * n + 4 * tensors


def kept_bytes(
    tokens: int,  # B x T of a micro-batch
    n_embd: int,  # C
    n_head: int,
    width: int = 4,  # bytes of a number in matrix products: 4 in fp32, 2 in bf16 and fp16
) -> int:  # bytes
    """Count what one block keeps from the forward pass for the backward pass, in numbers per token:

    inputs of the two LayerNorms 2C and their means and deviations 4, always in fp32; q, k and v 3C;
    inputs of the four matrices C, C, C and 4C; input of the GELU 4C; and one number per head from
    the attention's softmax, in fp32.
    """
    return tokens * (4 * (2 * n_embd + 4 + n_head) + width * 14 * n_embd)

# %% ../../nbs/tough/ch15_accounting.ipynb #2f73dd0e
# n of the n x n matrices to multiply
PEAK_SIZES = {"cpu": (512, 1024), "cuda": (4096, 8192), "mps": (1024, 2048)}


def measure_peak(
    device: str,  # or a torch.device: cpu, cuda, mps
    dtype,  # torch.dtype of the matrices
    seconds: float = 0.3,  # how long to look, all sizes together
) -> float:  # FLOP/s, the best that was seen
    "Measure the rate of large square products: the peak with this process's threads and precision."
    import torch  # not at the top: reading flags must not load it

    device = torch.device(device)
    waits = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}
    wait = waits.get(device.type, lambda: None)
    sizes = PEAK_SIZES[device.type]
    repeats = 1 if device.type == "cpu" else 8  # a GPU is timed over several products
    best = 0.0
    for n in sizes:
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in "ab")
        torch.mm(a, b)  # the first one chooses a kernel
        wait()
        end = time.perf_counter() + seconds / len(sizes)
        while True:
            t0 = time.perf_counter()
            for _ in range(repeats):
                torch.mm(a, b)
            wait()
            now = time.perf_counter()
            best = max(best, repeats * 2 * n**3 / (now - t0))
            if now >= end:
                break
    return best


def mfu(
    tokens_per_s: float,  # of all ranks together
    flops_per_token: float,  # from `flops_per_token`
    peak_flops: float,  # FLOP/s of all ranks together: `measure_peak` times the number of ranks
) -> float:  # 0 to 1
    "Compute the useful operations as a share of what the hardware could do. PaLM, appendix B."
    return tokens_per_s * flops_per_token / peak_flops
