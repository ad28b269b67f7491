"Classic mistakes for the exercises of ch19."

import statistics

import numpy as np


def micro_batches(total, b, T, W, *, error=ValueError, text=None):
    n, rest = divmod(total, b * T * W)
    if rest:
        sizes = f"micro_batch={b} x block_size={T} x world_size={W}"
        raise error(text or f"total_batch={total} does not divide by {sizes}")
    return n


def due(start, end, every, *, last=True, twice=False, anew=False):
    first = start + every if anew else start - start % every + every
    steps = list(range(first, end + 1, every))
    return steps + [end] * (start < end and last and (twice or end not in steps))


def judged(n, T, unjudged, *, stride=None, skip=None, fits=0, shift=1):
    skip = unjudged if skip is None else skip
    starts = range(0, n - T + 1 + fits, stride or T - unjudged)
    return [list(range(a + skip + shift, a + T + shift)) for a in starts]


def spike(losses, limit, patience, *, total=False, keep=False, end=False, least=20):
    recent, high = [], []
    for step, loss in enumerate(losses):
        is_high = len(recent) >= least and loss > sum(recent) / len(recent) + limit
        if is_high:
            high.append(step)
        elif not total:
            high.clear()
        if keep or not is_high:
            recent.append(loss)
        if len(high) == patience:
            return high[-1] if end else high[0]
    return None


def first(step, total, T, b, rank, W, *, at=None, jump=None):
    at = step * total // T if at is None else at
    begin = at + (rank * b if jump is None else jump)
    return list(range(begin, begin + b))


def refusing(total_batch, micro_batch, block_size, world_size):
    each = total_batch / world_size / micro_batch / block_size
    if each != int(each):
        raise ValueError(
            f"{total_batch=} does not fit {micro_batch=}, {block_size=}, {world_size=}"
        )
    return int(each)


def by_remainder(total, b, T, W):
    if total % (b * T * W) != 0:
        raise ValueError(
            "total_batch " + str(total) + " and micro_batch " + str(b) + " do not match"
        )
    return total // b // T // W


class Refused(ValueError):
    pass


def looped(start, end, every):
    steps = []
    while start < end:
        start += 1
        if start == end or not start % every:
            steps.append(start)
    return steps


def sets(start, end, every):
    due_ = {s for s in range(every, end + 1, every)} | {end}
    return sorted(s for s in due_ if s > start)


def yielded(start, end, every):
    for step in range(start + 1, end + 1):
        if step % every == 0 or step == end:
            yield step


def start_again(start, end, every):
    return [
        s
        for s in range(start, end + 1)
        if s > 0 and (s % every == 0 or s == end) and (s < end or start < end)
    ]


def walked(n, T, unjudged):
    windows, a = [], 0
    while a + T <= n:
        windows.append(tuple(i + 1 for i in range(a + unjudged, a + T)))
        a += T - unjudged
    return windows


def with_numpy(n, T, unjudged):
    starts = np.arange(0, n - T + 1, T - unjudged)
    return starts[:, None] + np.arange(unjudged + 1, T + 1)


def one_more(n, T, unjudged):
    return judged(n, T, unjudged) or [list(range(unjudged + 1, n + 1))]


def never_one(n, T, unjudged):
    return judged(n, T, unjudged) if n > T else []


def with_mean(losses, limit, patience):
    calm, began = [], None
    for i, loss in enumerate(losses):
        if len(calm) < 20 or loss <= statistics.fmean(calm) + limit:
            calm.append(loss)
            began = None
            continue
        began = i if began is None else began
        if i - began + 1 >= patience:
            return began
    return None


def with_total(losses, limit, patience):
    total = n = run = 0
    for i, loss in enumerate(losses):
        if n >= 20 and loss - total / n > limit:
            run += 1
            if run == patience:
                return i + 1 - patience
        else:
            total, n, run = total + loss, n + 1, 0


def with_array(losses, limit, patience):
    calm = np.zeros(0)
    series = []
    for i in range(len(losses)):
        high = calm.size >= 20 and losses[i] > calm.mean() + limit
        series = [*series, i] if high else []
        calm = calm if high else np.append(calm, losses[i])
        if len(series) == patience:
            return series[0]


def at_least(losses, limit, patience):
    return spike(losses, limit - 1e-9, patience)


