"Classic mistakes for the exercises of ch14."

import math
import struct

import numpy as np


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


def bits(text):
    word = int(text.replace(" ", ""), 2)
    return struct.unpack("<e", word.to_bytes(2, "little"))[0]


def by_parts(text):
    s, e, m = (int(part, 2) for part in text.split())
    e, m = (e, m + 1024) if e else (1, m)
    return (-1) ** s * m * 2.0 ** (e - 25)


def no_zero(text):
    return by_parts(text) or 2.0**-24


def largest_is_inf(text):
    return math.inf if text[2:7] == "11110" and "0" not in text[8:] else decode(text)


def merged(a, b):
    m = np.maximum(a[0], b[0])
    fa, fb = np.exp(a[0] - m), np.exp(b[0] - m)
    return [m, fa * a[1] + fb * b[1], fa * a[2] + fb * b[2]]


def one_rescaled(a, b):
    (m1, s1, o1), (m2, s2, o2) = sorted([a, b])
    f = math.exp(m1 - m2)
    return m2, s2 + f * s1, o2 + f * o1


def many(a, b):
    m = max(t[0] for t in (a, b))
    return (m, *(sum(t[i] * math.exp(t[0] - m) for t in (a, b)) for i in (1, 2)))


def raw(a, b):
    m = max(a[0], b[0])
    return m, *((a[i] * math.exp(a[0]) + b[i] * math.exp(b[0])) / math.exp(m) for i in (1, 2))


def wrong_sign(a, b):
    m = max(a[0], b[0])
    return m, *(a[i] * math.exp(m - a[0]) + b[i] * math.exp(m - b[0]) for i in (1, 2))


def by_min(a, b):
    m = min(a[0], b[0])
    return m, *(a[i] * math.exp(a[0] - m) + b[i] * math.exp(b[0] - m) for i in (1, 2))


def counted(scale, good, overflow, interval):
    good = 0 if overflow else good + 1
    factor = 0.5 if overflow else 2.0 if good == interval else 1.0
    return not overflow, scale * factor, good % interval


def listed(scale, good, overflow, interval):
    if overflow:
        return [False, scale * 0.5, 0]
    double = (good + 1) % interval == 0
    return [True, scale * (1 + double), 0 if double else good + 1]


def matched(scale, good, overflow, interval):
    match overflow, good + 1 >= interval:
        case True, _:
            return 0, scale / 2, 0
        case False, True:
            return 1, 2 * scale, 0
    return 1, scale, good + 1


MISTAKES = {
    "check_decode": [
        (lambda t: abs(decode(t)), "minus"),
        (
            lambda t: (
                decode(t)
                if t[2:7] == "00000"
                else decode(t, hidden=1) * (1 + int(t[8:], 2) / 512) / (1 + int(t[8:], 2) / 1024)
            ),
            "1024ths",
        ),
        (no_zero, "at the border"),
        (largest_is_inf, "at the border"),
        (lambda t: decode(t, hidden=0), "hidden 1 before the mantissa is missing"),
        (lambda t: decode(t, bias=127), "127 is the bias of fp32"),
        (lambda t: decode(t, sub_hidden=1, sub_exponent=0), "is subnormal: its hidden digit is 0"),
        (lambda t: decode(t, sub_exponent=0), "counts as 1, not 0"),
        (lambda t: decode(t, minus="0"), "other sign"),
    ],
    "check_round_bf16": [
        (lambda w: (w >> 16) + 1, "you always round up"),
        (lambda w: (w + 0x7FFF + (w >> 16 & 1)) & 0xFFFF0000, "shift it down"),
        (lambda w: w >> 16, "cut the lower half off"),
        (lambda w: (w + 0x8000) >> 16, "ties go to the even neighbour"),
        (lambda w: (w + 0x7FFF) >> 16, "ties go to the even neighbour"),
        (lambda w: w & 0xFFFF, "should give"),
    ],
    "check_next_scale": [
        (lambda s, g, o, i: scaler(s, g, False, i), "you did not look at"),
        (
            lambda s, g, o, i: scaler(s, g - 1, o, i) if g else scaler(s, g, o, i),
            "completes the interval",
        ),
        (lambda *a: scaler(*a, factor=0.25), "should fall to"),
        (lambda *a: scaler(*a, step=True), "let the optimiser use them"),
        (lambda *a: scaler(*a, factor=1), "the scale must fall"),
        (lambda *a: scaler(*a, keep=True), "ends the row of good steps"),
        (lambda *a: scaler(*a, regrow=a[1] + 1), "after doubling the count starts at 0"),
        (lambda s, g, o, i: (not o, s / 2 if o else s * 2, 0), "a good step in the middle"),
    ],
    "check_merge_tiles": [
        (wrong_sign, "the wrong sign"),
        (by_min, "m is the larger"),
        (raw, "math range error"),
        (lambda a, b: b, "that is one of the two"),
        (lambda a, b: merge(a, b, add_m=True), "not the sum of two largest"),
        (lambda a, b: merge(a, b, shrink_s=False, shrink_o=False), "different m"),
        (lambda a, b: merge(a, b, shrink_o=False), "shrunk by the same factors"),
        (lambda a, b: merge(a, b, divide=True), "at the very end"),
        (lambda a, b: a, "one of the two halves"),
    ],
}

RIGHT = {
    "check_decode": [
        bits,
        by_parts,
        lambda t: float(np.array(int(t.replace(" ", ""), 2), "u2").view("f2")),
    ],
    "check_round_bf16": [
        lambda w: (w + 0x7FFF + (w >> 16 & 1)) >> 16,
        lambda w: round(w / 0x10000),
        lambda w: (w >> 16) + ((w & 0xFFFF) + (w >> 16) % 2 > 0x8000),
    ],
    "check_next_scale": [counted, listed, matched],
    "check_merge_tiles": [merged, one_rescaled, many],
}
