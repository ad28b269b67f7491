"""Five ways to compute attention agree; the past never sees the future."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt2edu.model.attention import (
    CausalSelfAttention,
    KVCache,
    attend,
    attend_loop,
    causal_weights,
)

# fp32 rounds at 1.2e-7; outputs are of order 1 and sums are short
TOL = {"rtol": 1e-6, "atol": 1e-6}
FULL = 24  # the longest context drawn


def module(n_head, hs, seed):
    torch.manual_seed(seed)
    return CausalSelfAttention(n_head * hs, n_head).requires_grad_(False)


def by_heads(attn, x, one_head):
    "Attention with a Python loop over batch and heads, and the head's own rows of c_attn."
    B, T, C = x.shape
    hs = C // attn.n_head
    out = torch.empty(B, T, C)
    for b in range(B):
        for h in range(attn.n_head):
            q, k, v = (
                x[b] @ attn.c_attn.weight[i * C + h * hs : i * C + (h + 1) * hs].t()
                + attn.c_attn.bias[i * C + h * hs : i * C + (h + 1) * hs]
                for i in range(3)
            )
            out[b, :, h * hs : (h + 1) * hs] = one_head(q, k, v)
    return out @ attn.c_proj.weight.t() + attn.c_proj.bias


@settings(max_examples=25, deadline=None)
@given(
    B=st.integers(1, 3),
    T=st.integers(1, FULL),
    n_head=st.integers(1, 4),
    hs=st.integers(1, 8),
    split=st.integers(0, FULL),
    seed=st.integers(0, 9999),
)
@example(B=2, T=1, n_head=2, hs=4, split=0, seed=0)
@example(B=1, T=FULL, n_head=3, hs=8, split=FULL - 1, seed=1)
@example(B=2, T=FULL, n_head=2, hs=8, split=5, seed=2)
def test_five_ways_agree(B, T, n_head, hs, split, seed):
    attn = module(n_head, hs, seed)
    x = torch.randn(B, T, n_head * hs)
    fast = attn(x)
    torch.testing.assert_close(by_heads(attn, x, attend), fast, **TOL)
    torch.testing.assert_close(by_heads(attn, x, attend_loop), fast, **TOL)
    q, k, v = attn.qkv(x)
    matrix = attn.c_proj(attend(q, k, v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(matrix, fast, **TOL)
    torch.testing.assert_close(attn.weights(x) @ v, attend(q, k, v), **TOL)

    one_by_one, cache = [], KVCache(FULL)
    for t in range(T):
        one_by_one.append(attn(x[:, t : t + 1], cache))
    assert cache.length == T
    torch.testing.assert_close(torch.cat(one_by_one, 1), fast, **TOL)

    # a prompt, then the rest in one piece: the cache is full at the end
    split = min(split, T - 1)
    cache = KVCache(T)
    parts = [attn(x[:, :split], cache)] if split else []
    torch.testing.assert_close(torch.cat([*parts, attn(x[:, split:], cache)], 1), fast, **TOL)


@settings(max_examples=20, deadline=None)
@given(
    T=st.integers(1, 16), hs=st.integers(1, 8), past=st.integers(0, 8), seed=st.integers(0, 9999)
)
def test_weights_are_averages_of_the_past(T, hs, past, seed):
    g = torch.Generator().manual_seed(seed)
    w = causal_weights(torch.randn(T, hs, generator=g), torch.randn(past + T, hs, generator=g))
    torch.testing.assert_close(w.sum(-1), torch.ones(T))
    assert (w >= 0).all()
    for t in range(T):
        assert (w[t, past + t + 1 :] == 0).all()


def test_future_has_no_gradient_and_no_influence():
    attn = module(2, 4, 0)
    x = torch.randn(1, 9, 8, requires_grad=True)
    for t in range(9):
        (grad,) = torch.autograd.grad(attn(x)[0, t].sum(), x)
        assert (grad[0, t + 1 :] == 0).all()
        assert (grad[0, : t + 1].abs().sum(-1) > 0).all()
    other = x.detach().clone()
    other[:, 5:] += 1
    a, b = attn(x), attn(other)
    assert torch.equal(a[:, :5], b[:, :5]) and not torch.allclose(a[:, 5:], b[:, 5:])


def test_gradients_equal_the_matrix_version():
    attn = module(3, 8, 0).requires_grad_(True)
    x = torch.randn(2, 17, 24)
    goal = torch.randn(2, 17, 24)

    def grads(y):
        return torch.autograd.grad((y * goal).sum(), list(attn.parameters()))

    matrix = attn.c_proj(attend(*attn.qkv(x)).transpose(1, 2).flatten(2))
    for a, b in zip(grads(attn(x)), grads(matrix), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())


def test_large_scores_do_not_overflow():
    q = torch.full((3, 4), 100.0)
    assert torch.isfinite(attend_loop(q, q, q)).all() and torch.isfinite(attend(q, q, q)).all()


def test_bf16_autocast_is_close():
    attn = module(2, 16, 0)
    x = torch.randn(2, 20, 32)
    with torch.autocast("cpu", torch.bfloat16):
        y, cache = attn(x), KVCache(20)
        cached = torch.cat([attn(x[:, t : t + 1], cache) for t in range(20)], 1)
    assert y.dtype == cached.dtype == cache.k.dtype == torch.bfloat16
    for low in (y, cached):  # bf16 keeps 8 bits: 2 ** -8 of values of order 1, a few roundings
        torch.testing.assert_close(low.float(), attn(x), rtol=0, atol=0.02)


def test_cache_takes_its_room_once_and_copies_nothing():
    cache = KVCache(8)
    k, v = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4)
    cache.append(k, v)
    room = cache.k.data_ptr()
    assert cache.k.shape == (1, 2, 8, 4)
    k_all, v_all = cache.append(k, v)
    assert cache.k.data_ptr() == room == k_all.data_ptr()
    assert torch.equal(k_all, torch.cat([k, k], 2)) and torch.equal(v_all, torch.cat([v, v], 2))


def test_full_cache_is_an_error():
    cache = KVCache(8)
    cache.append(torch.zeros(1, 1, 6, 2), torch.zeros(1, 1, 6, 2))
    with pytest.raises(ValueError) as e:
        cache.append(torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 3, 2))
    assert str(e.value) == (
        "3 more tokens do not fit a cache that holds 6 of 8 (block_size); "
        "start a new cache with the last tokens of the text"
    )
    assert cache.length == 6
