"""Classic mistakes in the exercises of chapter 11, and what the check must say of them."""

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


MISTAKES = {
    "check_temperature": [
        (lambda x, T: softmax(x * T), "multiply by the temperature"),
        (lambda x, T: softmax(x) / T, "divide the probabilities"),
        (lambda x, T: softmax(softmax(x) / T), "softmax twice"),
        (lambda x, T: np.exp(x / T) / np.exp(x / T).sum(), "overflows"),
    ],
    "check_top_k": [
        (lambda p, k: top(p, ranked(p)[:k], scale=False), "sum to 1 again"),
        (lambda p, k: top(p, np.argsort(p)[:k]), "k smallest"),
        (lambda p, k: np.sort(p)[::-1][:k] / np.sort(p)[::-1][:k].sum(), "not in their places"),
    ],
    "check_top_p": [
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
        (lambda free, n_layer, n_embd, T: free / (4 * n_layer * n_embd * T), "round down"),
        (lambda free, n_layer, n_embd, T: free // (2 * n_layer * n_embd * T), "a factor of 2"),
        (lambda free, n_layer, n_embd, T: free // (4 * n_embd * T), "layers are missing"),
        (lambda free, n_layer, n_embd, T: free // (8 * n_layer * n_embd * T), "not four"),
    ],
}
