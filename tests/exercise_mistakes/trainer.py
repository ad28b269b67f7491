"Classic mistakes for the exercises of ch18."


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
        (lambda n, T, u: judged(n, T, u, skip=0), "judged twice"),
        (lambda n, T, u: judged(n, T, u, stride=T), "gaps"),
        (lambda n, T, u: judged(n, T, u, shift=0), "list the inputs"),
        (lambda n, T, u: judged(n, T, u, fits=T), "does not exist"),
        (lambda n, T, u: judged(n, T, 0), "context only"),
    ],
    "check_spike": [
        (lambda losses, limit, patience: spike(losses, limit, 1), "one odd batch"),
        (lambda *a: spike(*a, total=True), "none after another"),
        (lambda losses, limit, patience: spike(losses, limit, 4), "four high steps"),
        (lambda *a: spike(*a, end=True), "where the spike began"),
        (lambda *a: None, "expected"),
        (lambda losses, limit, patience: spike(losses, 0.0, patience), "you answered"),
    ],
    "check_first_windows": [
        (lambda *a: first(*a, jump=0), "every rank reads the same"),
        (lambda s, n, T, b, r, W: first(s, n, T, b, r, W, jump=r), "neighbours share"),
        (lambda s, n, T, b, r, W: first(s, n, T, b, r, W, at=s * n // T + b * W), "read ahead"),
        (lambda s, n, T, b, r, W: first(s, n, T, b, r, W, at=s * b * W), "not one micro-batch"),
        (lambda s, n, T, b, r, W: first(s, n, T, b, r, W, at=s * n), "counted tokens"),
    ],
}
