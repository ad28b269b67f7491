"Classic mistakes for the exercises of ch08."

import math

import torch
from torch.nn import functional as F

INF = float("-inf")


def mask(scores, diagonal=1):
    return scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(diagonal), INF)


def step(q, k, v, past_k, past_v, *, own=True, scale=None, front=False, keep=True):
    if front:
        all_k, all_v = torch.cat([k, past_k]), torch.cat([v, past_v])
    else:
        all_k, all_v = torch.cat([past_k, k]), torch.cat([past_v, v])
    use_k, use_v = (all_k, all_v) if own else (past_k, past_v)
    weights = (q @ use_k.t() / (scale or math.sqrt(q.shape[-1]))).softmax(-1)
    return weights @ use_v, *((all_k, all_v) if keep else (past_k, past_v))


def by_rows(scores):
    weights = torch.zeros_like(scores)
    for t in range(len(scores)):
        weights[t, : t + 1] = scores[t, : t + 1].softmax(0)
    return weights


def by_hand(scores):
    e = scores.exp().tril()
    return e / e.sum(-1, keepdim=True)


def in_place(scores):
    T = len(scores)
    scores += torch.full((T, T), INF).triu(1)
    scores -= scores.max(-1, keepdim=True).values
    scores.exp_()
    return scores / scores.sum(1)[:, None]


def library(q, k, v, past_k, past_v, causal=False, **kw):
    k, v = torch.cat((past_k, k)), torch.cat((past_v, v))
    out = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=causal, **kw)
    return out[0], k, v


def by_key(q, k, v, past_k, past_v):
    keys, values = [*past_k, *k], [*past_v, *v]
    e = [math.exp(float(q[0] @ key) / math.sqrt(len(q[0]))) for key in keys]
    out = sum(w / sum(e) * value for w, value in zip(e, values, strict=True))
    return [out[None], torch.stack(keys), torch.stack(values)]


def appended(q, k, v, past_k, past_v):
    k, v = torch.vstack([past_k, k]), torch.vstack([past_v, v])
    return torch.einsum("qk,kd->qd", (q @ k.T * k.shape[1] ** -0.5).softmax(1), v), k, v


def needs_past(q, k, v, past_k, past_v):
    out = step(q, k, v, past_k, past_v)
    return out if len(past_k) else (torch.zeros_like(q), k, v)


MISTAKES = {
    "check_average_past": [
        (
            lambda x: torch.stack([x[: t + 1].mean(0) for t in range(len(x))]),
            "but a loop makes them",
        ),
        (
            lambda x: (
                torch.ones(len(x), len(x)).tril(-1) @ x / torch.arange(len(x)).clamp(min=1)[:, None]
            ),
            "is left out",
        ),
        (lambda x: x, "position 1 should be"),
        (lambda x: x.mean(0, keepdim=True).expand_as(x), "the future must be left out"),
        (lambda x: torch.ones(len(x), len(x)).tril() @ x / len(x), "divided every row by T"),
        (lambda x: x.cumsum(0), "the sum of the past"),
        (lambda x: torch.stack([x[t:].mean(0) for t in range(len(x))]), "averages the future"),
    ],
    "check_causal_softmax": [
        (lambda s: s.exp().tril(), "these are exponentials"),
        (lambda s: s.masked_fill(torch.ones_like(s).triu(1) > 0, -1.0).softmax(-1), "should be"),
        (lambda s: s.tril().softmax(-1), "use minus infinity"),
        (lambda s: s.softmax(-1).tril(), "after the softmax"),
        (lambda s: s.softmax(-1), "the mask is missing"),
        (lambda s: mask(s, 0).softmax(-1), "hides the diagonal"),
        (lambda s: mask(s.t()).t().softmax(-1), "hides the past"),
        (lambda s: mask(s).softmax(0), "over columns"),
    ],
    "check_split_heads": [
        (lambda x, n: x.view(*x.shape[:2], n, -1).permute(0, 2, 3, 1), "last two dimensions"),
        (lambda x, n: torch.stack(x.chunk(n, -1)), "before the batch"),
        (lambda x, n: x.view(*x.shape[:2], n, -1).transpose(1, 2).flip(1), "in the wrong order"),
        (lambda x, n: x, "the shape should be"),
        (lambda x, n: x.view(x.shape[0], n, x.shape[1], -1), "cuts through time"),
        (lambda x, n: x.view(*x.shape[:2], n, -1), "swap time and heads"),
        (lambda x, n: x.view(*x.shape[:2], -1, n).permute(0, 3, 1, 2), "interleaved"),
    ],
    "check_cached_step": [
        (lambda *a: library(*a, causal=True), "is_causal=True behind a cache"),
        (lambda *a: library(*a, scale=1.0), "not divided"),
        (needs_past, "with an empty cache"),
        (
            lambda q, k, v, pk, pv: (v, torch.cat([pk, k]), torch.cat([pv, v])),
            "the output should be",
        ),
        (lambda *a: step(*a, own=False), "looks at the past only"),
        (lambda *a: step(*a, scale=1), "not divided"),
        (lambda *a: step(*a, scale=4), "divided by hs"),
        (lambda *a: step(*a, front=True), "stand at the front"),
        (lambda *a: step(*a, keep=False), "should grow by one row"),
    ],
}

RIGHT = {
    "check_average_past": [
        lambda x: x.cumsum(0) / torch.arange(1, len(x) + 1)[:, None],
        lambda x: (
            (
                torch.ones(len(x), len(x)).tril().softmax(1) * 0
                + torch.tril(torch.ones(len(x), len(x)))
                / torch.arange(1.0, len(x) + 1).unsqueeze(1)
            )
            @ x
        ),
        lambda x: mask(torch.zeros(len(x), len(x))).softmax(-1) @ x,
        lambda x: torch.einsum(
            "ts,sc->tc", F.normalize(torch.ones(len(x), len(x)).tril(), p=1, dim=1), x
        ),
    ],
    "check_causal_softmax": [
        by_rows,
        by_hand,
        in_place,
        lambda s: s.masked_fill(torch.tril(torch.ones_like(s)) == 0, -1e9).softmax(1),
    ],
    "check_split_heads": [
        lambda x, n: torch.stack(x.chunk(n, dim=-1), dim=1),
        lambda x, n: x.reshape(*x.shape[:2], n, -1).permute(0, 2, 1, 3),
        lambda x, n: x.unflatten(-1, (n, x.shape[-1] // n)).swapaxes(1, 2),
        lambda x, n: torch.stack(
            [x[..., i * (x.shape[-1] // n) :][..., : x.shape[-1] // n] for i in range(n)], 1
        ),
    ],
    "check_cached_step": [library, by_key, appended],
}
