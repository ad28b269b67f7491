import math
from functools import reduce

import numpy as np


def where(s, B, w, n, border=0, start=0, down=True):
    position = s * B * w
    epoch = (position - border) // n if down else position / n
    return position + start, max(0, epoch)


def by_subtraction(s, B, w, n):
    position, epoch = s * B * w, 0
    while (epoch + 1) * n <= position:
        epoch += 1
    return [position, epoch]


MISTAKES = {
    "check_split_window": [
        (lambda w: (w[:-2], w[2:]), "two tokens on"),
        (lambda w: (w[:-1], w[2:]), "every input has one target"),
        (lambda w: (w, np.roll(w, -1)), "yours has all tokens"),
        (lambda w: (w[:-1], w[:-1] + 1), "should start with"),
        (lambda w: (w[:-1], w[:-1]), "only learn to copy"),
        (lambda w: (w[1:], w[:-1]), "the wrong way round"),
        (lambda w: (w, w[1:]), "yours has all tokens"),
    ],
    "check_count_windows": [
        (lambda n, T: math.ceil((n - 1) / T), "you rounded up"),
        (lambda n, T: (n - 1) // T + 1, "one too many"),
        (lambda n, T: (n - 1) / T, "round down"),
        (lambda n, T: max(1, (n - 1) // T), "there are 0 windows"),
        (lambda n, T: n // T, "the last target"),
        (lambda n, T: n // (T + 1), "neighbours share one"),
        (lambda n, T: n - T, "windows start T tokens apart"),
    ],
    "check_positions_of": [
        (lambda p, B, r: [p + (r + 1) * B + i for i in range(B)], "rank 0 skips nobody"),
        (lambda p, B, r: [p - r * B + i for i in range(B)], "you go backwards"),
        (lambda p, B, r: p + r * B, "return a list"),
        (lambda p, B, r: [(p or B) + r * B + i for i in range(B)], "position 0"),
        (lambda p, B, r: list(range(p, p + B)), "every rank reads the same"),
        (lambda p, B, r: list(range(r * B, r * B + B)), "start at position"),
        (lambda p, B, r: list(range(p + r, p + r + B)), "each of them reads B"),
        (lambda p, B, r: [p + r * B], "yours reads 1"),
    ],
    "check_undo_round": [
        (lambda a, b, f: (b - f(a), a), "minus or plus"),
        (lambda a, b, f: (b + f(a), a), "minus or plus"),
        (lambda a, b, f: (b | f(a), a), "lose bits"),
        (lambda a, b, f: (b & ~f(a), a), "lose bits"),
        (lambda a, b, f: (b ^ f(b), a), "you scrambled new_right"),
        (lambda a, b, f: (b, a ^ f(b)), "another round forwards"),
        (lambda a, b, f: (b, a), "only swapped"),
        (lambda a, b, f: (a, b ^ f(a)), "in the wrong order"),
    ],
    "check_where_is_it": [
        (lambda *a: where(*a, border=1), "the second one"),
        (lambda s, B, w, n: (s * B * w, s * B * w // n if s else 1), "before the first step"),
        (lambda s, B, w, n: where(s, B, w, n)[::-1], "the two are swapped"),
        (lambda *a: where(*a, down=False), "round down"),
        (lambda s, B, w, n: (s * n * B * w, s), "no part in the position"),
        (lambda *a: where(*a, border=-1), "still to come"),
        (lambda *a: where(*a, start=1), "expected"),
        (lambda s, B, w, n: (s * B, s * B // n), "the windows of one rank"),
        (lambda s, B, w, n: (s * B * w % n, s * B * w // n), "over all epochs"),
        (lambda s, B, w, n: (s * B * w, s * B * w // n + 1), "counted from 0"),
    ],
}

RIGHT = {
    "check_split_window": [
        lambda w: [w[:-1], w[1:]],
        lambda w: (w.tolist()[:-1], w.tolist()[1:]),
        lambda w: (w[: len(w) - 1], w[1 : len(w)]),
        lambda w: tuple(zip(*[(w[i], w[i + 1]) for i in range(len(w) - 1)], strict=True)),
    ],
    "check_count_windows": [
        lambda n, T: len(range(0, n - T, T)),
        lambda n, T: math.floor((n - 1) / T),
        lambda n, T: sum(1 for a in range(0, n, T) if a + T + 1 <= n),
        lambda n, T: divmod(n - 1, T)[0],
    ],
    "check_positions_of": [
        lambda p, B, r: [p + r * B + i for i in range(B)],
        lambda p, B, r: range(p + r * B, p + (r + 1) * B),
        lambda p, B, r: np.arange(B) + p + r * B,
        lambda p, B, r: (p + B * r + i for i in range(B)),
    ],
    "check_undo_round": [
        lambda a, b, f: (f(a) ^ b, a),
        lambda a, b, f: [b ^ f(a), a],
        lambda a, b, f: (reduce(lambda x, y: x ^ y, (f(a), b)), a),
        lambda a, b, f: ((b | f(a)) - (b & f(a)), a),
    ],
    "check_where_is_it": [
        by_subtraction,
        lambda s, B, w, n: (s * (B * w), divmod(s * B * w, n)[0]),
        lambda s, B, w, n: np.array([s * B * w, s * B * w // n]),
        lambda s, B, w, n: (B * w * s, int(B * w * s / n)),
    ],
}
