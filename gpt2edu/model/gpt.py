"""The whole of GPT-2: embeddings, blocks, head, initialisation, loss, equal to Hugging Face's."""

# Made by tools/book.py from ../../book/medium/ch09_model.md: edit that, then `make book`.

# %% auto #0
__all__ = ['LOGITS_AT_ONCE', 'LOGITS_ON_CUDA', 'FP16_SCALE', 'IGNORE', 'LAYER_BYTES', 'GPTConfig',
           'MLP', 'Block', 'chunk_rows', 'ChunkedCrossEntropy', 'cross_entropy', 'token_losses',
           'check_size', 'GPT', 'num_params']

# %% ../../nbs/medium/ch09_model.ipynb #d175d88f
import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2edu.model.attention import CausalSelfAttention, KVCache
from gpt2edu.machine.limits import need_memory
from gpt2edu.model.heads import check_heads
from gpt2edu.model.linear import Linear

# %% ../../nbs/medium/ch09_model.ipynb #ae818a40
@dataclass(frozen=True)
class GPTConfig:
    "Sizes of a GPT. The defaults are GPT-2 124M. ValueError for sizes that cannot be built."

    n_layer: int = 12  # blocks
    n_head: int = 12  # attention heads in a block; divides n_embd
    n_embd: int = 768  # C, width of the residual stream
    block_size: int = 1024  # longest context, tokens
    vocab_size: int = 50257  # V, token ids; 50304 (a multiple of 128) is faster on a GPU

    def __post_init__(self):
        for f in fields(self):
            value = getattr(self, f.name)
            if type(value) is not int or not 1 <= value < 2**63:
                raise ValueError(
                    f"{f.name}={value!r} must be a whole number, 1 or more; "
                    f"GPT-2 124M has {f.default}"
                )
        check_heads(self.n_head, self.n_embd)

    def matrix_numbers(self) -> int:
        "Count the numbers in the tables and matrices: nearly all parameters."
        return (self.vocab_size + self.block_size + 12 * self.n_layer * self.n_embd) * self.n_embd

# %% ../../nbs/medium/ch09_model.ipynb #9fd1f837
class MLP(nn.Module):
    "Two linear layers with a GELU between, for each position by itself."

    def __init__(
        self,
        n_embd: int,  # C
    ):
        super().__init__()
        self.c_fc = Linear(n_embd, 4 * n_embd)
        self.c_proj = Linear(4 * n_embd, n_embd)

    def forward(
        self,
        x: Tensor,  # (B, T, C)
    ) -> Tensor:  # (B, T, C)
        "Widen, bend, narrow."
        x = F.gelu(self.c_fc(x), approximate="tanh")  # (B, T, 4C)
        return self.c_proj(x)  # (B, T, C)

# %% ../../nbs/medium/ch09_model.ipynb #3d8dc1ae
class Block(nn.Module):
    "One layer: attention, then MLP; each reads a normalised copy of the stream and adds to it."

    def __init__(
        self,
        n_embd: int,  # C
        n_head: int,  # nh
    ):
        super().__init__()
        self.ln_1 = nn.LayerNorm(n_embd)
        self.attn = CausalSelfAttention(n_embd, n_head)
        self.ln_2 = nn.LayerNorm(n_embd)
        self.mlp = MLP(n_embd)

    def forward(
        self,
        x: Tensor,  # (B, T, C) residual stream
        cache: KVCache | None = None,  # of this layer
        mask: Tensor | None = None,  # (B, 1, T, T) bool, who sees whom; None: each its past
    ) -> Tensor:  # (B, T, C) residual stream
        "Read, add, read, add."
        x = x + self.attn(self.ln_1(x), cache, mask)
        return x + self.mlp(self.ln_2(x))

