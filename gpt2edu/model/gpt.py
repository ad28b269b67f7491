"""The whole of GPT-2: embeddings, blocks, head, initialisation, loss, equal to Hugging Face's."""

# Made by tools/book.py from ../../book/medium/ch09_model.md: edit that, then `make book`.

# %% auto #0
__all__ = ['SIZES', 'FORGET', 'LOGITS_AT_ONCE', 'LOGITS_ON_CUDA', 'PIECES', 'FP16_SCALE', 'IGNORE',
           'LAYER_BYTES', 'GPTConfig', 'gelu', 'worth_forgetting', 'forget_between', 'MLP', 'Block',
           'chunk_rows', 'ChunkedCrossEntropy', 'cross_entropy', 'token_losses', 'check_size',
           'GPT', 'num_params']

# %% ../../nbs/medium/ch09_model.ipynb #d175d88f
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gpt2edu.model.attention import CausalSelfAttention, KVCache
from gpt2edu.machine.limits import need_memory
from gpt2edu.model.heads import check_heads
from gpt2edu.model.linear import Linear, multiply
from gpt2edu.model.modern import make_norm, turns
from gpt2edu.model.variants import (
    Variants,
    check_variants,
    hidden_width,
    parameters,
)

# %% ../../nbs/medium/ch09_model.ipynb #ae818a40
SIZES = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")


@dataclass(frozen=True)
class GPTConfig(Variants):
    """Sizes of a GPT, and what its blocks are made of. The defaults are GPT-2 124M.

    ValueError for what cannot be built.
    """

    n_layer: int = 12  # blocks
    n_head: int = 12  # attention heads in a block; divides n_embd
    n_embd: int = 768  # C, width of the residual stream
    block_size: int = 1024  # longest context, tokens
    vocab_size: int = 50257  # V, token ids; 50304 (a multiple of 128) is faster on a GPU

    def __post_init__(self):
        for name in SIZES:
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value < 2**63:
                raise ValueError(
                    f"{name}={value!r} must be a whole number, 1 or more; "
                    f"GPT-2 124M has {getattr(GPTConfig, name)}"
                )
        check_heads(self.n_head, self.n_embd)
        check_variants(self)

    def matrix_numbers(self) -> int:
        "Count the numbers in the tables and matrices: nearly all parameters."
        return parameters(self, self.vocab_size, least=2)

# %% ../../nbs/medium/ch09_model.ipynb #9fd1f837
FORGET = 2**22  # numbers that a GELU makes, from which it is computed again


def gelu(h: Tensor) -> Tensor:  # the shape stays
    "Compute GPT-2's GELU, the tanh form. Source: Hendrycks and Gimpel (2016), section 2."
    return F.gelu(h, approximate="tanh")


def worth_forgetting(h: Tensor) -> bool:
    "Say whether the result of a GELU is large and would be kept for a backward pass."
    if torch.compiler.is_compiling() or h.is_meta:
        return False
    return torch.is_grad_enabled() and h.numel() >= FORGET


def forget_between(
    bend: Callable[[Tensor], Tensor],  # cheap to compute again
    h: Tensor,  # its input
    product: Callable[[Tensor], Tensor],  # takes the result, and needs it in the backward pass
) -> Tensor:
    "Compute `product(bend(h))`, and `bend(h)` again when the backward pass asks for it."
    wide = bend(h)
    # not `wide` itself, which the hooks would keep alive
    where, numbers = wide.data_ptr(), wide.numel()

    def pack(t: Tensor) -> Tensor | torch.Size:
        return t.shape if t.data_ptr() == where and t.numel() == numbers else t

    def unpack(kept: Tensor | torch.Size) -> Tensor:
        with torch.no_grad():
            return bend(h).view(kept) if isinstance(kept, torch.Size) else kept

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return product(wide)


class MLP(nn.Module):
    "Two linear layers with a GELU between, for each position by itself."

    def __init__(
        self,
        n_embd: int,  # C
        kind: str = "gelu",  # GPT-2's; or swiglu, relu2: chapter 26
        bias: bool = True,
    ):
        super().__init__()
        self.kind, width = kind, hidden_width(n_embd, kind)  # 4C in GPT-2
        if kind == "swiglu":
            self.c_gate = Linear(n_embd, width, bias=bias)
        self.c_fc = Linear(n_embd, width, bias=bias)
        self.c_proj = Linear(width, n_embd, bias=bias)

    def forward(
        self,
        x: Tensor,  # (B, T, C)
        lean: bool = False,  # whether a large batch may compute its GELU again
    ) -> Tensor:  # (B, T, C)
        "Widen, bend, narrow."
        if self.kind == "swiglu":  # a gate decides how much of each number passes
            x = F.silu(self.c_gate(x)) * self.c_fc(x)  # (B, T, 8C/3)
        elif self.kind == "relu2":
            x = F.relu(self.c_fc(x)).square()  # (B, T, 4C)
        else:
            h = self.c_fc(x)  # (B, T, 4C)
            if lean and worth_forgetting(h):
                return forget_between(gelu, h, self.c_proj)
            x = gelu(h)  # (B, T, 4C)
        return self.c_proj(x)  # (B, T, C)

