"Classic mistakes for the exercises of ch24."

import itertools

import numpy as np
import torch


def targets(ids, answers):
    return [i if a else -100 for i, a in zip(ids[1:], answers[1:], strict=True)]


def in_place(ids, answers):
    y = ids[1:]
    for k, a in enumerate(answers[1:]):
        if not a:
            y[k] = -100
    return y


def without_end(ids, answers):
    y = targets(ids, answers)
    last = max(k for k, t in enumerate(y) if t != -100)
    return [-100 if k == last else t for k, t in enumerate(y)]


def mask(owner):
    T = len(owner)
    return (owner[:, None] == owner[None, :]) & torch.ones(T, T, dtype=torch.bool).tril()


def mask_by_loop(owner):
    T = range(len(owner))
    return [[bool(owner[s] == owner[t]) and s <= t for s in T] for t in T]


def by_blocks(owner):
    sizes = torch.unique_consecutive(owner, return_counts=True)[1].tolist()
    return torch.block_diag(*[torch.ones(n, n).tril() for n in sizes]).bool()


def eye(owner):
    return torch.eye(len(owner), dtype=torch.bool)


def positions(owner):
    return [i for _, group in itertools.groupby(owner) for i, _ in enumerate(group)]


def by_first(owner):
    return [i - owner.index(k) for i, k in enumerate(owner)]


def by_counter(owner):
    seen, out = {}, []
    for k in owner:
        out.append(seen.get(k, 0))
        seen[k] = out[-1] + 1
    return out


def shares(counts):
    total = sum(map(sum, counts))
    return [[n * len(counts) / total for n in row] for row in counts]


def by_numpy(counts):
    n = np.array(counts)
    return n / n.sum() * len(n)


def by_mean(counts):
    n = torch.tensor(counts, dtype=torch.float64)
    return n / n.sum(1).mean()


MISTAKES = {
    "check_targets": [
        (lambda i, a: i[1:], "every token counts"),
        (
            lambda i, a: [x if b else -100 for x, b in zip(i, a, strict=True)][:-1],
            "that is the input, marked",
        ),
        (
            lambda i, a: [x if b else -100 for x, b in zip(i[1:], a[:-1], strict=True)],
            "the first token of an answer",
        ),
        (lambda i, a: [max(t, 0) for t in targets(i, a)], "0 is a token like any other"),
        (without_end, "<|end|> is part of the answer"),
        (lambda i, a: targets(i, [not b for b in a]), "turned round"),
        (
            lambda i, a: [x if b else -100 for x, b in zip(i, a, strict=True)],
            "the last one predicts nothing",
        ),
    ],
    "check_own_document": [
        (lambda o: o[:, None] == o, "sees the future of its own document"),
        (lambda o: torch.ones(len(o), len(o)).tril(), "sees the documents before its own"),
        (lambda o: mask(o).T, "rows are those who look"),
        (lambda o: mask(o) & ~eye(o), "each place sees itself too"),
        (lambda o: ~mask(o), "turned round"),
        (lambda o: mask(o)[None], "expected shape"),
    ],
    "check_positions": [
        (lambda o: list(range(len(o))), "go on over the border"),
        (lambda o: [i + 1 for i in positions(o)], "the first position is 0"),
        (lambda o: o, "the number of the document"),
        (lambda o: [o.count(k) for k in o], "the length of the document"),
        (
            lambda o: [o.count(k) - 1 - i for k, i in zip(o, positions(o), strict=True)],
            "counted from the end",
        ),
    ],
    "check_shares": [
        (lambda c: [[1 / len(row) for _ in row] for row in c], "all alike"),
        (lambda c: by_numpy(c) / len(c), "DDP takes the mean over the ranks"),
        (lambda c: [[n / sum(row) for n in row] for row in c], "the rank's own total"),
        (lambda c: np.ones_like(c), "a sum of means"),
        (lambda c: np.full(np.shape(c), len(c) / np.sum(c)), "the loss is a mean already"),
        (lambda c: c, "the sum over targets"),
        (lambda c: by_numpy(c)[0], "a factor for each micro-batch"),
    ],
}
RIGHT = {
    "check_targets": [
        targets,
        in_place,
        lambda i, a: np.where(a[1:], i[1:], -100),
        lambda i, a: torch.tensor(i)[1:].masked_fill(~torch.tensor(a)[1:], -100),
    ],
    "check_own_document": [mask, mask_by_loop, by_blocks],
    "check_positions": [positions, by_first, by_counter],
    "check_shares": [shares, by_numpy, by_mean],
}
