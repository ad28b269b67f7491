"""Causal self-attention as a loop, as matrices, in heads, fused and cached, all proved equal."""

# Made by tools/book.py from ../../book/medium/ch08_attention.md: edit that, then `make book`.

# %% auto #0
__all__ = ['SHORT', 'attend_loop', 'causal_weights', 'attend', 'attend_fused', 'KVCache',
           'CausalSelfAttention']

# %% ../../nbs/medium/ch08_attention.ipynb #d8c045bc
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2edu.model.linear import Linear
from gpt2edu.model.modern import make_norm, rotate, share

# %% ../../nbs/medium/ch08_attention.ipynb #ade393a6
def attend_loop(
    q: Tensor,  # (T, hs) what each position looks for
    k: Tensor,  # (T, hs) what each position can be found by
    v: Tensor,  # (T, hs) what each position hands over
) -> Tensor:  # (T, hs) for each position a weighted average of v over itself and its past
    "Compute causal attention of one head, one number at a time."
    T, hs = q.shape
    out = torch.zeros(T, hs)
    for t in range(T):
        scores = [sum(q[t, i] * k[s, i] for i in range(hs)) / math.sqrt(hs) for s in range(t + 1)]
        # exp of a large number overflows; softmax does not change when a constant is taken off
        largest = max(scores)
        weights = [torch.exp(score - largest) for score in scores]
        for s in range(t + 1):
            out[t] += weights[s] / sum(weights) * v[s]
    return out

# %% ../../nbs/medium/ch08_attention.ipynb #8ff679e0
def causal_weights(
    q: Tensor,  # (..., T, hs) queries of the last T positions
    k: Tensor,  # (..., S, hs) keys of all S >= T positions
) -> Tensor:  # (..., T, S) rows sum to 1; zero wherever the key is later than the query
    "Compute how much each position takes from itself and from each position before it."
    T, S, hs = q.shape[-2], k.shape[-2], q.shape[-1]
    scores = q @ k.transpose(-2, -1) / math.sqrt(hs)  # (..., T, hs) @ (..., hs, S) -> (..., T, S)
    future = torch.ones(T, S, dtype=torch.bool, device=q.device).triu(1 + S - T)
    return scores.masked_fill(future, float("-inf")).softmax(dim=-1)


def attend(
    q: Tensor,  # (..., T, hs)
    k: Tensor,  # (..., S, hs)
    v: Tensor,  # (..., S, hs)
) -> Tensor:  # (..., T, hs)
    "Compute causal attention as two matrix products with a softmax between."
    return causal_weights(q, k) @ v  # (..., T, S) @ (..., S, hs) -> (..., T, hs)

# %% ../../nbs/medium/ch08_attention.ipynb #a2f4f21d
SHORT = 256  # positions up to which a CPU's fused kernel computes in fp32: there bf16 gains nothing


def attend_fused(
    q: Tensor,  # (B, nh, T, hs)
    k: Tensor,  # (B, nh, S, hs)
    v: Tensor,  # (B, nh, S, hs)
    mask: Tensor | None = None,  # bool (T, S), True: may look; None: causal if T == S, else all
) -> Tensor:  # (B, nh, T, hs), of q's dtype
    "Compute attention by PyTorch's fused kernel."
    causal = mask is None and q.shape[-2] == k.shape[-2]
    if q.device.type != "cpu" or q.dtype == torch.float32 or k.shape[-2] > SHORT:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    with torch.autocast("cpu", enabled=False):  # which would take the numbers back to 16 bits
        y = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), mask, is_causal=causal)
    return y.to(q.dtype)

# %% ../../nbs/medium/ch08_attention.ipynb #d026b426
class KVCache:
    """Keep the keys and values of one layer, so that a new token costs one row, not the whole text.

    The first `append` allocates memory for `block_size` positions.
    For use under `torch.no_grad()`.
    """

    def __init__(
        self,
        block_size: int,  # positions to allocate
    ):
        self.block_size = block_size
        self.length = 0  # positions filled so far
        self.k = self.v = None  # (B, nh, block_size, hs) from the first append on

    def append(
        self,
        k: Tensor,  # (B, nh, T, hs) keys of the T new positions
        v: Tensor,  # (B, nh, T, hs) values of the T new positions
    ) -> tuple[Tensor, Tensor]:  # k and v of all positions so far, (B, nh, length, hs), as views
        "Add T positions. ValueError if they do not fit."
        B, nh, T, hs = k.shape
        end = self.length + T
        if end > self.block_size:
            raise ValueError(
                f"{T} more tokens do not fit a cache that holds {self.length} of {self.block_size} "
                "(block_size); start a new cache with the last tokens of the text"
            )
        if self.k is None:
            self.k = k.new_empty(B, nh, self.block_size, hs)
            self.v = v.new_empty(B, nh, self.block_size, hs)
        self.k[:, :, self.length : end] = k
        self.v[:, :, self.length : end] = v
        self.length = end
        return self.k[:, :, :end], self.v[:, :, :end]