# %% ../../nbs/medium/ch09_model.ipynb #3d8dc1ae
class Block(nn.Module):
    "One layer: attention, then MLP; each reads a normalised copy of the stream and adds to it."

    def __init__(
        self,
        n_embd: int,  # C
        n_head: int,  # nh
        v: Variants | None = None,  # None: GPT-2's block
    ):
        super().__init__()
        v = v or Variants()
        self.ln_1 = make_norm(n_embd, v.norm, v.bias)
        self.attn = CausalSelfAttention(n_embd, n_head, v.n_kv_head, v.bias, v.qk_norm)
        self.ln_2 = make_norm(n_embd, v.norm, v.bias)
        self.mlp = MLP(n_embd, v.mlp, v.bias)

    def forward(
        self,
        x: Tensor,  # (B, T, C) residual stream
        cache: KVCache | None = None,  # of this layer
        mask: Tensor | None = None,  # (B, 1, T, T) bool, who sees whom; None: each its past
        turn: tuple[Tensor, Tensor] | None = None,  # RoPE's cosines and sines; None in GPT-2
        lean: bool = False,  # as for `MLP`
    ) -> Tensor:  # (B, T, C) residual stream
        "Read, add, read, add."
        x = x + self.attn(self.ln_1(x), cache, mask, turn)
        return x + self.mlp(self.ln_2(x), lean)

# %% ../../nbs/medium/ch09_model.ipynb #1329bca8
LOGITS_AT_ONCE = 2**26  # numbers; fp32 logits of one chunk take about 256 MiB
LOGITS_ON_CUDA = 2**28  # the same on a GPU: 1 GiB
PIECES = 16  # into which a chunk is cut for its softmax, and the gradient of the matrix
FP16_SCALE = 256.0  # of the gradient of the logits, before it is cast
IGNORE = -100  # a target that does not count, PyTorch's own default


def chunk_rows(
    N: int,  # positions
    V: int,  # logits of each
    at_once: int,  # logits to hold at a time
) -> int:  # positions of a chunk
    "Share positions evenly among as few chunks as possible; from 128 on, a multiple of 128."
    rows = math.ceil(N / math.ceil(N * V / at_once))
    return rows if rows < 128 else math.ceil(rows / 128) * 128


class ChunkedCrossEntropy(torch.autograd.Function):
    """Cross-entropy that holds the logits of one chunk of positions at a time.

    It computes the gradient beside the loss, so no logits wait for the backward pass.
    """

    @staticmethod
    def forward(ctx, x, weight, targets, rows, with_grad):
        count = (targets != IGNORE).sum()
        loss = torch.zeros((), device=x.device)
        dx, dw = (torch.empty_like(x), torch.zeros_like(weight)) if with_grad else (None, None)
        start, where = 0, x.device.type
        pieces = 1 if torch.compiler.is_compiling() else PIECES  # a compiler fuses by itself
        if torch.is_autocast_enabled(where):  # cast once, not for each product
            weight = weight.to(torch.get_autocast_dtype(where))
        for xs, ts in zip(x.split(rows), targets.split(rows), strict=True):
            logits = multiply(xs, weight)  # (n, C) @ (C, V) -> (n, V)
            half = logits.dtype == torch.float16
            few = math.ceil(len(ts) / pieces)
            for z, t in zip(logits.split(few), ts.split(few), strict=True):
                d = z.float().log_softmax(dim=1)  # (few, V)
                loss += F.nll_loss(d, t, ignore_index=IGNORE, reduction="sum")
                if with_grad:  # d(loss)/d(logits) = softmax - one-hot
                    d = d.exp_()  # (few, V)
                    d.scatter_add_(1, t.clamp(min=0)[:, None], d.new_full((len(t), 1), -1.0))
                    d = d.mul_((t != IGNORE)[:, None])
                    z.copy_(d.mul_(FP16_SCALE) if half else d)  # in place of the logits
            if with_grad:
                xs = xs / FP16_SCALE if half else xs
                # (n, V) @ (V, C) -> (n, C)
                dx[start : start + len(ts)] = multiply(logits, weight.t())
                wide = math.ceil(len(weight) / pieces)
                for w, d in zip(dw.split(wide), logits.split(wide, dim=1), strict=True):
                    w += multiply(d.t(), xs.t())  # (wide, n) @ (n, C) -> (wide, C)
            start += len(ts)
            logits = z = d = None  # before the next chunk takes its room
        if with_grad:
            dx = dx / FP16_SCALE if half else dx
            ctx.save_for_backward(dx, dw, count)
        return loss / count

    @staticmethod
    def backward(ctx, grad):
        dx, dw, count = ctx.saved_tensors
        scale = grad / count
        return dx * scale, dw * scale, None, None, None


