"Classic mistakes for the exercises of ch19."

import random


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


MISTAKES = {
    "check_duration": [
        (lambda *a: duration(*a, how=lambda x, y: x + y), "you added the two"),
        (lambda *a: duration(*a, how=min), "the faster stage"),
        (lambda *a: duration(*a, many=False), "left out the processes"),
        (lambda *a: duration(*a, count_bytes=False), "bytes, not tokens"),
    ],
    "check_cuts": [
        (
            lambda t: cuts(t, at=lambda a, b: a.isspace() and not b.isspace()),
            "behind the white space",
        ),
        (lambda t: cuts(t, at=lambda a, b: b.isspace()), "inside a run of white space"),
        (lambda t: cuts(t, at=lambda a, b: True), "torn from their words"),
    ],
    "check_validation": [
        (lambda *a: validation(*a, before=True), "stopped before val_tokens was reached"),
        (lambda *a: validation(*a, after=True), "one document more"),
        (lambda lengths, n: n, "return a number of documents"),
    ],
    "check_pause": [
        (lambda *a: pause(*a, obey=False), "knows best"),
        (lambda *a: pause(*a, jitter=False), "no jitter"),
        (lambda *a: pause(*a, cap=False), "no cap"),
        (lambda *a: pause(*a, grow=lambda n: n + 1), "doubles each time"),
    ],
    "check_restart": [
        (lambda s: restart(s, last=True), "a hole in the data"),
        (lambda s: restart(s, behind=True), "its tokens would be lost"),
        (lambda s: restart(s, count=True), "that is a number of shards"),
    ],
}
