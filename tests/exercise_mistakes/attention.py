"Classic mistakes for the exercises of ch07."

import math

import torch

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


MISTAKES = {
    "check_average_past": [
        (lambda x: x.mean(0, keepdim=True).expand_as(x), "the future must be left out"),
        (lambda x: torch.ones(len(x), len(x)).tril() @ x / len(x), "divided every row by T"),
        (lambda x: x.cumsum(0), "the sum of the past"),
        (lambda x: torch.stack([x[t:].mean(0) for t in range(len(x))]), "averages the future"),
    ],
    "check_causal_softmax": [
        (lambda s: s.tril().softmax(-1), "use minus infinity"),
        (lambda s: s.softmax(-1).tril(), "after the softmax"),
        (lambda s: s.softmax(-1), "no mask"),
        (lambda s: mask(s, 0).softmax(-1), "hides the diagonal"),
        (lambda s: mask(s.t()).t().softmax(-1), "hides the past"),
        (lambda s: mask(s).softmax(0), "over columns"),
    ],
    "check_split_heads": [
        (lambda x, n: x.view(x.shape[0], n, x.shape[1], -1), "cuts through time"),
        (lambda x, n: x.view(*x.shape[:2], n, -1), "swap time and heads"),
        (lambda x, n: x.view(*x.shape[:2], -1, n).permute(0, 3, 1, 2), "interleaved"),
    ],
    "check_cached_step": [
        (lambda *a: step(*a, own=False), "looks at the past only"),
        (lambda *a: step(*a, scale=1), "not divided"),
        (lambda *a: step(*a, scale=4), "divided by hs"),
        (lambda *a: step(*a, front=True), "stand at the front"),
        (lambda *a: step(*a, keep=False), "should grow by one row"),
    ],
}
