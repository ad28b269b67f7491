"Classic mistakes for the exercises of ch15."


def positions(p, B, n, r, W, *, step=None, block=False, start=None, use_rank=True):
    start = p if start is None else start
    r = r if use_rank else 0
    if block:
        return [[start + (r * n + m) * B + i for i in range(B)] for m in range(n)]
    step = W if step is None else step
    return [[start + (m * step + r) * B + i for i in range(B)] for m in range(n)]


MISTAKES = {
    "check_chunk_to_send": [
        (lambda r, s, W: r - s, "modulo world_size"),
        (lambda r, s, W: (r + s) % W, "the wrong way"),
        (lambda r, s, W: r, "the same chunk at every step"),
        (lambda r, s, W: s, "should send chunk"),
    ],
    "check_global_loss": [
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
        (lambda *a: positions(*a, use_rank=False), "every rank reads the same windows"),
        (lambda *a: positions(*a, block=True), "one block of its own"),
        (lambda *a: positions(*a, step=1), "neighbours read the same windows"),
        (lambda *a: positions(*a, start=0), "you started at 0"),
        (lambda *a: positions(*a)[:-1], "expected"),
    ],
}
