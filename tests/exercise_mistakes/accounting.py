"Classic mistakes for the exercises of ch15."

import numpy as np


def hours(n, t, g, p, m):
    return 6 * n * t / (g * p * m) / 3600


def first_fit(memory, fixed, per_window, windows):
    return max(
        b for b in range(1, windows + 1) if windows % b == 0 and fixed + b * per_window <= memory
    )


def by_search(memory, fixed, per_window, windows):
    for b in range(windows, 0, -1):
        if windows % b == 0 and fixed + per_window * b <= memory:
            return b
    return 0


def by_count(memory, fixed, per_window, windows):
    room = min((memory - fixed) // per_window, windows)
    while room > 0 and windows % room:
        room -= 1
    return max(room, 0)


def by_pieces(memory, fixed, per_window, windows):
    sizes = {windows // n for n in range(1, windows + 1) if windows % n == 0}
    return max({s for s in sizes if s * per_window <= memory - fixed} | {0})


def by_halving(memory, fixed, per_window, windows):
    b = windows
    while b and fixed + b * per_window > memory:
        b //= 2
    return b


def never_all(memory, fixed, per_window, windows):
    return max(
        [
            0,
            *[
                b
                for b in range(1, windows)
                if windows % b == 0 and fixed + b * per_window <= memory
            ],
        ]
    )


MISTAKES = {
    "check_matrix_flops": [
        (lambda n, a, b: 2 * n * a * b, "only the forward pass"),
        (lambda n, a, b: 4 * n * a * b, "one gradient is missing"),
        (lambda n, a, b: 3 * n * a * b, "multiplications only"),
        (lambda n, a, b: 6 * a * b, "for one token"),
        (lambda n, a, b: n * (a + b), "expected"),
    ],
    "check_resting_bytes": [
        (
            lambda m, r, kind: 12 * (m + r) if kind == "adamw" else 12 * m + 8 * r,
            "the other way round",
        ),
        (lambda m, r, kind: 16 * (m + r), "you counted the gradients"),
        (lambda m, r, kind: 8 * (m + r), "one of the moments"),
        (lambda m, r, kind: 3 * (m + r), "4 bytes"),
        (lambda m, r, kind: 12 * (m + r), "one moment of a matrix"),
        (lambda m, r, kind: (8 if kind == "muon" else 12) * (m + r), "AdamW's two moments"),
        (lambda m, r, kind: 20 * (m + r), "adamw with"),
        (lambda m, r, kind: 12 * (m + r) if kind == "adamw" else 4 * m, "muon with"),
    ],
    "check_largest": [
        (lambda m, f, p, w: 2 * by_search(m, f, p, w), "do not fit"),
        (by_halving, "not by powers of two"),
        (never_all, "the whole batch"),
        (lambda *a: 3, "expected"),
        (lambda memory, fixed, per, windows: (memory - fixed) // per, "cannot be cut"),
        (lambda memory, fixed, per, windows: first_fit(memory, 0, per, windows), "what is fixed"),
        (
            lambda memory, fixed, per, windows: first_fit(memory - 1, fixed, per, windows),
            "to the last byte",
        ),
        (first_fit, "the answer is 0"),
        (lambda *a: 1, "that is the smallest"),
    ],
    "check_bill": [
        (lambda n, t, g, p, m, d: (hours(n, t, g, p, m) / 3, 0), "the forward pass"),
        (lambda n, t, g, p, m, d: (hours(n, t, 1, p, m), 0), "GPU-hours"),
        (lambda n, t, g, p, m, d: (hours(n, t, g, p, 1), 0), "the share mfu"),
        (lambda n, t, g, p, m, d: (hours(n, t, g, p, 1 / m), 0), "divide by it"),
        (lambda n, t, g, p, m, d: (3600 * hours(n, t, g, p, m), 0), "seconds"),
        (
            lambda n, t, g, p, m, d: (hours(n, t, g, p, m), hours(n, t, g, p, m) * d),
            "pays for one GPU",
        ),
        (lambda n, t, g, p, m, d: hours(n, t, g, p, m), "two numbers"),
        (lambda n, t, g, p, m, d: (hours(n, t, g, p, m), 1.0), "dollars"),
    ],
}

RIGHT = {
    "check_matrix_flops": [
        lambda n, a, b: 2 * n * a * b + 4 * n * a * b,
        lambda n, a, b: 3 * (2 * n * a * b),
        lambda n, a, b: n * sum(2 * a * b for _ in ("forward", "inputs", "weights")),
        lambda n, a, b: 6.0 * n * (a * b),
    ],
    "check_resting_bytes": [
        lambda m, r, kind: 12 * r + (8 if kind == "muon" else 12) * m,
        lambda m, r, kind: 12 * (m + r) - 4 * m * (kind == "muon"),
        lambda m, r, kind: 4 * sum({"adamw": (m, r) * 3, "muon": (m, r, m, r, r)}[kind]),
    ],
    "check_largest": [by_search, by_count, by_pieces],
    "check_bill": [
        lambda n, t, g, p, m, d: [hours(n, t, g, p, m), hours(n, t, 1, p, m) * d],
        lambda n, t, g, p, m, d: np.array([1, g * d]) * hours(n, t, g, p, m),
        lambda n, t, g, p, m, d: (6 * n / g * t / p / m / 60 / 60, 6 * n * t / p / m / 3600 * d),
    ],
}
