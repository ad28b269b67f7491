"""Every choice of a run in one place, checked before it starts, and what a token of it costs."""

# Made by tools/book.py from ../../book/tough/ch15_accounting.md: edit that, then `make book`.

# %% auto #0
__all__ = ['GPT2_RUN', 'GPT2_350M', 'GPT2_774M', 'GPT2_1558M', 'PRESETS', 'SAMPLE_TOKENS',
           'HORIZONS', 'MOST_ITEMS', 'MOST_TALKS', 'MOST_LISTED', 'MODEL_SIZES', 'MAY_CHANGE',
           'LATER', 'NEWER', 'PEAK_SIZES', 'FromPreset', 'TrainConfig', 'batch_advice', 'preset',
           'count_params', 'tensor_shapes', 'in_part', 'trained_shapes', 'padded',
           'flops_per_token', 'token_flops', 'flops_again', 'horizon', 'portion', 'optimizer_bytes',
           'kept_for_scores', 'trained_bytes', 'kept_bytes', 'measure_peak', 'mfu']

# %% ../../nbs/tough/ch15_accounting.ipynb #f2c924c9
import time
from dataclasses import dataclass, fields
from typing import Literal

from gpt2edu.choices import Compile, Device, Dtype, Optimizer, Tracker, options
from gpt2edu.data.config import GPT2_VAL_TOKENS, DataConfig
from gpt2edu.model.heads import check_heads, divisors
from gpt2edu.model.variants import (
    GPT2_BLOCK,
    Variants,
    block_shapes,
    check_variants,
    hidden_width,
    kv_width,
    multiplied,
    numbers,
    outer_shapes,
)

# %% ../../nbs/tough/ch15_accounting.ipynb #944f3bee
@dataclass(frozen=True)
class FromPreset:
    "The field that comes first in the help."

    preset: "Literal[*PRESETS]" = "tiny"  # starting values for all other flags


@dataclass(frozen=True)
# a dataclass takes the fields of its last base first
class TrainConfig(Variants, DataConfig, FromPreset):
    "Every choice of a training run; each field is a flag of `gpt2edu_train`."

    # the model
    n_layer: int = 2  # blocks
    n_head: int = 3  # attention heads in a block; divides n_embd
    n_embd: int = 96  # C, width of the residual stream
    block_size: int = 128  # T, tokens in the context
    # the start

    # begin with these weights: a run, an exported folder, gpt2 … gpt2-xl, or tiny; default: drawn
    init_from: str | None = None
    grow: bool = False  # fit those weights to another tokenizer, or to a longer context
    # parts whose weights stay as they are, by GPT-2's names: wte, wpe, h, h.0, attn, mlp, bias …
    freeze: tuple[str, ...] = ()
    lora_rank: int = 0  # of an adapter, which is trained in place of the weights; 0: no adapter
    lora_alpha: float = 16.0  # what the adapter adds is multiplied by this, over the rank
    # layers of the blocks that get an adapter; lm_head can be one, too
    lora_parts: tuple[str, ...] = ("c_attn", "attn.c_proj", "c_fc", "mlp.c_proj")
    # questions to train on in place of text: stories (the grammar's), or a .jsonl file
    questions: str | None = None
    conversations: int = 12_000  # stories of the grammar to ask about
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
    # by reward: the run learns from verdicts on its own answers to questions

    # exact, severe, or FILE.py:NAME, a function of a question and an answer; default: from text
    reward: str | None = None
    group: int = 8  # answers to each question
    answer_tokens: int = 16  # of an answer, at most
    updates: int = 1  # of the weights with the same answers
    clip: float = 0.2  # share by which a token's odds may change in a step
    kl: float = 0.02  # weight of the distance to the model of the start
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
    # multiple-choice stories, or held-out questions, to answer at each validation; 0 for none
    choice_items: int = 400
    # items to answer at each validation: Rowan/hellaswag (from the hub), or a .jsonl file
    hellaswag: str | None = None
    # nats/token above the mean of 100 steps, five steps in a row: the run stops; 0 never stops it
    max_spike: float = 2.0
    tracker: Tracker | None = None  # a program that draws the curves; it gets every line of the log
    # the machine
    device: Device = "auto"  # where to compute
    dtype: Dtype = "auto"  # precision of the matrix products
    compile: Compile = "auto"  # whether torch.compile makes the model faster first
    # keep only the input of each block and compute the block twice: less memory, up to a third more
    # work
    recompute: bool = False
    shard: bool = False  # split every tensor over the ranks, in place of a copy on each
    self_test: bool = True  # compare a small step with the CPU's before training on another device
    seed: int = 1337  # of the weights and of the order of the data
    # the run
    out_dir: str = "runs"  # where runs are kept
    name: str | None = None  # of the run's folder; by default the preset's
    dry_run: bool = False  # say what would be done, and stop
    profile: int = 0  # steps to trace and as many to time by their parts; 0 for none

    def __post_init__(self):
        if self.preset not in PRESETS:
            raise ValueError(
                f"unknown preset {self.preset!r}; expected one of {', '.join(PRESETS)}"
            )
        super().__post_init__()
        if self.optimizer not in options(Optimizer):
            raise ValueError(f"optimizer={self.optimizer!r} is unknown; use adamw or muon")
        _check_numbers(self)
        _check_reward(self)
        check_heads(self.n_head, self.n_embd)
        check_variants(self)
        _check_batch(self)
        _check_horizon(self)
        _check_trained(self)

