"Classic mistakes in the exercises of ch02, and the phrase by which the check names each."

import math
from bisect import bisect_right
from itertools import accumulate

import numpy as np


def in_place(counts):
    table = counts.astype(float)
    for row in table:
        row /= row.sum()
    return table


def walk(probs, u):
    for i, p in enumerate(probs):
        u -= p
        if u < 0:
            return i
    return len(probs) - 1


def mixed(counts, simpler, alpha):
    n = counts.sum()
    share = n / (n + alpha)
    seen = counts / n if n else counts
    return share * seen + (1 - share) * simpler


def one_by_one(counts, simpler, alpha):
    total = sum(counts) + alpha
    return [(c + alpha * q) / total for c, q in zip(counts, simpler, strict=True)]


def skip_empty(c, q, a):
    with np.errstate(all="ignore"):
        return c / c.sum() * c.sum() / (c.sum() + a) + q * a / (c.sum() + a)


MISTAKES = {
    "check_normalise": [
        (lambda c: c / c.sum(1) if c.shape[0] == c.shape[1] else c, "keepdims"),
        (lambda c: np.exp(c) / np.exp(c).sum(1, keepdims=True), "that is a softmax"),
        (lambda c: c / c.max(1, keepdims=True), "expected row 0"),
        (lambda c: c / c.sum(), "sum of the whole table"),
        (lambda c: c / c.sum(0, keepdims=True), "sums of the columns"),
        (lambda c: c, "expected row 0"),
    ],
    "check_draw": [
        (lambda p, u: int(np.searchsorted(np.cumsum(np.sort(p)), u, side="right")), "you sorted"),
        (lambda p, u: int(np.random.default_rng().choice(len(p), p=p)), "draw nothing else"),
        (lambda p, u: int((p < u).sum()), "expected"),
        (lambda p, u: int(p.argmax()), "always take the likeliest"),
        (lambda p, u: int(u * len(p)), "equally likely"),
        (lambda p, u: int(np.searchsorted(np.cumsum(p), u, side="right")) + 1, "one off"),
        (lambda p, u: None, "expected one id"),
    ],
    "check_mean_surprise": [
        (lambda p: -np.log(p).sum() / (len(p) - 1), "one less"),
        (lambda p: np.exp(-np.log(p).mean()), "perplexity"),
        (lambda p: 1 - p.mean(), "expected"),
        (lambda p: np.log(p).mean(), "sign is wrong"),
        (lambda p: -np.log2(p).mean(), "in bits"),
        (lambda p: -np.log(p).sum(), "you summed"),
        (lambda p: -np.log(p.mean()), "logarithm of the mean"),
        (lambda p: -(p * np.log(p)).sum(), "weighted each surprise"),
    ],
    "check_smooth": [
        (lambda c, q, a: (c + a * q) / (c.sum() + len(c) * a), "too much below"),
        (skip_empty, "0 by 0"),
        (lambda c, q, a: (c + q) / (c.sum() + 1), "expected"),
        (lambda c, q, a: c / c.sum(), "never seen still has probability 0"),
        (lambda c, q, a: (c + a * q) / c.sum(), "sums to more than 1"),
        (lambda c, q, a: (c + a) / (c + a).sum(), "added alpha to every count"),
        (lambda c, q, a: (c / c.sum() + a * q) / (1 + a), "mixed probabilities"),
    ],
    "check_bits_per_byte": [
        (lambda x, n, t: x * len(t.encode()) / np.log(2) / n, "changed places"),
        (lambda x, n, t: x * n / np.log(2), "expected"),
        (lambda x, n, t: x * n / len(t.encode()), "nats per byte"),
        (lambda x, n, t: x * n * np.log(2) / len(t.encode()), "multiplied by ln 2"),
        (lambda x, n, t: x * n / np.log(2) / len(t), "bits per character"),
        (lambda x, n, t: x / np.log(2), "bits per token"),
    ],
}

RIGHT = {
    "check_normalise": [
        in_place,
        lambda c: np.array([row / row.sum() for row in c]),
        lambda c: (c.T / c.sum(1)).T,
        lambda c: [[x / sum(row) for x in row] for row in c.tolist()],
    ],
    "check_draw": [
        walk,
        lambda p, u: np.searchsorted(np.cumsum(p), u),
        lambda p, u: bisect_right(list(accumulate(p)), u),
        lambda p, u: next(i for i in range(len(p)) if u < p[: i + 1].sum()),
    ],
    "check_mean_surprise": [
        lambda p: np.log(1 / p).mean(),
        lambda p: -math.log(math.prod(p)) / len(p),
        lambda p: sum(-math.log(x) for x in p) / len(p),
    ],
    "check_smooth": [
        one_by_one,
        mixed,
        lambda c, q, a: np.add(c, a * q) / np.add(c, a * q).sum(),
    ],
    "check_bits_per_byte": [
        lambda x, n, t: n * x / np.log(2) / len(bytes(t, "utf8")),
        lambda x, n, t: x * math.log2(math.e) * n / len(t.encode()),
        lambda x, n, t: n / sum(len(c.encode()) for c in t) * np.log2(np.exp(x)),
    ],
}