# %% ../../nbs/medium/ch08_attention.ipynb #16bb53eb
class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention with GPT-2's names.

    Sources: Vaswani et al. 2017, section 3.2; Radford et al. 2019.
    """

    def __init__(
        self,
        n_embd: int,  # C, width of the residual stream
        n_head: int,  # nh, number of heads; divides n_embd
        n_kv_head: int | None = None,  # heads of keys and values; None: n_head, as in GPT-2
        bias: bool = True,  # of both linear layers
        qk_norm: bool = False,  # whether queries and keys are normalised, head by head
    ):
        super().__init__()
        self.n_head = n_head
        hs = n_embd // n_head
        self.widths = [hs * n for n in (n_head, n_kv_head or n_head, n_kv_head or n_head)]
        self.c_attn = Linear(n_embd, sum(self.widths), bias=bias)  # q, k, v of all heads at once
        self.c_proj = Linear(n_embd, n_embd, bias=bias)  # mixes what the heads found
        if qk_norm:
            self.q_norm, self.k_norm = make_norm(hs, "rms"), make_norm(hs, "rms")
        self.qk_norm = qk_norm

    def qkv(
        self,
        x: Tensor,  # (B, T, C)
        turn: tuple[Tensor, Tensor] | None = None,  # RoPE's cosines and sines; None: no rotation
    ) -> list[Tensor]:  # q (B, nh, T, hs); k and v (B, n_kv_head, T, hs)
        "Compute query, key and value, a slice of width hs for each head."
        B, T, C = x.shape
        hs = C // self.n_head
        parts = self.c_attn(x).split(self.widths, dim=2)  # 3 times (B, T, C) in GPT-2
        q, k, v = [p.view(B, T, -1, hs) for p in parts]  # (B, T, heads, hs)
        if self.qk_norm:
            q, k = self.q_norm(q.float()).to(v.dtype), self.k_norm(k.float()).to(v.dtype)
        if turn is not None:
            q, k = rotate(q, turn), rotate(k, turn)
        return [p.transpose(1, 2) for p in (q, k, v)]  # (B, heads, T, hs)

    def weights(
        self,
        x: Tensor,  # (B, T, C)
        turn: tuple[Tensor, Tensor] | None = None,  # as for `qkv`
    ) -> Tensor:  # (B, nh, T, T) rows sum to 1
        "Compute the attention weights that the fast path never stores, for plots."
        q, k, _ = self.qkv(x, turn)
        return causal_weights(q, share(k, self.n_head))

    def forward(
        self,
        x: Tensor,  # (B, T, C) normalised residual stream
        cache: KVCache | None = None,  # earlier positions; the T new ones are added to it
        mask: Tensor | None = None,  # (B, 1, T, T) bool, True: may look; None: each its past
        turn: tuple[Tensor, Tensor] | None = None,  # as for `qkv`
    ) -> Tensor:  # (B, T, C) what to add to the residual stream
        "Let every position read from itself and the positions before it."
        B, T, C = x.shape
        q, k, v = self.qkv(x, turn)  # (B, nh, T, hs)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, nh, S, hs)
            S = k.shape[2]
            # several queries behind a past: SDPA's own causal mask starts at key 0
            if mask is None and 1 < T < S:
                mask = torch.ones(T, S, dtype=torch.bool, device=x.device).tril(S - T)
        k, v = share(k, self.n_head), share(v, self.n_head)  # (B, nh, S, hs)
        y = attend_fused(q, k, v, mask)  # (B, nh, T, hs)
        y = y.transpose(1, 2).reshape(B, T, C)  # heads side by side again
        return self.c_proj(y)  # (B, T, C)
