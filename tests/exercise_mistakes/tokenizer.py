"""Classic mistakes in the tokenizer chapter, and a phrase that the check must answer with."""

from collections import Counter, defaultdict
from functools import reduce
from itertools import chain, pairwise

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


def with_zip(words):
    total = defaultdict(int)
    for word in words:
        for i in range(1, len(word)):
            a, b = word[i - 1 : i + 1]
            total[a, b] += words[word]
    return dict(total)


def with_get(words):
    total = {}
    for word, n in words.items():
        for i in range(len(word) - 1):
            pair = word[i], word[i + 1]
            total[pair] = total.get(pair, 0) + n
    return total


def by_rank(word, merges):
    rank, parts = {pair: i for i, pair in enumerate(merges)}, single(word)
    while found := [p for p in pairwise(parts) if p in rank]:
        parts = merge(parts, min(found, key=rank.get))
    return parts


def by_hand(word, merges):
    parts = [bytes([b]) for b in word]
    for a, b in merges:
        i = 0
        while i < len(parts) - 1:
            if parts[i] == a and parts[i + 1] == b:
                parts[i : i + 2] = [a + b]
            i += 1
    return tuple(parts)


def lose(word, merges):
    return [a + b for a, b in pairwise(single(word))] or [word]


def stream(documents, encode, eot):
    ids = []
    for d in documents:
        ids.append(eot)
        ids.extend(encode(d))
    return ids


def grown(ids, tokens):
    data = b""
    for i in ids:
        data += tokens[i]
    return str(data, "utf-8")


MISTAKES = {
    "check_count_pairs": [
        (
            lambda w: {
                (a, b): sum(x.count(a + b) * n for x, n in w.items()) for a in "abn" for b in "abn"
            },
            "pairs overlap",
        ),
        (lambda w: [p for x in w for p in pairwise(x)], "return a dict"),
        (every_word_once, "counted every word once"),
        (every_pair_once_per_word, "once per word"),
        (across_words, "across the end of a word"),
        (only_the_best, "return a dict"),
    ],
    "check_apply_merges": [
        (lambda word, merges: single(word) if len(word) > 1 else [], "you returned nothing"),
        (lambda word, merges: list(word), "return a list of bytes"),
        (lose, "do not join to the word"),
        (last_merge_first, "last merge first"),
        (first_place_only, "only the first place"),
        (longest_from_the_left, "longest known token"),
        (lambda word, merges: single(word), "should become"),
    ],
    "check_bytes_per_token": [
        (lambda encode, text: len(text.encode()) // len(encode(text)), "you rounded"),
        (lambda encode, text: len(encode(text)) / len(text), "tokens per character"),
        (lambda encode, text: len(text.encode()), "bytes per token, got"),
        (lambda encode, text: len(text) / len(encode(text)), "counted characters"),
        (lambda encode, text: len(encode(text)) / len(text.encode()), "turn the fraction over"),
    ],
    "check_pack": [
        (lambda docs, encode, eot: [eot] + [i for d in docs for i in encode(d)], "very start only"),
        (lambda docs, encode, eot: [[eot, *encode(d)] for d in docs], "one list of ids"),
        (
            lambda docs, encode, eot: [i for d in docs if d for i in [eot, *encode(d)]],
            "empty document",
        ),
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
        (lambda ids, tokens: b"".join(tokens[i] for i in ids), "these are bytes"),
        (lambda ids, tokens: b"".join(tokens[i] for i in ids).decode("latin-1"), "Latin-1"),
        (
            lambda ids, tokens: b"".join(tokens[i] for i in ids).decode("ascii"),
            "decoded them as ascii",
        ),
        (
            lambda ids, tokens: b"".join(tokens[i] for i in sorted(ids)).decode(errors="replace"),
            "the ids stand for",
        ),
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

RIGHT = {
    "check_count_pairs": [
        with_zip,
        with_get,
        lambda words: Counter(p for word, n in words.items() for p in list(pairwise(word)) * n),
        lambda words: sum(
            (Counter(pairwise(word * 1)) for w, n in words.items() for word in [w] * n), Counter()
        ),
    ],
    "check_apply_merges": [
        by_rank,
        by_hand,
        lambda w, m: reduce(merge, m, [bytes([b]) for b in w]),
    ],
    "check_bytes_per_token": [
        lambda encode, text: len(bytes(text, "utf-8")) / len(encode(text)),
        lambda encode, text: sum(len(c.encode()) for c in text) / len(list(encode(text))),
        lambda encode, text: 1 / (len(encode(text)) / len(text.encode("utf8"))),
    ],
    "check_pack": [
        stream,
        lambda docs, encode, eot: list(chain(*([eot, *encode(d)] for d in docs))),
        lambda docs, encode, eot: (i for d in docs for i in [eot, *encode(d)]),
        lambda docs, encode, eot: tuple(chain.from_iterable([eot, *encode(d)] for d in docs)),
    ],
    "check_decode": [
        grown,
        lambda ids, tokens: b"".join(map(tokens.__getitem__, ids)).decode("utf-8"),
        lambda ids, tokens: bytes(b for i in ids for b in tokens[i]).decode(),
    ],
}
