"Classic mistakes for the exercises of ch27."

import math

import numpy as np


def huber(predicted, measured, delta, log=True, mean=False, half=True, size=np.abs):
    r = np.log(predicted) - np.log(measured) if log else predicted - measured
    a = size(r)
    parts = np.where(a <= delta, a * a / 2, delta * (a - delta / 2 * half))
    return float(parts.mean() if mean else parts.sum())


def by_loop(predicted, measured, delta):
    total = 0.0
    for p, m in zip(predicted, measured, strict=True):
        a = abs(math.log(p / m))
        total += a**2 / 2 if a < delta else delta * a - delta**2 / 2
    return total


def by_torch(predicted, measured, delta):
    import torch
    from torch.nn.functional import huber_loss

    logs = (torch.log(torch.as_tensor(v, dtype=torch.float64)) for v in (predicted, measured))
    return huber_loss(*logs, reduction="sum", delta=delta)


def frontier(C, A, alpha, B, beta, six=6, ratio=None):
    ratio = alpha * A / beta / B if ratio is None else ratio
    n = (ratio * (C / six) ** beta) ** (1 / (alpha + beta))
    return n, C / six / n


def by_search(C, A, alpha, B, beta):
    low, high = 0.0, math.log(C / 6)
    for _ in range(300):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        f, g = (A / math.exp(x) ** alpha + B / (C / 6 / math.exp(x)) ** beta for x in (a, b))
        low, high = (low, b) if f < g else (a, high)
    # the valley is flat at its bottom: settle it by the slope
    n = math.exp((low + high) / 2)
    for _ in range(50):
        slope = beta * B * (6 * n / C) ** beta - alpha * A / n**alpha
        curve = beta**2 * B * (6 * n / C) ** beta + alpha**2 * A / n**alpha
        n *= math.exp(-slope / curve)
    return [n, C / 6 / n]


def by_logs(C, A, alpha, B, beta):
    log_n = math.log(alpha * A) - math.log(beta * B) + beta * math.log(C / 6)
    n = math.exp(log_n / (alpha + beta))
    return np.array([n, C / (6 * n)])


def draws(values, statistic, times, rng, replace=True, size=None):
    values = np.array(values)
    size = size or len(values)
    return [statistic(rng.choice(values, size, replace)) for _ in range(times)]


def by_index(values, statistic, times, rng):
    n = len(values)
    found = []
    for _ in range(times):
        found.append(statistic([values[i] for i in rng.integers(0, n, n)]))
    return np.std(found, ddof=1)


def by_moments(values, statistic, times, rng):
    found = np.array(draws(values, statistic, times, rng), dtype=float)
    return float(np.mean(found**2) - np.mean(found) ** 2) ** 0.5


RIGHT = {
    "check_three": [
        lambda x, y, z: (x * z - y * y) / (x + z - 2 * y),
        lambda x, y, z: z - (y - z) ** 2 / ((x - y) - (y - z)),
        lambda x, y, z: x - (x - y) / (1 - (y - z) / (x - y)),
    ],
    "check_huber": [huber, by_loop, by_torch],
    "check_frontier": [frontier, by_search, by_logs],
    "check_bootstrap": [lambda *a: np.std(draws(*a)), by_index, by_moments],
}

MISTAKES = {
    "check_three": [
        (lambda x, y, z: z, "the last loss"),
        (lambda x, y, z: 2 * z - y, "once"),
        (lambda x, y, z: z - (y - z) ** 2 / (x - y), "one more gap"),
        (lambda x, y, z: z - (y - z) / (1 - (y - z) / (x - y)), "a factor is missing"),
        (lambda x, y, z: z * z / y, "above the floor does"),
        (lambda x, y, z: x - y, "expected"),
    ],
    "check_huber": [
        (lambda p, m, d: huber(p, m, d, mean=True), "that is the mean"),
        (lambda p, m, d: huber(p, m, d, log=False), "compare their logarithms"),
        (lambda p, m, d: float((np.log(p / m) ** 2).sum()), "squares only"),
        (lambda p, m, d: float((np.log(p / m) ** 2 / 2).sum()), "squares only"),
        (lambda p, m, d: float(np.abs(np.log(p / m)).sum()), "absolute values only"),
        (lambda p, m, d: huber(p, m, d, half=False), "do not meet"),
        (lambda p, m, d: huber(p, m, d, size=lambda r: r), "absolute value"),
        (lambda p, m, d: huber(p, m, 2 * d), "expected"),
    ],
    "check_frontier": [
        (lambda *a: frontier(*a)[::-1], "the other way round"),
        (lambda *a: frontier(*a, six=1), "without the 6"),
        (
            lambda C, A, alpha, B, beta: (
                (alpha * A / beta / B * (C / 6) ** alpha) ** (1 / (alpha + beta)),
                1.0,
            ),
            "exponents are exchanged",
        ),
        (
            lambda C, A, alpha, B, beta: frontier(
                C, A, alpha, B, beta, ratio=beta * B / (alpha * A)
            ),
            "upside down",
        ),
        (
            lambda C, A, alpha, B, beta: frontier(C, A, alpha, B, beta, ratio=A / B),
            "brings the factor",
        ),
        (lambda C, *a: ((C / 6) ** 0.5, (C / 6) ** 0.5), "an equal split"),
        (lambda *a: frontier(*a)[0], "two numbers"),
        (lambda *a: (frontier(*a)[0], 20 * frontier(*a)[0]), "must be the budget"),
    ],
    "check_bootstrap": [
        (lambda *a: np.std(draws(*a, replace=False)), "with replacement"),
        (lambda *a: np.std(draws(*a)) / len(a[0]) ** 0.5, "number of runs"),
        (lambda *a: np.std(draws(*a)) / a[2] ** 0.5, "number of draws"),
        (lambda *a: np.std(draws(*a, size=1)), "single runs"),
        (lambda *a: draws(*a), "one number"),
        (lambda *a: 3 * np.std(draws(*a)), "expected about"),
        (lambda v, f, n, rng: np.std(draws(v, f, 800, rng)), "7 draws"),
    ],
}
