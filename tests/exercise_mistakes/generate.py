"""Classic mistakes in the exercises of chapter 12, and what the check must say of them."""

import math
from bisect import bisect_right
from itertools import accumulate

import numpy as np


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def top(probs, places, scale=True):
    kept = np.zeros_like(probs)
    kept[places] = probs[places]
    return kept / kept.sum() if scale else kept


def ranked(probs):
    return np.argsort(-probs)


def n_below(probs, p):
    "How many ranked tokens hold less than p together."
    return int((np.cumsum(np.sort(probs)[::-1]) < p).sum())


def temperature_in_place(x, T):
    x -= x.max()
    x /= T
    np.exp(x, out=x)
    x /= x.sum()
    return x


def by_list(x, T):
    top_logit = max(x)
    e = [math.exp((v - top_logit) / T) for v in x]
    return [v / sum(e) for v in e]


def logsumexp(x, T):
    y = x / T
    return np.exp(y - (y.max() + np.log(np.exp(y - y.max()).sum())))


def k_in_place(probs, k):
    probs[np.argsort(probs)[:-k]] = 0
    probs /= probs.sum()
    return probs


def k_by_limit(probs, k, more=0):
    limit = np.sort(probs)[::-1][min(k + more, len(probs)) - 1]
    return np.where(probs >= limit, probs, 0) / probs[probs >= limit].sum()


def k_by_hand(probs, k):
    best = sorted(range(len(probs)), key=lambda i: probs[i], reverse=True)[:k]
    total = sum(probs[i] for i in best)
    return [p / total if i in best else 0.0 for i, p in enumerate(probs)]


def p_by_hand(probs, p, upto=lambda held, p: held >= p):
    kept, held = np.zeros(len(probs)), 0.0
    for i in sorted(range(len(probs)), key=lambda i: -probs[i]):
        kept[i] = probs[i]
        held += probs[i]
        if upto(held, p):
            break
    return kept / held


def p_in_place(probs, p):
    order = np.argsort(probs)[::-1]
    n = np.searchsorted(np.cumsum(probs[order]), p) + 1
    probs[order[n:]] = 0
    return probs / probs.sum()


def p_count(probs, p):
    return top(probs, ranked(probs)[: n_below(probs, p) + 1])


def in_id_order(probs, p):
    stays = np.cumsum(probs) - probs < p
    return probs * stays / (probs * stays).sum()


def some_missing(probs, p):
    return p_count(probs, min(p, 0.8))


def bytes_of(n_layer, n_embd, T):
    return sum(2 * 2 * n_embd * T for _ in range(n_layer))


MISTAKES = {
    "check_temperature": [
        (lambda x, T: np.exp(x / T), "not divided by their sum"),
        (lambda x, T: x / T / (x / T).sum(), "logits are not divided"),
        (lambda x, T: softmax(x / (T + 0.5)), "the largest probability should be"),
        (lambda x, T: softmax(x * T), "multiply by the temperature"),
        (lambda x, T: softmax(x) / T, "divide the probabilities"),
        (lambda x, T: softmax(softmax(x) / T), "softmax twice"),
        (lambda x, T: np.exp(x / T) / np.exp(x / T).sum(), "overflows"),
    ],
    "check_top_k": [
        (lambda p, k: k_by_limit(p, k, 1), "look at the border"),
        (lambda p, k: top(p, ranked(p)[: k - 1]), "look at the border"),
        (lambda p, k: top(p, np.arange(k)), "first k tokens"),
        (lambda p, k: softmax(np.where(k_by_limit(p, k) > 0, p, -np.inf)), "no softmax"),
        (lambda p, k: top(p, ranked(p)[:k], scale=False), "sum to 1 again"),
        (lambda p, k: top(p, np.argsort(p)[:k]), "k smallest"),
        (lambda p, k: np.sort(p)[::-1][:k] / np.sort(p)[::-1][:k].sum(), "not in their places"),
    ],
    "check_top_p": [
        (lambda probs, p: p_by_hand(probs, p, lambda held, p: held > p), "no third token"),
        (in_id_order, "rank the tokens first"),
        (lambda probs, p: probs * (probs >= p), "for each token"),
        (some_missing, "every token is needed"),
        (lambda probs, p: top(probs, ranked(probs)[: n_below(probs, p)]), "crosses the line"),
        (lambda probs, p: top(probs, ranked(probs)[: n_below(probs, p) + 2]), "one token too many"),
        (
            lambda probs, p: top(probs, ranked(probs)[: n_below(probs, p) + 1], scale=False),
            "sum to 1 again",
        ),
        (
            lambda probs, p: top(probs, ranked(probs)[: max(n_below(probs, p) + 1, 2)]),
            "one token must stay",
        ),
    ],
    "check_pick": [
        (lambda p, u: np.searchsorted(np.sort(p).cumsum(), u, side="right"), "you sorted"),
        (
            lambda p, u: (
                np.searchsorted(p.cumsum(), u)
                if len(p) == 2 and p[0]
                else np.searchsorted(p.cumsum(), u, side="right")
            ),
            "closed on the left",
        ),
        (lambda p, u: np.searchsorted(p.cumsum(), u), "expected"),
        (lambda p, u: int(u * len(p)), "probability 0"),
        (lambda p, u: p.argmax(), "greedy"),
        (lambda p, u: np.abs(p - u).argmin(), "running sum"),
        (lambda p, u: np.searchsorted(p.cumsum(), u, side="right") + 1, "one too far"),
        (
            lambda p, u: (
                next((i for i, s in enumerate(p.cumsum()) if u <= s), None) if u != 0.25 else 1
            ),
            "probability 0",
        ),
        (lambda p, u: next((i for i, s in enumerate(p) if u < s), None), "nothing is returned"),
    ],
    "check_fit": [
        (lambda free, *a: round(free / bytes_of(*a)), "round down"),
        (lambda free, *a: math.ceil(free / bytes_of(*a)), "round down"),
        (lambda free, n_layer, n_embd, T: free // (n_layer * n_embd * T), "two factors of 2"),
        (lambda free, n_layer, n_embd, T: free // (4 * n_layer * n_embd), "positions are missing"),
        (lambda free, *a: (free - 1) // bytes_of(*a), "hold"),
        (lambda free, n_layer, n_embd, T: free / (4 * n_layer * n_embd * T), "round down"),
        (lambda free, n_layer, n_embd, T: free // (2 * n_layer * n_embd * T), "a factor of 2"),
        (lambda free, n_layer, n_embd, T: free // (4 * n_embd * T), "layers are missing"),
        (lambda free, n_layer, n_embd, T: free // (8 * n_layer * n_embd * T), "not four"),
    ],
}

RIGHT = {
    "check_temperature": [
        temperature_in_place,
        by_list,
        logsumexp,
        lambda x, T: softmax((x - x.mean()) / T),
    ],
    "check_top_k": [k_in_place, k_by_limit, k_by_hand],
    "check_top_p": [p_by_hand, p_in_place, p_count],
    "check_pick": [
        lambda p, u: np.searchsorted(np.cumsum(p), u, side="right"),
        lambda p, u: int((np.cumsum(p) <= u).sum()),
        lambda p, u: bisect_right(list(accumulate(p)), u),
        lambda p, u: np.argmax(np.cumsum(p) > u),
    ],
    "check_fit": [
        lambda free, *a: free // bytes_of(*a),
        lambda free, n_layer, n_embd, T: int(free / 4 / n_layer / n_embd / T),
        lambda free, *a: math.floor(free / bytes_of(*a)),
        lambda free, *a: divmod(free, bytes_of(*a))[0],
    ],
}