# %% ../../nbs/tough/ch15_accounting.ipynb #70668990
def _check_numbers(c: TrainConfig) -> None:
    "Refuse what is out of range: each number by itself, then those that depend on another."
    zero = "warmup_steps choice_items seed profile lora_rank".split()  # whole numbers that may be
    least = dict.fromkeys(zero, 0)
    for f in fields(c):
        value = getattr(c, f.name)
        low = 0 if f.type is float else least.get(f.name, 1)  # 0 is a float there, too
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
    if not 0 < c.clip < 1:
        raise ValueError(f"clip={c.clip} must be above 0 and below 1; try 0.2")
    if c.val_overlap >= 1:
        raise ValueError(f"val_overlap={c.val_overlap} must be below 1; try 0.5")
    if c.choice_items > MOST_ITEMS:
        raise ValueError(f"choice_items={c.choice_items} must be {MOST_ITEMS:,} or less; try 400")
    if c.conversations > MOST_TALKS:
        got = f"conversations={c.conversations}"
        raise ValueError(f"{got} must be {MOST_TALKS:,} or less; try {TrainConfig.conversations}")


def _check_reward(c: TrainConfig) -> None:
    "Refuse a reward without questions, of one answer or of endless ones, or of a split model."
    if not c.reward:
        return
    if not c.questions:
        raise ValueError(
            f"reward={c.reward} judges answers to questions; "
            "add --questions stories, or a .jsonl file"
        )
    for name, most in {"group": 1000, "answer_tokens": c.block_size, "updates": 100}.items():
        if getattr(c, name) > most:
            raise ValueError(f"{name}={getattr(c, name)} must be {most} or less")
    if c.group < 2:
        raise ValueError(
            "group=1 leaves an answer nothing to be compared with, so nothing is learned; "
            f"try --group {TrainConfig.group}"
        )
    if c.shard:
        raise ValueError(
            f"reward={c.reward} asks the model in every step, and shard=True splits it; "
            "leave --shard out"
        )


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


def _check_adapter(c: TrainConfig) -> None:
    "Refuse an adapter of nothing, and one that would add nothing."
    if c.init_from is None:
        raise ValueError(
            f"lora_rank={c.lora_rank} adapts trained weights, and none are named; "
            "add --init_from, for example --init_from tiny"
        )
    if c.freeze:
        raise ValueError("an adapter freezes all weights by itself; leave --freeze out")
    if not c.lora_alpha:
        raise ValueError(
            "lora_alpha=0.0 multiplies all that the adapter adds by 0, so nothing is learned; "
            f"try --lora_alpha {TrainConfig.lora_alpha:g}"
        )


