"Classic mistakes for the exercises of ch22."

import math

import numpy as np


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


def by_divmod(n, total, B, T, gpus):
    micro, rest = divmod(total, gpus * B * T)
    if rest:
        raise ValueError(f"{rest} tokens are left over")
    return [n // total, micro]


def by_int(n, total, B, T, gpus):
    micro = total / gpus / B / T
    if not micro.is_integer():
        raise ValueError(micro)
    return int(n / total), int(micro)


def by_windows(n, total, B, T, gpus):
    if total % T or (total // T) % B or (total // T // B) % gpus:
        raise ValueError("not even")
    return math.floor(n / total), total // T // B // gpus


def in_order(events, points, tolerance):
    latest = {}
    for e in events:
        if e["event"] == "val":
            latest[e["step"]] = e["loss"]
    for step in sorted(points):
        if step in latest and not latest[step] - points[step] <= tolerance:
            return step
    return None


def with_isnan(events, points, tolerance):
    vals = {e["step"]: e["loss"] for e in events if e.get("event") == "val"}
    off = [
        s
        for s, p in points.items()
        if s in vals and (math.isnan(vals[s]) or vals[s] > p + tolerance)
    ]
    return sorted(off)[0] if off else None


def from_behind(events, points, tolerance):
    seen, off = set(), []
    for e in reversed(list(events)):
        if e["event"] == "val" and e["step"] not in seen:
            seen.add(e["step"])
            if e["step"] in points and not e["loss"] <= points[e["step"]] + tolerance:
                off.append(e["step"])
    return min(off) if off else None


MISTAKES = {
    "check_step_plan": [
        (
            lambda n, total, B, T, gpus: (n // (gpus * B * T), step_plan(n, total, B, T, gpus)[1]),
            "micro-batches in the run",
        ),
        (lambda *a: step_plan(*a)[0], "two numbers are wanted"),
        (lambda n, total, *a: (max(1, n // total), step_plan(n, total, *a)[1]), "makes no step"),
        (lambda *a: step_plan(*a, up=True), "you rounded up"),
        (lambda *a: step_plan(*a, ranks=False), "of all GPUs together"),
        (lambda *a: step_plan(*a, context=False), "block_size has to enter"),
        (lambda *a: step_plan(*a, check=False), "raise ValueError"),
        (lambda *a: step_plan(*a)[::-1], "steps first"),
        (lambda n, total, *a: (n / total, step_plan(n, total, *a)[1]), "round down"),
    ],
    "check_bill": [
        (lambda t, f, g, peak, share, price: bill(t, 1, g, peak, share, price), "expected"),
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
        (lambda e, p, tol: off_track(e, p, tol - 1e-9), "still on track"),
        (
            lambda e, p, tol: (
                off_track(e, p, tol, pick=lambda off, default: off[0] if off else None)
                if len(p) != 2
                else None
            ),
            "is 1.25 too high",
        ),
        (lambda e, p, tol: off_track(e, p, 0.5), "is 0.3 too high"),
        (lambda *a: off_track(*a, kind=("train", "val")), "look at `val` events only"),
        (lambda *a: off_track(*a, pick=max), "that is the last one"),
        (lambda *a: off_track(*a, first=True), "the later line"),
        (lambda *a: off_track(*a, nan=False), "nan compares as False"),
        (lambda *a: off_track(*a, both=True), "lower than published"),
        (lambda *a: off_track(*a, missing=True), "not come so far"),
    ],
}

RIGHT = {
    "check_step_plan": [by_divmod, by_int, by_windows],
    "check_bill": [
        lambda t, f, g, peak, share, price: [
            t * f / (g * peak * share) / 3600,
            t * f / (peak * share) / 3600 * price,
        ],
        lambda t, f, g, peak, share, price: np.array([1 / g, price]) * t * f / peak / share / 3600,
        lambda *a: bill(*a),
    ],
    "check_off_track": [in_order, with_isnan, from_behind],
}
