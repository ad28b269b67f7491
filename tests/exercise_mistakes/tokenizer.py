"""Classic mistakes in the tokenizer chapter, and a phrase that the check must answer with."""

from collections import Counter
from itertools import pairwise

from gpt2edu.text.tokenizer import merge


def every_word_once(words):
    return Counter(pair for word in words for pair in pairwise(word))


def every_pair_once_per_word(words):
    total = Counter()
    for word, n in words.items():
        for pair in set(pairwise(word)):
            total[pair] += n
    return total


def across_words(words):
    return Counter(pairwise("".join(word * n for word, n in words.items())))


def only_the_best(words):
    return every_word_once(words).most_common(1)[0]


def single(word):
    return [word[i : i + 1] for i in range(len(word))]


def last_merge_first(word, merges):
    parts = single(word)
    for pair in reversed(merges):
        parts = merge(parts, pair)
    return parts


def first_place_only(word, merges):
    parts = single(word)
    for a, b in merges:
        for i in range(len(parts) - 1):
            if (parts[i], parts[i + 1]) == (a, b):
                parts[i : i + 2] = [a + b]
                break
    return parts


def longest_from_the_left(word, merges):
    known, parts = {a + b for a, b in merges}, []
    while word:
        n = len(word)
        while n > 1 and word[:n] not in known:
            n -= 1
        parts.append(word[:n])
        word = word[n:]
    return parts


MISTAKES = {
    "check_count_pairs": [
        (every_word_once, "counted every word once"),
        (every_pair_once_per_word, "once per word"),
        (across_words, "across the end of a word"),
        (only_the_best, "return a dict"),
    ],
    "check_apply_merges": [
        (last_merge_first, "last merge first"),
        (first_place_only, "only the first place"),
        (longest_from_the_left, "longest known token"),
        (lambda word, merges: single(word), "should become"),
    ],
    "check_bytes_per_token": [
        (lambda encode, text: len(text) / len(encode(text)), "counted characters"),
        (lambda encode, text: len(encode(text)) / len(text.encode()), "turn the fraction over"),
    ],
    "check_pack": [
        (
            lambda docs, encode, eot: [i for d in docs for i in [*encode(d), eot]],
            "after each document",
        ),
        (
            lambda docs, encode, eot: [
                i for k, d in enumerate(docs) for i in [eot] * (k > 0) + encode(d)
            ],
            "first doc",
        ),
        (
            lambda docs, encode, eot: encode("".join("<|endoftext|>" + d for d in docs)),
            "insert the id itself",
        ),
        (lambda docs, encode, eot: [i for d in docs for i in encode(d)], "does not occur"),
    ],
    "check_decode": [
        (lambda ids, tokens: "".join(tokens[i].decode() for i in ids), "join the bytes first"),
        (
            lambda ids, tokens: "".join(tokens[i].decode(errors="replace") for i in ids),
            "question marks",
        ),
        (
            lambda ids, tokens: "".join(tokens[i].decode(errors="ignore") for i in ids),
            "lost in silence",
        ),
        (lambda ids, tokens: b"".join(tokens).decode(errors="replace"), "joined all tokens"),
    ],
}