def _check_trained(c: TrainConfig) -> None:
    "Refuse an adapter of nothing, and parts that are none or all."
    if not (c.freeze or c.lora_rank):
        return
    if c.lora_rank:
        _check_adapter(c)
    if c.n_layer > MOST_LISTED:
        raise ValueError(
            f"n_layer={c.n_layer} must be {MOST_LISTED:,} or less to freeze some of the blocks or "
            "to adapt them: their parameters are listed one by one"
        )
    shapes, thin = tensor_shapes(c, 1), trained_shapes(c, 1)
    for part in c.freeze:
        if not any(in_part(name, (part,)) for name in shapes):
            raise ValueError(
                f"freeze={part!r} names no part of the model; expected some of wte, wpe, h, h.0 "
                f"to h.{c.n_layer - 1}, attn, attn.c_attn, mlp, ln_1, ln_2, ln_f, bias"
            )
    for part in c.lora_parts if c.lora_rank else ():
        if not any(f".{name}".endswith(f".{part}.lora_A") for name in thin):
            raise ValueError(
                f"lora_parts={part!r} names no layer of a block; expected some of "
                f"{', '.join(TrainConfig.lora_parts)}, lm_head"
            )
    if not thin:
        what, fix = f"freeze={' '.join(c.freeze)}", "name fewer parts"
        if c.lora_rank:
            what, fix = "an empty lora_parts", f"try --lora_parts {TrainConfig.lora_parts[0]}"
        raise ValueError(f"{what} leaves nothing to train; {fix}")


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
    "tiny-sft": {
        "init_from": "tiny",
        "questions": "stories",
        "total_batch": 4096,
        "micro_batch": 32,
        "lr": 0.004,
        "min_lr": 0.0002,
        "muon_lr": 0.008,
        "weight_decay": 0.02,
        "beta2": 0.98,
        "max_steps": 1000,
        "eval_every": 500,
        "sample_every": 500,
        "save_every": 500,
    },
    "tiny-lora": {
        "init_from": "tiny",
        "total_batch": 2048,
        "micro_batch": 16,
        "optimizer": "adamw",
        "lora_rank": 4,
        "lora_parts": ("attn.c_proj", "mlp.c_proj", "lm_head"),
        "lr": 0.01,
        "min_lr": 0.0005,
        "warmup_steps": 5,
        "weight_decay": 0.01,
        "beta2": 0.98,
        "max_steps": 100,
        "val_overlap": 0.5,
        "eval_every": 50,
        "sample_every": 50,
        "save_every": 50,
    },
    "tiny-grpo": {
        "init_from": "tiny-sft",
        "questions": "stories",
        "conversations": 100,
        "reward": "exact",
        "total_batch": 4096,
        "micro_batch": 32,
        "lr": 0.0005,
        "min_lr": 0.00005,
        "muon_lr": 0.001,
        "warmup_steps": 5,
        "weight_decay": 0.02,
        "beta2": 0.98,
        "compile": "off",
        "max_steps": 500,
        "eval_every": 100,
        "sample_every": 100,
        "save_every": 100,
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
MOST_TALKS = 1_000_000  # stories whose questions are held in memory
MOST_LISTED = 10_000  # blocks, where their parameters are told apart
# of the model; the vocabulary is the tokenizer's
MODEL_SIZES = ("n_layer", "n_head", "n_embd", "block_size", *GPT2_BLOCK)
# a resumed run may change these and nothing else
MAY_CHANGE = frozenset(HORIZONS) | set(
    """lr min_lr muon_lr eval_every sample_every save_every keep_last choice_items hellaswag
    max_spike tracker device dtype compile self_test micro_batch out_dir data_dir name dry_run
    preset profile recompute shard""".split()
)

# runs of earlier versions lack these, and mean the defaults
LATER = "init_from grow freeze lora_rank lora_alpha lora_parts questions conversations".split()
LATER += "reward group answer_tokens updates clip kl".split()
NEWER = {f.name: f.default for f in fields(TrainConfig) if f.name in LATER}
NEWER = {k: [*v] if isinstance(v, tuple) else v for k, v in NEWER.items()}  # as JSON has them


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


def tensor_shapes(
    config: TrainConfig,
    vocab_size: int,  # V, rows of the token table
) -> dict[str, tuple[int, ...]]:  # name: shape
    "List the parameters of a model by name; a tied matrix once."
    block, outer = block_shapes(config), outer_shapes(config, vocab_size)
    found = {(n if n.startswith("lm_head") else f"transformer.{n}"): s for n, s in outer.items()}
    layers = range(config.n_layer)
    return found | {f"transformer.h.{i}.{n}": s for i in layers for n, s in block.items()}


def in_part(
    name: str,  # of a parameter: transformer.h.0.attn.c_attn.weight
    parts: tuple[str, ...],  # wte, h.0, attn, attn.c_attn, bias
) -> bool:
    "Whether a parameter belongs to one of the parts."
    return any(f".{part}." in f".{name}." for part in parts)


def trained_shapes(
    config: TrainConfig,
    vocab_size: int,  # V, rows of the token table
) -> dict[str, tuple[int, ...]]:  # name: shape
    "List the parameters that a run trains: all, those not frozen, or those of an adapter."
    c, r = config, config.lora_rank
    shapes = tensor_shapes(c, vocab_size)
    if not r:
        return {name: s for name, s in shapes.items() if not in_part(name, c.freeze)}
    thin, ends = {}, tuple(f".{part}" for part in c.lora_parts)
    shapes = {name: s for name, s in shapes.items() if ".h." in name}
    for name, shape in (shapes | {"lm_head.weight": (vocab_size, c.n_embd)}).items():
        layer, _, last = name.rpartition(".")
        if last == "weight" and len(shape) == 2 and f".{layer}".endswith(ends):
            thin |= {f"{layer}.lora_A": (r, shape[1]), f"{layer}.lora_B": (shape[0], r)}
    return thin


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
    n_trained: int | None = None,  # parameters that get a gradient; None: all
) -> int:  # floating-point operations of forward and backward
    """Estimate what one token of training costs: 6N + 12·L·T·C.

    Each weight multiplies and adds once in the forward pass and twice in the backward pass;
    attention scores and their use add the second term. Source: PaLM (arXiv 2204.02311), appendix B.
    """
    n_trained = n_params if n_trained is None else n_trained
    return 4 * n_params + 2 * n_trained + 12 * n_layer * block_size * n_embd