MISTAKES = {
    "check_micro_batches": [
        (lambda total, b, T, W: micro_batches(total, b, T, 1), "work at once"),
        (lambda total, b, T, W: total // (b * T * W), "lost silently"),
        (lambda total, b, T, W: total / (b * T * W), "not a whole number"),
        (lambda total, b, T, W: total // T, "counted windows"),
        (lambda *a: micro_batches(*a, error=ZeroDivisionError), "not ZeroDivisionError"),
        (
            lambda *a: micro_batches(*a, text="total_batch is wrong:\nit does not fit"),
            "more than one line",
        ),
        (lambda *a: micro_batches(*a, text="bad sizes"), "should name total_batch and micro_batch"),
    ],
    "check_due_steps": [
        (start_again, "was done"),
        (lambda s, e, n: due(s, e, n) if e >= n else [], "shorter than"),
        (lambda *a: due(*a, last=False), "neither judged nor saved"),
        (
            lambda start, end, every: list(range(0, end + 1, every)),
            "before anything has been learned",
        ),
        (lambda *a: due(*a, twice=True), "due twice"),
        (lambda *a: due(*a, anew=True), "began anew"),
        (lambda start, end, every: due(0, end, every), "was done before the resume"),
        (lambda start, end, every: due(start, end, every) or [end], "no step left"),
    ],
    "check_judged": [
        (one_more, "no window fits"),
        (never_one, "exactly one window fits"),
        (lambda n, T, u: judged(n, T, u, skip=0), "judged twice"),
        (lambda n, T, u: judged(n, T, u, stride=T), "gaps"),
        (lambda n, T, u: judged(n, T, u, shift=0), "list the inputs"),
        (lambda n, T, u: judged(n, T, u, fits=T), "does not exist"),
        (lambda n, T, u: judged(n, T, 0), "context only"),
    ],
    "check_spike": [
        (at_least, "exactly mean + limit"),
        (lambda *a: spike(*a, least=21), "20 calm losses are enough"),
        (lambda *a: spike(*a, least=10), "fewer than 20"),
        (lambda *a: spike(*a, keep=True), "lift your mean"),
        (lambda losses, limit, patience: spike(losses, limit, 1), "one odd batch"),
        (lambda *a: spike(*a, total=True), "none after another"),
        (lambda losses, limit, patience: spike(losses, limit, 4), "four high steps"),
        (lambda *a: spike(*a, end=True), "where the spike began"),
        (lambda *a: None, "expected"),
        (lambda losses, limit, patience: spike(losses, 0.0, patience), "you answered"),
    ],
    "check_first_windows": [
        (lambda s, n, T, b, r, W: s * n // T + r * b, "return a list"),
        (lambda s, n, T, b, r, W: [s * n // T + r * b + i for i in range(b * W)], "too many"),
        (
            lambda s, n, T, b, r, W: first(s, n, T, b, r, W) if s else list(range(1, b + 1)),
            "has not begun",
        ),
        (lambda *a: first(*a, jump=0), "every rank reads the same"),
        (lambda s, n, T, b, r, W: first(s, n, T, b, r, W, jump=r), "neighbours share"),
        (lambda s, n, T, b, r, W: first(s, n, T, b, r, W, at=s * n // T + b * W), "read ahead"),
        (lambda s, n, T, b, r, W: first(s, n, T, b, r, W, at=s * b * W), "not one micro-batch"),
        (lambda s, n, T, b, r, W: first(s, n, T, b, r, W, at=s * n), "counted tokens"),
    ],
}

RIGHT = {
    "check_micro_batches": [
        refusing,
        by_remainder,
        lambda *a: micro_batches(*a, error=Refused),
    ],
    "check_due_steps": [looped, sets, yielded],
    "check_judged": [
        walked,
        with_numpy,
        lambda n, T, u: [range(a + u + 1, a + T + 1) for a in range(0, n - T + 1, T - u)],
    ],
    "check_spike": [with_mean, with_total, with_array],
    "check_first_windows": [
        lambda s, n, T, b, r, W: [s * (n // T) + r * b + i for i in range(b)],
        lambda s, n, T, b, r, W: np.arange(b) + r * b + s * n // T,
        lambda s, n, T, b, r, W: range(s * n // T + r * b, s * n // T + (r + 1) * b),
    ],
}
