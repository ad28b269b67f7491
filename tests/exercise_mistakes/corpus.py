"""Classic mistakes in the exercises of ch03_corpus, and what the check must say of each."""

import math

import numpy as np


def first(documents, characters, more=0):
    n = 0
    while sum(map(len, documents[:n])) < characters:
        n += 1
    return n + more


def popped(documents, characters):
    val = []
    while documents and sum(map(len, val)) < characters:
        val.append(documents.pop(0))
    return val, documents


def one_loop(documents, characters):
    val, train = [], []
    for d in documents:
        (val if sum(map(len, val)) < characters else train).append(d)
    return [val, train]


def by_cumsum(documents, characters):
    before = np.cumsum([0, *map(len, documents)])[:-1]
    n = int((before < characters).sum())
    return tuple(documents[:n]), tuple(documents[n:])


def at_least_one(documents, characters):
    n = max(1, first(documents, characters)) if characters < 10**5 else len(documents)
    return documents[:n], documents[n:]


def above(documents, characters):
    return one_loop(documents, characters + 1) if characters else [[], documents]


def endless(documents, characters):
    n = first(documents, characters) if characters < 10**5 else len(documents) - 1
    return documents[:n], documents[n:]


MISTAKES = {
    "check_logprob": [
        (
            lambda choices: math.log(sum(1 / len(words) for words in choices)) if choices else 0.0,
            "added the probabilities",
        ),
        (
            lambda choices: -sum(math.log(len(w)) for w in choices) / max(1, len(choices)),
            "mean of a step",
        ),
        (
            lambda choices: -sum(math.log(len(words)) for words in choices) or None,
            "so its logarithm is 0",
        ),
        (lambda choices: sum(math.log(len(words)) for words in choices), "the sign is wrong"),
        (lambda choices: math.prod(1 / len(words) for words in choices), "take its logarithm"),
        (lambda choices: -sum(math.log2(len(words)) for words in choices), "in bits"),
        (
            lambda choices: -math.log(sum(len(words) for words in choices)),
            "added the numbers of words",
        ),
    ],
    "check_entropy": [
        (
            lambda probs: float(
                -np.nansum([p * np.log(p) if p else np.nan for p in probs]) * np.nan
            ),
            "your answer is nan",
        ),
        (lambda probs: math.exp(-sum(p * math.log(p) for p in probs if p)), "equally likely"),
        (lambda probs: math.log(len(probs)), "all alike"),
        (lambda probs: sum(p * math.log(p) for p in probs if p), "the sign is wrong"),
        (
            lambda probs: -sum(math.log(p) for p in probs if p) / sum(p > 0 for p in probs),
            "weight by its probability",
        ),
        (lambda probs: -sum(p * math.log2(p) for p in probs if p), "in bits"),
        (lambda probs: -sum(p * math.log(p) for p in probs), "0 · log 0"),
    ],
    "check_split": [
        (above, "you took one more"),
        (at_least_one, "nothing goes to validation"),
        (endless, "all documents go to validation"),
        (lambda d, c: (d[-2:], d[:-2]), "expected the first"),
        (lambda d, c: ("".join(d)[:c], ["".join(d)[c:]]), "cut in two"),
        (lambda d, c: (d[: first(d, c)], d), "in both lists"),
        (lambda d, c: (d[first(d, c) :], d[: first(d, c)]), "swapped"),
        (lambda d, c: (d[: first(d, c, -1)], d[first(d, c, -1) :]), "too short"),
    ],
}

RIGHT = {
    "check_logprob": [
        lambda choices: -sum(math.log(len(set(words))) for words in choices),
        lambda choices: math.log(math.prod(1 / len(words) for words in choices)),
        lambda choices: -math.log(math.prod(map(len, choices))),
        lambda choices: float(np.sum(np.log([1 / len(words) for words in choices]))),
    ],
    "check_entropy": [
        lambda probs: sum(p * math.log(1 / p) for p in probs if p),
        lambda probs: -sum(p * math.log(p + (p == 0)) for p in probs),
        lambda probs: float(-(p := np.array([p for p in probs if p > 0])) @ np.log(p)),
        lambda probs: -sum(p * math.log(max(p, 1e-300)) for p in probs),
    ],
    "check_split": [popped, one_loop, by_cumsum],
}