def token_flops(
    config: TrainConfig,
    vocab_size: int,  # V, rows of the token table
) -> int:  # floating-point operations of forward and backward
    "Estimate what one token costs in a run: frozen weights get no gradient, a table is looked up."
    c, trained = config, None
    if c.freeze or c.lora_rank:
        shapes = trained_shapes(c, vocab_size)
        trained = numbers({n: s for n, s in shapes.items() if c.tied or "wte" not in n})
    return flops_per_token(multiplied(c, vocab_size), c.n_layer, c.n_embd, c.block_size, trained)


def flops_again(
    config: TrainConfig,
    vocab_size: int,  # V, rows of the token table
) -> int:  # floating-point operations for a token
    "Estimate what `recompute` adds: the forward pass of the blocks, without tables and head."
    c = config
    if not c.recompute:
        return 0
    return c.n_layer * (2 * numbers(block_shapes(c)) + 4 * c.block_size * c.n_embd)

# %% ../../nbs/tough/ch15_accounting.ipynb #3f38a262
def horizon(
    config: TrainConfig,
    train_tokens: int,  # in the training shards
) -> int:  # steps
    "Turn the horizon into steps, rounded down, at least one."
    tokens = config.max_tokens if config.num_epochs is None else config.num_epochs * train_tokens
    if tokens == float("inf"):
        raise ValueError(f"num_epochs={config.num_epochs:g} has no number of steps; lower it")
    steps = config.max_steps if tokens is None else int(tokens // config.total_batch)
    return max(1, steps)

# %% ../../nbs/tough/ch15_accounting.ipynb #97a23cfe
def portion(
    shapes: dict[str, tuple[int, ...]],
    ranks: int,  # that share the rows of every tensor; 1: none are shared
) -> dict[str, tuple[int, ...]]:
    "Give the shapes of what the first rank holds."
    return {name: (-(-shape[0] // ranks), *shape[1:]) for name, shape in shapes.items()}


def optimizer_bytes(
    config: TrainConfig,
    vocab_size: int,  # V, rows of the token table
    ranks: int = 1,  # that share it
) -> int:  # bytes
    "Count the optimizer's memory: two fp32 moments for AdamW, one for Muon, and AdamW's steps."
    c, block = config, portion(block_shapes(config), ranks)
    outer = portion(outer_shapes(c, vocab_size), ranks)
    n = c.n_layer * numbers(block) + numbers(outer)
    tensors = c.n_layer * len(block) + len(outer)
    if c.optimizer == "muon":  # of the blocks' matrices, which it keeps no steps of
        matrices = c.n_layer * numbers(block, 2)
        tensors -= c.n_layer * sum(len(shape) == 2 for shape in block.values())
        return 4 * matrices + 8 * (n - matrices) + 4 * tensors
    return 8 * n + 4 * tensors


def kept_for_scores(
    c: TrainConfig,  # or a GPTConfig
    width: int,  # bytes of a number in matrix products
    wide: bool,  # whether attention is computed in fp32 all the same
) -> int:  # bytes for each token
    "Count what is kept of queries, keys and values: 3C numbers in GPT-2, in one tensor."
    C, kv, half = c.n_embd, kv_width(c), width < 4
    made = c.qk_norm or c.position == "rope"  # queries and keys are not those of c_attn
    grouped = kv < C
    normed = c.qk_norm * 4 * ((1 + half) * (C + kv) + (C + kv) * c.n_head // C)
    if wide and half:  # copies in fp32, and attention's result twice
        return normed + 4 * 3 * C + 4 * C
    one = not grouped or not made or (c.qk_norm and not half)  # something refers to c_attn's
    copies = made + (made or grouped) + grouped  # of q, k and v
    return normed + width * (one * (C + 2 * kv) + copies * C)


def trained_bytes(
    config: TrainConfig,
    vocab_size: int,  # V, rows of the token table
    ranks: int = 1,  # that share it
) -> int:  # bytes
    "Count the optimizer's memory for the parameters that a run trains."
    c = config
    if not (c.freeze or c.lora_rank):
        return optimizer_bytes(c, vocab_size, ranks)
    shapes = portion(trained_shapes(c, vocab_size), ranks)
    muon = {n: s for n, s in shapes.items() if len(s) == 2 and ".h." in n}
    muon = muon if c.optimizer == "muon" else {}
    adam = {n: s for n, s in shapes.items() if n not in muon}
    return 4 * numbers(muon) + 8 * numbers(adam) + 4 * len(adam)


def kept_bytes(
    tokens: int,  # B x T of a micro-batch
    c: TrainConfig,  # or a GPTConfig
    width: int = 4,  # bytes of a number in matrix products: 4 in fp32, 2 in bf16 and fp16
    wide: bool = False,  # whether attention is computed in fp32 all the same: short texts on a CPU
) -> int:  # bytes
    """Count what one block keeps from the forward pass for the backward pass, in numbers per token:

    inputs of the two LayerNorms 2C and their means and deviations 4, always in fp32; q, k and v 3C;
    inputs of the four matrices C, C, C and 4C; input of the GELU 4C; and one number per head from
    the attention's softmax, in fp32. An RMSNorm keeps its result beside its input, and a gate
    keeps its two factors.
    """
    C, hidden = c.n_embd, hidden_width(c.n_embd, c.mlp)
    norms = 2 * C + (4 if c.norm == "layer" else 2 + 2 * C)
    mlp = 2 * hidden
    if c.mlp == "swiglu":
        mlp = 4 * hidden + (width < 4) * C  # the input of c_fc is cast twice
    always = 4 * (norms + c.n_head)
    return tokens * (always + width * (3 * C + mlp) + kept_for_scores(c, width, wide))

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

    from gpt2edu.model.linear import multiply  # the faster of two libraries on a CPU

    device = torch.device(device)
    waits = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}
    wait = waits.get(device.type, lambda: None)
    sizes = PEAK_SIZES[device.type]
    repeats = 1 if device.type == "cpu" else 8  # a GPU is timed over several products
    best = 0.0
    for n in sizes:
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in "ab")
        multiply(a, b)  # the first one chooses a kernel
        wait()
        end = time.perf_counter() + seconds / len(sizes)
        while True:
            t0 = time.perf_counter()
            for _ in range(repeats):
                multiply(a, b)
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
