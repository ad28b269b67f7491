"""Classic mistakes in the exercises of ch03_corpus, and what the check must say of each."""

import math


def first(documents, characters, more=0):
    n = 0
    while sum(map(len, documents[:n])) < characters:
        n += 1
    return n + more


MISTAKES = {
    "check_logprob": [
        (lambda choices: sum(math.log(len(words)) for words in choices), "the sign is wrong"),
        (lambda choices: math.prod(1 / len(words) for words in choices), "take its logarithm"),
        (lambda choices: -sum(math.log2(len(words)) for words in choices), "in bits"),
        (
            lambda choices: -math.log(sum(len(words) for words in choices)),
            "added the numbers of words",
        ),
    ],
    "check_entropy": [
        (lambda probs: sum(p * math.log(p) for p in probs if p), "the sign is wrong"),
        (
            lambda probs: -sum(math.log(p) for p in probs if p) / sum(p > 0 for p in probs),
            "weight by its probability",
        ),
        (lambda probs: -sum(p * math.log2(p) for p in probs if p), "in bits"),
        (lambda probs: -sum(p * math.log(p) for p in probs), "your code raised ValueError"),
    ],
    "check_split": [
        (lambda d, c: ("".join(d)[:c], ["".join(d)[c:]]), "cut in two"),
        (lambda d, c: (d[: first(d, c)], d), "in both lists"),
        (lambda d, c: (d[first(d, c) :], d[: first(d, c)]), "swapped"),
        (lambda d, c: (d[: first(d, c, -1)], d[first(d, c, -1) :]), "too short"),
    ],
}
