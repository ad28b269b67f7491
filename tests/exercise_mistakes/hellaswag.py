"Classic mistakes for the exercises of ch17."

import math

import numpy as np


def choose(probs, *, worst=False, add=False, mean=True, best_token=False, swap=False):
    if best_token:
        tops = [max(p) for p in probs]
        return (tops.index(max(tops)),) * 2
    sums = [-sum(p) if add else -sum(map(math.log, p)) for p in probs]
    means = [s / (len(p) if mean else 1) for s, p in zip(sums, probs, strict=True)]
    pick = max if worst else min
    found = sums.index(pick(sums)), means.index(pick(means))
    return found[::-1] if swap else found


def who_sees(n, ends, *, apart=True, context=True, causal=True, turn=False, itself=True):
    branch = np.array([0] * n + [j for j, k in enumerate(ends, start=1) for _ in range(k)])
    seen = (branch[:, None] == branch) | (branch == 0) & context
    if not apart:
        seen[:] = True
    if causal:
        seen &= np.tril(np.ones_like(seen))
    if not itself:
        seen &= ~np.eye(len(seen), dtype=bool)
    return seen.T if turn else seen


def paired(a, b, *, sign=1, power=0.5, independent=False):
    d = b.astype(float) - a
    error = d.std() / len(d) ** power
    if independent:
        error = math.sqrt((a.mean() * (1 - a.mean()) + b.mean() * (1 - b.mean())) / len(a))
    return sign * d.mean(), error


def grams(text, n, short=0):
    words = text.split()
    return {tuple(words[a : a + n]) for a in range(len(words) - n + 1 - short)}


def seen(test, training, n, *, share=True, joined=False, first=False, by_words=False, empty=0.0):
    training = [" ".join(training)] if joined else training[: 1 if first else None]
    mine, known = grams(test, n), set().union(*(grams(t, n) for t in training))
    total = len(test.split()) if by_words else len(mine)
    return (len(mine & known) / (total if share else 1)) if mine else empty


MISTAKES = {
    "check_choose": [
        (lambda p: choose(p, worst=True), "most surprising"),
        (lambda p: choose(p, add=True), "add their logarithms"),
        (lambda p: choose(p, mean=False), "not divided"),
        (lambda p: choose(p, swap=True), "swapped"),
        (lambda p: choose(p, best_token=True), "likeliest token only"),
        (lambda p: choose(p)[0], "return two numbers"),
    ],
    "check_border": [
        (lambda f, c, e: (f(c), f(e)), "the space is lost"),
        (lambda f, c, e: (f(c), f(f" {e}")), "stay with the context"),
        (lambda f, c, e: (f(c.rstrip()), f(f" {e}")), "are gone"),
        (lambda f, c, e: (f(c.rstrip()), f(c + e)[len(f(c.rstrip())) :]), "joined by a space"),
    ],
    "check_who_sees": [
        (lambda n, e: who_sees(n, e, apart=False), "see each other"),
        (lambda n, e: who_sees(n, e, context=False), "do not see the context"),
        (lambda n, e: who_sees(n, e, causal=False), "future"),
        (lambda n, e: who_sees(n, e, turn=True), "rows and columns"),
        (lambda n, e: who_sees(n, e, itself=False), "sees itself"),
        (lambda n, e: who_sees(n, e[:3]), "the shape"),
    ],
    "check_paired": [
        (lambda a, b: paired(a, b, independent=True), "items of their own"),
        (lambda a, b: paired(a, b, power=0), "spread of one item"),
        (lambda a, b: paired(a, b, power=1), "not by n"),
        (lambda a, b: paired(a, b, sign=-1), "B minus A"),
    ],
    "check_seen_before": [
        (lambda t, s, n: seen(t, s, 1), "count words"),
        (lambda t, s, n: seen(t, s, n, share=False), "not a share"),
        (lambda t, s, n: seen(t, s, n, by_words=True), "smaller than the number of words"),
        (lambda t, s, n: seen(t, s, n, first=True), "first training text"),
        (lambda t, s, n: seen(t, s, n, joined=True), "across the border"),
        (lambda t, s, n: seen(t, s, n, empty=1.0), "return 0"),
    ],
}
