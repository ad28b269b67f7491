"Classic mistakes for the exercises of ch13."

import math


def decode(text, *, bias=15, hidden=1, sub_hidden=0, sub_exponent=1, minus="1"):
    sign, exponent, mantissa = text.split()
    e, fraction = int(exponent, 2), int(mantissa, 2) / 1024
    size = (
        (sub_hidden + fraction) * 2.0 ** (sub_exponent - 15)
        if e == 0
        else (hidden + fraction) * 2.0 ** (e - bias)
    )
    return -size if sign == minus else size


def merge(a, b, *, add_m=False, shrink_s=True, shrink_o=True, divide=False):
    m = max(a[0], b[0])
    fa, fb = math.exp(a[0] - m), math.exp(b[0] - m)
    s = a[1] * fa + b[1] * fb if shrink_s else a[1] + b[1]
    o = a[2] * fa + b[2] * fb if shrink_o else a[2] + b[2]
    return (a[0] + b[0] if add_m else m), s, (o / s if divide else o)


def scaler(scale, good, overflow, interval, *, step=False, factor=0.5, keep=False, regrow=0):
    if overflow:
        return step, scale * factor, good if keep else 0
    if good + 1 == interval:
        return True, scale * 2, regrow
    return True, scale, good + 1


MISTAKES = {
    "check_decode": [
        (lambda t: decode(t, hidden=0), "hidden 1 before the mantissa is missing"),
        (lambda t: decode(t, bias=127), "127 is the bias of fp32"),
        (lambda t: decode(t, sub_hidden=1, sub_exponent=0), "is subnormal: there is no hidden 1"),
        (lambda t: decode(t, sub_exponent=0), "counts as 1, not 0"),
        (lambda t: decode(t, minus="0"), "other sign"),
    ],
    "check_round_bf16": [
        (lambda w: w >> 16, "cut the lower half off"),
        (lambda w: (w + 0x8000) >> 16, "ties go to the even neighbour"),
        (lambda w: (w + 0x7FFF) >> 16, "ties go to the even neighbour"),
        (lambda w: w & 0xFFFF, "should give"),
    ],
    "check_next_scale": [
        (lambda *a: scaler(*a, step=True), "let the optimiser use them"),
        (lambda *a: scaler(*a, factor=1), "the scale must fall"),
        (lambda *a: scaler(*a, keep=True), "ends the row of good steps"),
        (lambda *a: scaler(*a, regrow=a[1] + 1), "after doubling the count starts at 0"),
        (lambda s, g, o, i: (not o, s / 2 if o else s * 2, 0), "a good step in the middle"),
    ],
    "check_merge_tiles": [
        (lambda a, b: merge(a, b, add_m=True), "not the sum of two largest"),
        (lambda a, b: merge(a, b, shrink_s=False, shrink_o=False), "different m"),
        (lambda a, b: merge(a, b, shrink_o=False), "shrunk by the same factors"),
        (lambda a, b: merge(a, b, divide=True), "at the very end"),
        (lambda a, b: a, "expected (m, s, o)"),
    ],
}