def cross_entropy(
    x: Tensor,  # (N, C) final residual stream, normalised
    weight: Tensor,  # (V, C) output embedding
    targets: Tensor,  # (N,) int64 ids of the next tokens; IGNORE where there is none
    at_once: int | None = None,  # logits to hold at a time; None: what suits the device
) -> Tensor:  # () mean over the targets that count, nats/token, fp32
    "Compute the mean cross-entropy of `x @ weight.T` without holding all logits at once."
    at_once = at_once or (LOGITS_ON_CUDA if x.is_cuda else LOGITS_AT_ONCE)
    if len(x) * len(weight) <= at_once:
        return F.cross_entropy(multiply(x, weight).float(), targets, ignore_index=IGNORE)
    rows = chunk_rows(len(x), len(weight), at_once)
    return ChunkedCrossEntropy.apply(x, weight, targets, rows, torch.is_grad_enabled())


def token_losses(
    x: Tensor,  # (N, C) final residual stream, normalised
    weight: Tensor,  # (V, C) output embedding
    targets: Tensor,  # (N,) int64 ids of the next tokens; IGNORE where there is none
    at_once: int = LOGITS_AT_ONCE,  # logits to hold at a time
) -> Tensor:  # (M,) loss of each target that counts, in their order, nats, fp32
    "Compute the losses one by one; the head is multiplied only with positions that count."
    counts = targets != IGNORE
    x, targets = x[counts], targets[counts]  # (M, C), (M,)
    n = max(1, at_once // len(weight))  # positions at a time
    parts = zip(x.split(n), targets.split(n), strict=True)
    logits = ((multiply(xs, weight).float(), ts) for xs, ts in parts)  # (n, V), (n,)
    losses = [F.cross_entropy(scores, ts, reduction="none") for scores, ts in logits]
    return torch.cat(losses) if losses else x.new_zeros(0)

# %% ../../nbs/medium/ch09_model.ipynb #7507dc1d
LAYER_BYTES = 50_000  # of Python objects, about, whatever the width


def check_size(config: GPTConfig):
    "Refuse a model that is larger than the memory. ValueError, one line."
    c, one = config, torch.empty(0)
    stored = 0 if one.is_meta else one.element_size()  # bytes of a number
    sizes = ", ".join(f"{name}={getattr(c, name)}" for name in SIZES if name != "n_head")
    need = LAYER_BYTES * c.n_layer + stored * c.matrix_numbers()
    need_memory(need, f"a model with {sizes}", "take smaller sizes")


class GPT(nn.Module):
    "GPT-2 (Radford et al. 2019), with its weight names."

    recompute = False  # whether blocks are computed a second time in the backward pass: chapter 15

    def __init__(
        self,
        config: GPTConfig,  # sizes
        generator: torch.Generator | None = None,  # of the initial weights; None takes torch's own
    ):
        super().__init__()
        check_size(config)
        self.config = c = config
        parts = {"wte": nn.Embedding(c.vocab_size, c.n_embd)}  # a vector for each token
        if c.position == "learned":
            parts["wpe"] = nn.Embedding(c.block_size, c.n_embd)  # a vector for each position
        parts["h"] = nn.ModuleList(Block(c.n_embd, c.n_head, c) for _ in range(c.n_layer))
        parts["ln_f"] = make_norm(c.n_embd, c.norm, c.bias)
        self.transformer = nn.ModuleDict(parts)
        self.lm_head = Linear(c.n_embd, c.vocab_size, bias=False)
        if c.tied:
            self.lm_head.weight = self.transformer.wte.weight  # one matrix for both
        self.init_weights(generator)

    @torch.no_grad()
    def init_weights(
        self,
        generator: torch.Generator | None = None,  # None takes torch's own
    ):
        "Draw N(0, 0.02), smaller by sqrt(2 n_layer) where a layer adds to the stream."
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                p.zero_()
            elif p.ndim == 1:  # gain of a norm
                p.fill_(1.0)
            else:
                adds = name.endswith("c_proj.weight")  # to the stream
                scale = math.sqrt(2 * self.config.n_layer) if adds else 1.0
                p.normal_(0.0, 0.02 / scale, generator=generator)

    def new_caches(self) -> list[KVCache]:  # one a layer, empty
        "Make the caches for `forward`."
        return [KVCache(self.config.block_size) for _ in range(self.config.n_layer)]

    def embed(
        self,
        idx: Tensor,  # (B, T) int64 token ids
        start: int = 0,  # position of the first one
        positions: Tensor | None = None,  # (B, T) int64; None: from `start` on
    ) -> Tensor:  # (B, T, C) residual stream before the first block
        "Add token and position embeddings. ValueError if the text is longer than the context."
        T = idx.shape[1]
        longest = self.config.block_size
        if positions is None and start + T > longest:
            raise ValueError(
                f"{start + T} tokens do not fit a context of {longest} (block_size); "
                f"pass at most {longest}, or build the model with a larger block_size"
            )
        x = self.transformer.wte(idx)  # (B, T, C)
        if self.config.position == "rope":
            return x  # queries and keys are turned instead
        if positions is None:
            positions = torch.arange(start, start + T, device=idx.device)  # (T,)
        return x + self.transformer.wpe(positions)  # (B, T, C) + (B, T, C), or + (T, C)

    def turn(
        self,
        idx: Tensor,  # (B, T) int64 token ids
        start: int = 0,  # position of the first one
        positions: Tensor | None = None,  # (B, T) int64; None: from `start` on
    ) -> tuple[Tensor, Tensor] | None:  # cosines and sines for RoPE; None: GPT-2 turns nothing
        "Compute the rotation of every position once, for all blocks."
        c = self.config
        if c.position != "rope":
            return None
        if positions is None:
            positions = torch.arange(start, start + idx.shape[1], device=idx.device)  # (T,)
        return turns(positions, c.n_embd // c.n_head)

    def through(
        self,
        block: Block,
        x: Tensor,  # (B, T, C) residual stream
        cache: KVCache | None = None,  # of this layer
        mask: Tensor | None = None,  # as for `Block`
        turn: tuple[Tensor, Tensor] | None = None,  # from `turn`
    ) -> Tensor:  # (B, T, C) residual stream
        "Apply a block; with `recompute`, keep only its input for the backward pass."
        if not (self.recompute and torch.is_grad_enabled()):
            return block(x, cache, mask, turn, lean=True)
        again = {"use_reentrant": False, "preserve_rng_state": False}  # a block draws no numbers
        return checkpoint(block, x, cache, mask, turn, **again)

    def forward(
        self,
        idx: Tensor,  # (B, T) int64 token ids
        targets: Tensor | None = None,  # (B, T) int64 next ids; IGNORE (-100) where none counts
        caches: list[KVCache] | None = None,  # from `new_caches`; idx continues what they hold
        last_only: bool = False,  # only the logits of the last position: all that sampling needs
        positions: Tensor | None = None,  # (B, T) int64 place in its text; None: 0, 1, …
        mask: Tensor | None = None,  # (B, 1, T, T) bool, who sees whom; None: each token its past
        each: bool = False,  # with targets: the loss of each that counts, in place of their mean
    ) -> tuple[Tensor | None, Tensor | None]:  # logits (B, T, V), or with targets loss, nats/token
        "Predict the next token at every position; with targets, give the loss and keep no logits."
        start = caches[0].length if caches else 0
        x = self.embed(idx, start, positions)  # (B, T, C)
        turn = self.turn(idx, start, positions)
        for i, block in enumerate(self.transformer.h):
            x = self.through(block, x, caches[i] if caches else None, mask, turn)
        x = self.transformer.ln_f(x[:, -1:] if last_only else x)  # (B, T, C), or (B, 1, C)
        if targets is None:
            return self.lm_head(x), None  # (B, T, V)
        x, targets = x.flatten(0, 1), targets.flatten()  # (B*T, C), (B*T,)
        if mask is not None and not (each or torch.compiler.is_compiling()):  # answers are few
            counts = targets != IGNORE
            x, targets = x[counts], targets[counts]  # (M, C), (M,)
        loss = token_losses if each else cross_entropy
        return None, loss(x, self.lm_head.matrix(), targets)

    @torch.no_grad()
    def attention_weights(
        self,
        idx: Tensor,  # (B, T) int64 token ids
    ) -> Tensor:  # (n_layer, B, nh, T, T) rows sum to 1
        "Compute what every head looks at, for plots."
        x, turn = self.embed(idx), self.turn(idx)
        weights = []
        for block in self.transformer.h:
            weights.append(block.attn.weights(block.ln_1(x), turn))
            x = block(x, turn=turn)
        return torch.stack(weights)

# %% ../../nbs/medium/ch09_model.ipynb #d06c0afc
def num_params(
    model: nn.Module,  # a tied matrix counts once
) -> int:
    "Count the parameters."
    return sum(p.numel() for p in model.parameters())
