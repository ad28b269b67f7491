"Classic mistakes for the exercises of ch21."

import math


def step_plan(n, total, B, T, gpus, up=False, ranks=True, context=True, check=True):
    at_once = (gpus if ranks else 1) * B * (T if context else 1)
    if check and total % at_once:
        raise ValueError
    return math.ceil(n / total) if up else n // total, total // at_once


def bill(tokens, flops, gpus, peak, share, price, seconds=False, per_gpu=False, together=False):
    t = tokens * flops / ((1 if together else gpus) * peak * share) / (1 if seconds else 3600)
    return t, t * price * (1 if per_gpu or together else gpus)


def off_track(
    events, points, tol, kind=("val",), pick=min, first=False, nan=True, both=False, missing=False
):
    losses = {}
    for e in events:
        if e["event"] in kind and not (first and e["step"] in losses):
            losses[e["step"]] = e["loss"]
    off = []
    for step, want in points.items():
        loss = losses.get(step, math.inf if missing else want)
        high = not loss <= want + tol if nan else loss > want + tol
        if high or (both and loss < want - tol):
            off.append(step)
    return pick(off, default=None)


MISTAKES = {
    "check_step_plan": [
        (lambda *a: step_plan(*a, up=True), "you rounded up"),
        (lambda *a: step_plan(*a, ranks=False), "of all GPUs together"),
        (lambda *a: step_plan(*a, context=False), "block_size has to enter"),
        (lambda *a: step_plan(*a, check=False), "raise ValueError"),
        (lambda *a: step_plan(*a)[::-1], "steps first"),
        (lambda n, total, *a: (n / total, step_plan(n, total, *a)[1]), "round down"),
    ],
    "check_bill": [
        (
            lambda t, f, g, peak, share, price: bill(t, f, g, peak, 1, price),
            "the share has to enter",
        ),
        (lambda t, f, g, peak, share, price: bill(t, f, g, peak, 1 / share, price), "divide by it"),
        (lambda *a: bill(*a, per_gpu=True), "price of one GPU"),
        (lambda *a: bill(*a, together=True), "GPU-hours"),
        (lambda *a: bill(*a, seconds=True), "those are seconds"),
    ],
    "check_off_track": [
        (lambda *a: off_track(*a, kind=("train", "val")), "look at `val` events only"),
        (lambda *a: off_track(*a, pick=max), "that is the last one"),
        (lambda *a: off_track(*a, first=True), "the later line"),
        (lambda *a: off_track(*a, nan=False), "nan compares as False"),
        (lambda *a: off_track(*a, both=True), "lower than published"),
        (lambda *a: off_track(*a, missing=True), "not come so far"),
    ],
}
