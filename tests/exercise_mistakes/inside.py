"Classic mistakes for the exercises of ch28."

import random

import numpy as np
import torch


def stays(logits, answer):
    tops = logits.argmax(-1).tolist()
    return next((d for d in range(len(tops)) if set(tops[d:]) == {answer}), None)


def first_time(logits, answer):
    tops = logits.argmax(-1).tolist()
    return tops.index(answer) if answer in tops else None


def not_at_the_end(logits, answer):
    depth = stays(logits, answer)
    tops = logits.argmax(-1).tolist()
    return depth if depth is not None or answer not in tops else tops.index(answer)


def by_arrays(logits, answer):
    on_top = np.asarray(logits).argmax(1) == answer
    if not on_top[-1]:
        return None
    off = np.flatnonzero(~on_top)
    return int(off[-1]) + 1 if len(off) else 0


def by_product(logits, answer):
    on_top = (logits.argmax(1) == answer).int()
    agree = on_top.flip(0).cumprod(0).sum()  # depths at the end that agree
    return len(logits) - agree if agree else None


def gaps(first, second, patched, answer, other):
    return [float(x[answer] - x[other]) for x in (first, second, patched)]


def share(*given, f=lambda a, b, c: (c - b) / (a - b)):
    return f(*gaps(*given))


def alone(first, second, patched, answer, other):
    return (patched[answer] - second[answer]) / (first[answer] - second[answer])


def of_probabilities(first, second, patched, answer, other):
    return share(*(x.softmax(0) for x in (first, second, patched)), answer, other)


def of_log_probabilities(first, second, patched, answer, other):
    return share(*(x.log_softmax(0) for x in (first, second, patched)), answer, other)


def of_stack(first, second, patched, answer, other):
    rows = torch.stack([first, second, patched])
    a, b, c = rows[:, answer] - rows[:, other]
    return torch.lerp(torch.zeros(()), torch.ones(()), (c - b) / (a - b))


def look(weights, P, back=-1, rows=None, over=None):
    rows = rows or range(P, 2 * P)
    back = P - 1 if back == -1 else back
    return sum(weights[t, t - back] for t in rows) / (over or len(rows))


def one_label(words, n, rng):
    table = {word: rng.randrange(n) for word in dict.fromkeys(words)}
    return [table[word] for word in words]


def sorted_kinds(words, n, rng):
    kinds = sorted(set(words))
    drawn = rng.choices(range(n), k=len(kinds))
    return np.array([drawn[kinds.index(word)] for word in words])


def of_the_word(words, n, rng):
    salt = rng.random()
    return [random.Random(f"{salt} {word}").randrange(n) for word in words]


MISTAKES = {
    "check_decided": [
        (first_time, "lost it again"),
        (not_at_the_end, "expected None"),
        (lambda x, a: None if stays(x, a) is None else stays(x, a) + 1, "depths count from 0"),
        (
            lambda x, a: None if stays(x, a) is None else len(x) - stays(x, a),
            "how many depths agree",
        ),
        (lambda x, a: len(x) - 1 if int(x[-1].argmax()) == a else None, "on top at the depths"),
    ],
    "check_share": [
        (lambda *g: share(*g, f=lambda a, b, c: c / a), "measured from 0"),
        (lambda *g: share(*g, f=lambda a, b, c: (a - c) / (a - b)), "what is missing"),
        (lambda *g: share(*g, f=lambda a, b, c: c - b), "that is in logits"),
        (lambda *g: share(*g, f=lambda a, b, c: (c - b) / a), "first minus second"),
        (lambda *g: share(*g, f=lambda a, b, c: (c - b) / (a + b)), "is subtracted"),
        (lambda *g: share(*g, f=lambda a, b, c: (c - b) / (b - a)), "differences"),
        (of_probabilities, "those are probabilities"),
        (alone, "the answer alone"),
    ],
    "check_induction": [
        (lambda w, P: look(w, P, P), "the token itself"),
        (lambda w, P: look(w, P, P + 1, range(P + 1, 2 * P)), "the token before the first copy"),
        (lambda w, P: look(w, P, P + 1), "a row too far"),
        (lambda w, P: look(w, P, 1), "previous token"),
        (lambda w, P: look(w, P, rows=range(P - 1, 2 * P)), "begin at P"),
        (lambda w, P: look(w, P, over=2 * P), "not by all"),
        (lambda w, P: look(w, P, over=1), "that is the sum"),
        (lambda w, P: look(w.t(), P), "the other way round"),
        (lambda w, P: 1.5, "expected"),
    ],
    "check_control": [
        (lambda words, n, rng: one_label(words, n, rng)[1:], "one label for each"),
        (lambda words, n, rng: [1 + x for x in one_label(words, n, rng)], "whole numbers from 0"),
        (lambda words, n, rng: [rng.randrange(n) for _ in words], "two labels"),
        (lambda words, n, rng: [0 for _ in words], "the same label"),
        (lambda words, n, rng: [int(w[4:]) % n for w in words], "drawn by lot"),
        (lambda words, n, rng: one_label(words, n, random), "draw from `rng` only"),
    ],
}

RIGHT = {
    "check_decided": [stays, by_arrays, by_product],
    "check_share": [share, of_log_probabilities, of_stack],
    "check_induction": [
        lambda w, P: w.diagonal(1 - P)[1:].mean(),
        lambda w, P: np.mean([np.asarray(w)[t + P, t + 1] for t in range(P)]),
        look,
    ],
    "check_control": [one_label, sorted_kinds, of_the_word],
}