# %% ../../nbs/medium/ch09_model.ipynb #1329bca8
LOGITS_AT_ONCE = 2**26  # numbers; fp32 logits of one chunk take about 256 MiB
LOGITS_ON_CUDA = 2**28  # the same on a GPU: 1 GiB
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
        start = 0
        for xs, ts in zip(x.split(rows), targets.split(rows), strict=True):
            logits = xs @ weight.t()  # (n, C) @ (C, V) -> (n, V)
            dtype = logits.dtype
            logp = logits.float().log_softmax(dim=1)  # (n, V)
            del logits
            loss += F.nll_loss(logp, ts, ignore_index=IGNORE, reduction="sum")
            if with_grad:  # d(loss)/d(logits) = softmax - one-hot
                d = logp.exp_()  # (n, V)
                d.scatter_add_(1, ts.clamp(min=0)[:, None], d.new_full((len(ts), 1), -1.0))
                d = d.mul_((ts != IGNORE)[:, None])
                if dtype == torch.float16:
                    d, xs = d.mul_(FP16_SCALE), xs / FP16_SCALE
                d = d.to(dtype)
                dx[start : start + len(ts)] = d @ weight  # (n, V) @ (V, C) -> (n, C)
                dw += d.t() @ xs  # (V, n) @ (n, C) -> (V, C)
            start += len(ts)
            logp = d = None  # before the next chunk takes its room
        if with_grad:
            dx = dx / FP16_SCALE if dtype == torch.float16 else dx
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
        return F.cross_entropy(F.linear(x, weight).float(), targets, ignore_index=IGNORE)
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
    logits = ((F.linear(xs, weight).float(), ts) for xs, ts in parts)  # (n, V), (n,)
    losses = [F.cross_entropy(scores, ts, reduction="none") for scores, ts in logits]
    return torch.cat(losses) if losses else x.new_zeros(0)

# %% ../../nbs/medium/ch09_model.ipynb #7507dc1d
LAYER_BYTES = 50_000  # of Python objects, about, whatever the width


def check_size(config: GPTConfig):
    "Refuse a model that is larger than the memory. ValueError, one line."
    c, one = config, torch.empty(0)
    stored = 0 if one.is_meta else one.element_size()  # bytes of a number
    sizes = ", ".join(f"{f.name}={getattr(c, f.name)}" for f in fields(c) if f.name != "n_head")
    need = LAYER_BYTES * c.n_layer + stored * c.matrix_numbers()
    need_memory(need, f"a model with {sizes}", "take smaller sizes")


class GPT(nn.Module):
    "GPT-2 (Radford et al. 2019), with its weight names."

    def __init__(
        self,
        config: GPTConfig,  # sizes
        generator: torch.Generator | None = None,  # of the initial weights; None takes torch's own
    ):
        super().__init__()
        check_size(config)
        self.config = c = config
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(c.vocab_size, c.n_embd),  # a vector for each token
                "wpe": nn.Embedding(c.block_size, c.n_embd),  # a vector for each position
                "h": nn.ModuleList(Block(c.n_embd, c.n_head) for _ in range(c.n_layer)),
                "ln_f": nn.LayerNorm(c.n_embd),
            }
        )
        self.lm_head = Linear(c.n_embd, c.vocab_size, bias=False)
        self.lm_head.weight = self.transformer.wte.weight  # tied: one matrix for both
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
            elif p.ndim == 1:  # LayerNorm's gain
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
        if positions is not None:
            return self.transformer.wte(idx) + self.transformer.wpe(positions)  # (B, T, C)
        T = idx.shape[1]
        longest = self.config.block_size
        if start + T > longest:
            raise ValueError(
                f"{start + T} tokens do not fit a context of {longest} (block_size); "
                f"pass at most {longest}, or build the model with a larger block_size"
            )
        positions = torch.arange(start, start + T, device=idx.device)  # (T,)
        return self.transformer.wte(idx) + self.transformer.wpe(positions)  # (B, T, C) + (T, C)

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
        x = self.embed(idx, caches[0].length if caches else 0, positions)  # (B, T, C)
        for i, block in enumerate(self.transformer.h):
            x = block(x, caches[i] if caches else None, mask)
        x = self.transformer.ln_f(x[:, -1:] if last_only else x)  # (B, T, C), or (B, 1, C)
        if targets is None:
            return self.lm_head(x), None  # (B, T, V)
        loss = token_losses if each else cross_entropy
        return None, loss(x.flatten(0, 1), self.lm_head.weight, targets.flatten())

    @torch.no_grad()
    def attention_weights(
        self,
        idx: Tensor,  # (B, T) int64 token ids
    ) -> Tensor:  # (n_layer, B, nh, T, T) rows sum to 1
        "Compute what every head looks at, for plots."
        x = self.embed(idx)
        weights = []
        for block in self.transformer.h:
            weights.append(block.attn.weights(block.ln_1(x)))
            x = block(x)
        return torch.stack(weights)

# %% ../../nbs/medium/ch09_model.ipynb #d06c0afc
def num_params(
    model: nn.Module,  # a tied matrix counts once
) -> int:
    "Count the parameters."
    return sum(p.numel() for p in model.parameters())
