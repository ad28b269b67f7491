"Classic mistakes for the exercises of ch20."

import random
import re
from bisect import bisect_left
from itertools import accumulate, pairwise, takewhile

import numpy as np


def duration(tokens, processes, speed, size, download, *, how=max, many=True, count_bytes=True):
    return how(
        tokens / (speed * (processes if many else 1)),
        tokens * (size if count_bytes else 1) / download,
    )


def cuts(text, *, at=lambda a, b: not a.isspace() and b.isspace()):
    return [i for i in range(1, len(text)) if at(text[i - 1], text[i])]


def validation(lengths, val_tokens, *, before=False, after=False):
    n = total = 0
    for length in lengths:
        if (total > val_tokens) if after and total else total >= val_tokens:
            break
        if before and total + length > val_tokens:
            break
        n, total = n + 1, total + length
    return n


def pause(attempt, first, longest, asked, *, obey=True, cap=True, jitter=True, grow=lambda a: 2**a):
    if asked is not None and obey:
        return asked
    top = first * grow(attempt)
    return (random.uniform(0.5, 1) if jitter else 1) * (min(longest, top) if cap else top)


def restart(shards, *, last=False, behind=False, count=False):
    ends = [0]
    for s in shards:
        if not s["whole"]:
            if behind:
                ends.append(s["end"])
            break
        ends.append(s["end"])
    if last:
        return max([0] + [s["end"] for s in shards if s["whole"]])
    return sum(s["whole"] for s in shards) if count else ends[-1]


def behind_each(text):
    return [m.start() for m in re.finditer(r"(?<=\S)\s", text)]


def pairs(text):
    return [i for i, (a, b) in enumerate(pairwise(text), 1) if b.isspace() > a.isspace()]


def states(text):
    found, inside = [], False
    for i, c in enumerate(text):
        if inside and c.isspace():
            found.append(i)
        inside = not c.isspace()
    return tuple(found)


def with_zero(text):
    return [
        i for i in range(len(text)) if text[i].isspace() and (i == 0 or not text[i - 1].isspace())
    ]


def ascii_only(text):
    return [i for i in cuts(text) if text[i] in " \n\t"]


def searched(lengths, val_tokens):
    ends = list(accumulate(lengths))
    return min(bisect_left(ends, val_tokens) + 1, len(lengths)) if val_tokens > 0 else 0


def before(lengths, val_tokens):
    return sum(1 for b in [0, *accumulate(lengths)][:-1] if b < val_tokens)


def endless(lengths, val_tokens):
    n = 0
    while sum(lengths[:n]) < val_tokens and n < 40 and n <= len(lengths) * 2:
        n += 1
    return n


def by_random(attempt, first, longest, asked):
    top = min(longest, first * 2**attempt)
    return top * (0.5 + random.random() / 2) if asked is None else asked


def doubled(attempt, first, longest, asked):
    if asked is not None:
        return asked
    top = first
    for _ in range(attempt):
        top = min(2 * top, longest)
    return random.uniform(top / 2, top)


def walk(shards):
    i = 0
    while i < len(shards) and shards[i]["whole"]:
        i += 1
    return shards[i - 1]["end"] if i else 0


def only_first(shards):
    return shards[0]["end"] if shards and shards[0]["whole"] else 0


def whole_is_done(shards):
    return walk(shards) if any(not s["whole"] for s in shards) or not shards else 0


MISTAKES = {
    "check_duration": [
        (lambda n, p, *a: max(n * p / a[0], n * a[1] / a[2]), "divide by them"),
        (lambda *a: 2 * duration(*a), "expected"),
        (lambda *a: duration(*a, how=lambda x, y: x + y), "you added the two"),
        (lambda *a: duration(*a, how=min), "the faster stage"),
        (lambda *a: duration(*a, many=False), "left out the processes"),
        (lambda *a: duration(*a, count_bytes=False), "bytes, not tokens"),
    ],
    "check_cuts": [
        (lambda t: [i for i in cuts(t) if t[i] == " "], "a line break is white space"),
        (lambda t: [i + 1 for i in cuts(t)], "one too far"),
        (with_zero, "at the border"),
        (ascii_only, "at the border"),
        (
            lambda t: cuts(t, at=lambda a, b: a.isspace() and not b.isspace()),
            "behind the white space",
        ),
        (lambda t: cuts(t, at=lambda a, b: b.isspace()), "inside a run of white space"),
        (lambda t: cuts(t, at=lambda a, b: True), "torn from their words"),
    ],
    "check_validation": [
        (lambda lengths, n: sum(lengths[: validation(lengths, n)]), "number of tokens"),
        (endless, "expected both documents"),
        (lambda lengths, n: max(1, validation(lengths, n)), "nothing is for validation"),
        (lambda *a: validation(*a, before=True), "stopped before val_tokens was reached"),
        (lambda *a: validation(*a, after=True), "one document more"),
        (lambda lengths, n: n, "number of documents"),
    ],
    "check_pause": [
        (
            lambda n, first, longest, asked: asked or pause(n, first, longest, None),
            "a time, not None",
        ),
        (
            lambda n, first, longest, asked: (
                random.uniform(0, 1) * min(longest, first * 2**n) if asked is None else asked
            ),
            "drawn between half",
        ),
        (lambda *a: pause(*a, grow=lambda n: 3**n), "doubles each time"),
        (lambda *a: pause(*a, obey=False), "knows best"),
        (lambda *a: pause(*a, jitter=False), "no jitter"),
        (lambda *a: pause(*a, cap=False), "no cap"),
        (lambda *a: pause(*a, grow=lambda n: n + 1), "doubles each time"),
    ],
    "check_restart": [
        (only_first, "behind the first shard"),
        (
            lambda s: next((i for i, x in enumerate(s) if not x["whole"]), 0),
            "the number of a shard",
        ),
        (whole_is_done, "all shards are whole"),
        (
            lambda s: max(
                [x["end"] for x in s[: len(list(takewhile(lambda y: y["whole"], s)))]], default=1
            ),
            "begins at 0",
        ),
        (lambda s: restart(s, last=True), "a hole in the data"),
        (lambda s: restart(s, behind=True), "its tokens would be lost"),
        (lambda s: restart(s, count=True), "that is a number of shards"),
    ],
}

RIGHT = {
    "check_duration": [
        lambda n, p, speed, size, net: max(n / p / speed, n / (net / size)),
        lambda n, p, speed, size, net: n / min(p * speed, net / size),
        lambda n, p, speed, size, net: n * np.maximum(1 / (speed * p), size / net),
    ],
    "check_cuts": [behind_each, pairs, states],
    "check_validation": [
        searched,
        before,
        lambda lengths, n: next(
            (k for k in range(len(lengths) + 1) if sum(lengths[:k]) >= n), len(lengths)
        ),
    ],
    "check_pause": [
        by_random,
        doubled,
        lambda n, first, longest, asked: {
            None: np.random.uniform(0.5, 1) * min(first * 2.0**n, longest)
        }.get(asked, asked),
    ],
    "check_restart": [
        walk,
        lambda s: [0, *[x["end"] for x in takewhile(lambda x: x["whole"], s)]][-1],
        lambda s: sum(
            x["end"] - (s[i - 1]["end"] if i else 0)
            for i, x in enumerate(s)
            if all(y["whole"] for y in s[: i + 1])
        ),
    ],
}
