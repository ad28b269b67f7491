"""Name the seven choices that make a block GPT-2's or one of today, and count what each costs."""

# Made by tools/book.py from ../../book/medium/ch09c_variants.md: edit that, then `make book`.

# %% auto #0
__all__ = ['Position', 'Norm', 'Activation', 'GPT2_BLOCK', 'Variants', 'check_variants', 'changed',
           'hidden_width', 'kv_width', 'block_shapes', 'outer_shapes', 'numbers', 'parameters',
           'multiplied']

# %% ../../nbs/medium/ch09c_variants.ipynb #309db79c
import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from gpt2edu.model.heads import near_heads

# %% ../../nbs/medium/ch09c_variants.ipynb #d6bf98c4
Position = Literal["learned", "rope"]
Norm = Literal["layer", "rms"]
Activation = Literal["gelu", "swiglu", "relu2"]


@dataclass(frozen=True, kw_only=True)
class Variants:
    "What a block is made of; the defaults are GPT-2's."

    # the block: by default GPT-2's
    position: Position = "learned"  # a table of positions, or RoPE, which turns queries and keys
    norm: Norm = "layer"  # LayerNorm, or RMSNorm, which takes no mean off
    mlp: Activation = "gelu"  # what bends in the MLP; swiglu has a gate, relu2 is ReLU squared
    qk_norm: bool = False  # normalise queries and keys before their product
    bias: bool = True  # of linear layers and LayerNorms
    tied: bool = True  # one matrix for token table and head
    n_kv_head: int | None = None  # heads of keys and values; divides n_head, by default n_head


GPT2_BLOCK = {f.name: f.default for f in fields(Variants)}

# %% ../../nbs/medium/ch09c_variants.ipynb #d490d0d0
def check_variants(
    c: Any,  # a config with n_head, n_embd and the fields of `Variants`; the heads divide the width
) -> None:
    "Refuse a variant that cannot be built. ValueError, one line."
    for name, kind in (("position", Position), ("norm", Norm), ("mlp", Activation)):
        if (got := getattr(c, name)) not in get_args(kind):
            *words, last = get_args(kind)
            raise ValueError(f"{name}={got!r} is unknown; use {', '.join(words)} or {last}")
    for name in ("qk_norm", "bias", "tied"):
        if type(got := getattr(c, name)) is not bool:
            raise ValueError(f"{name}={got!r} must be True or False")
    n = c.n_kv_head
    if n is not None and (type(n) is not int or n < 1 or c.n_head % n):
        fits = near_heads(n if type(n) is int and n > 0 else 1, c.n_head)
        raise ValueError(f"n_kv_head={n!r} must divide n_head={c.n_head}; try {fits}")
    if c.position == "rope" and (hs := c.n_embd // c.n_head) % 2:
        raise ValueError(
            f"position=rope turns pairs of numbers, and n_embd={c.n_embd} / n_head={c.n_head} "
            f"= {hs} is odd; take an even width of a head"
        )


def changed(
    c: Any,  # has the fields of `Variants`
) -> dict:  # field: value
    "List the fields in which a config is not GPT-2's."
    return {k: v for k, was in GPT2_BLOCK.items() if (v := getattr(c, k)) != was}

# %% ../../nbs/medium/ch09c_variants.ipynb #21cd20f2
def hidden_width(
    n_embd: int,  # C
    mlp: str = "gelu",
) -> int:
    "Give the width inside the MLP: 4C, or 8C/3 with a gate. Source: Shazeer (2020), section 2."
    return 16 * math.ceil(8 * n_embd / 48) if mlp == "swiglu" else 4 * n_embd


def kv_width(
    c: Any,  # has n_embd, n_head and n_kv_head
) -> int:  # numbers that a layer's cache keeps for the keys of a position, and again for its values
    "Give the width of all heads of keys together: C in GPT-2."
    return c.n_embd // c.n_head * (c.n_kv_head or c.n_head)


def block_shapes(
    c: Any,  # has n_embd, n_head and the fields of `Variants`
) -> dict[str, tuple[int, ...]]:  # name in the block: shape
    "List the parameters of one block."
    C, hidden = c.n_embd, hidden_width(c.n_embd, c.mlp)
    linear = {"attn.c_attn": (C + 2 * kv_width(c), C), "attn.c_proj": (C, C)}
    linear |= {"mlp.c_fc": (hidden, C), "mlp.c_proj": (C, hidden)}
    if c.mlp == "swiglu":
        linear["mlp.c_gate"] = (hidden, C)
    found = {f"{name}.weight": shape for name, shape in linear.items()}
    found |= {f"{name}.weight": (C,) for name in ("ln_1", "ln_2")}
    if c.bias:
        found |= {f"{name}.bias": shape[:1] for name, shape in linear.items()}
        if c.norm == "layer":
            found |= {f"{name}.bias": (C,) for name in ("ln_1", "ln_2")}
    if c.qk_norm:
        found |= {f"attn.{name}.weight": (C // c.n_head,) for name in ("q_norm", "k_norm")}
    return found


def outer_shapes(
    c: Any,  # has n_embd, block_size and the fields of `Variants`
    vocab_size: int,  # V
) -> dict[str, tuple[int, ...]]:  # name: shape
    "List the parameters outside the blocks; a tied matrix once."
    C = c.n_embd
    found = {"wte.weight": (vocab_size, C), "ln_f.weight": (C,)}
    if c.position == "learned":
        found["wpe.weight"] = (c.block_size, C)
    if c.bias and c.norm == "layer":
        found["ln_f.bias"] = (C,)
    if not c.tied:
        found["lm_head.weight"] = (vocab_size, C)
    return found

# %% ../../nbs/medium/ch09c_variants.ipynb #8e1c96d9
def numbers(
    shapes: dict[str, tuple[int, ...]],  # from `block_shapes` or `outer_shapes`
    least: int = 1,  # 2: only of matrices
) -> int:
    "Count the numbers in the shapes that have at least this many dimensions."
    return sum(math.prod(shape) for shape in shapes.values() if len(shape) >= least)

# %% ../../nbs/medium/ch09c_variants.ipynb #22c2dad1
def parameters(
    c: Any,  # a config with n_layer, n_head, n_embd, block_size and the fields of `Variants`
    vocab_size: int,  # V, rows of the token table
    least: int = 1,  # 2: only of matrices and tables
) -> int:
    "Count the parameters of a model that is not built; a tied matrix counts once."
    block, rest = block_shapes(c), outer_shapes(c, vocab_size)
    return c.n_layer * numbers(block, least) + numbers(rest, least)


def multiplied(
    c: Any,  # as for `parameters`
    vocab_size: int,  # V
) -> int:
    "Count the parameters that a token's cost is made of: not a table that is only looked up."
    return parameters(c, vocab_size) - (not c.tied) * vocab_size * c.n_embd
