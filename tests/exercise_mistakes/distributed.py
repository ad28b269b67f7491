"Classic mistakes for the exercises of ch16."

import numpy as np


def positions(p, B, n, r, W, *, step=None, block=False, start=None, use_rank=True):
    start = p if start is None else start
    r = r if use_rank else 0
    if block:
        return [[start + (r * n + m) * B + i for i in range(B)] for m in range(n)]
    step = W if step is None else step
    return [[start + (m * step + r) * B + i for i in range(B)] for m in range(n)]


def by_steps(rank, step, world_size):
    chunk = rank
    for _ in range(step):
        chunk = chunk - 1 if chunk else world_size - 1
    return chunk


def totals(means, counts):
    total = n = 0
    for mean, count in zip(means, counts, strict=True):
        total += mean * count
        n += count
    return total / n


def running(means, counts):
    mean = n = 0
    for m, k in zip(means, counts, strict=True):
        n += k
        mean += (m - mean) * k / n if n else 0
    return mean


def nested(p, B, n, r, W):
    result = []
    for m in range(n):
        start = p + m * B * W + r * B
        result.append(tuple(range(start, start + B)))
    return tuple(result)


def with_numpy(p, B, n, r, W):
    return (p + np.arange(n * W * B).reshape(n, W, B))[:, r]


def everyone(p, B, n, r, W):
    order = iter(range(p, p + n * W * B))
    step = [[[next(order) for _ in range(B)] for _ in range(W)] for _ in range(n)]
    return [micro[r] for micro in step]


MISTAKES = {
    "check_chunk_to_send": [
        (lambda r, s, W: (r - s - 1) % W, "one step ahead"),
        (lambda r, s, W: (r + 1) % W, "the neighbour's rank"),
        (lambda r, s, W: r - s, "modulo world_size"),
        (lambda r, s, W: (r + s) % W, "the wrong way"),
        (lambda r, s, W: r, "the same chunk at every step"),
        (lambda r, s, W: s, "should send chunk"),
    ],
    "check_global_loss": [
        (lambda means, counts: sum(means), "you added the means"),
        (
            lambda means, counts: (
                sum(m / n for m, n in zip(means, counts, strict=True)) / len(means)
            ),
            "divided each mean",
        ),
        (
            lambda means, counts: (
                sum(m * n for m, n in zip(means, counts, strict=True) if n)
                / sum(c or 1 for c in counts)
            ),
            "no tokens left",
        ),
        (lambda means, counts: sum(means) / len(means), "a mean of means"),
        (
            lambda means, counts: sum(m * n for m, n in zip(means, counts, strict=True)),
            "divide by how many",
        ),
        (
            lambda means, counts: (
                sum(m * n for m, n in zip(means, counts, strict=True)) / len(means)
            ),
            "number of ranks",
        ),
        (lambda means, counts: max(means), "expected"),
    ],
    "check_bytes_sent": [
        (lambda n, W: (W - 1) * n // W * 4, "one of the two rounds"),
        (lambda n, W: 2 * (W - 1) * n // W, "4 bytes"),
        (lambda n, W: 2 * (W - 1) * n * 4, "in every step"),
        (lambda n, W: 2 * n * 4, "one too many"),
        (lambda n, W: 0, "bytes, got 0"),
        (lambda n, W: 2 * (W - 1) * (n // W) * 4 + (W == 1), "sends nothing"),
    ],
    "check_my_positions": [
        (lambda *a: [x for micro in positions(*a) for x in micro], "one list for each"),
        (lambda *a: [[micro[0]] for micro in positions(*a)], "you list its first one"),
        (lambda *a: positions(*a)[::-1], "expected"),
        (lambda *a: positions(*a, use_rank=False), "every rank reads the same windows"),
        (lambda *a: positions(*a, block=True), "one block of its own"),
        (lambda *a: positions(*a, step=1), "neighbours read the same windows"),
        (lambda *a: positions(*a, start=0), "you started at 0"),
        (lambda *a: positions(*a)[:-1], "micro-batches on each rank"),
    ],
}

RIGHT = {
    "check_chunk_to_send": [
        by_steps,
        lambda r, s, W: (r - s + W) % W,
        lambda r, s, W: r - s if r >= s else r - s + W,
        lambda r, s, W: np.roll(np.arange(W), s)[r],
    ],
    "check_global_loss": [totals, running, lambda means, counts: np.average(means, weights=counts)],
    "check_bytes_sent": [
        lambda n, W: 4 * (n // W) * (W - 1) * 2,
        lambda n, W: sum(4 * n // W for _ in range(2) for _ in range(W - 1)),
        lambda n, W: 8 * n * (1 - 1 / W),
        lambda n, W: 8 * n - 8 * n / W,
    ],
    "check_my_positions": [nested, with_numpy, everyone],
}
