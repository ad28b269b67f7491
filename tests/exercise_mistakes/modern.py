"Classic mistakes for the exercises of ch26."

import math

import torch
from torch.nn import functional as F


def rotate(x, t, sign=1, power=2, base=10_000.0, near=False, same=False):
    hs = len(x)
    out = torch.zeros_like(x)
    for i in range(hs // 2):
        j, k = (2 * i, 2 * i + 1) if near else (i, i + hs // 2)
        angle = sign * t * (1.0 if same else base ** (-power * i / hs))
        cos, sin = math.cos(angle), math.sin(angle)
        out[j] = x[j] * cos - x[k] * sin
        out[k] = x[k] * cos + x[j] * sin
    return out


def by_halves(x, t):
    half = len(x) // 2
    angle = t / 10_000 ** (2 * torch.arange(half) / len(x)).double()
    swapped = torch.cat([-x[half:], x[:half]])
    return x * torch.cat([angle, angle]).cos() + swapped * torch.cat([angle, angle]).sin()


def by_complex(x, t):
    half = len(x) // 2
    points = torch.complex(x[:half], x[half:])
    angle = t * torch.exp(-math.log(10_000) * torch.arange(half) / half).double()
    y = points * torch.polar(torch.ones(half).double(), angle)
    return torch.cat([y.real, y.imag])


def both_plus(x, t):
    half = len(x) // 2
    angle = t * (10_000 ** (-2 * torch.arange(half) / len(x))).double()
    a, b = x[:half], x[half:]
    return torch.cat([a * angle.cos() + b * angle.sin(), b * angle.cos() + a * angle.sin()])


def rms(x, gain, inside=1e-5, outside=0.0, root=True, centre=False, total=False, dim=-1):
    x = x - x.mean(-1, keepdim=True) * centre
    square = x.pow(2).sum(dim, keepdim=True) if total else x.pow(2).mean(dim, keepdim=True)
    square = square + inside
    return x / ((square.sqrt() if root else square) + outside) * gain


def in_place(x, gain):
    x *= torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5)
    x *= gain
    return x


def by_loop(x, gain):
    flat = x.reshape(-1, x.shape[-1])
    rows = [row / math.sqrt(float((row * row).mean()) + 1e-5) * gain for row in flat]
    return torch.stack(rows).view_as(x)


def cache(L, C, nh, nkv, T, width, kinds=2):
    return kinds * L * nkv * (C // nh) * T * width


def named(n_layer, n_embd, n_head, n_kv_head, T, width):
    hs = n_embd / n_head
    keys = T * n_kv_head * hs * width
    return n_layer * (keys + keys)


RIGHT = {
    "check_rotate": [rotate, by_halves, by_complex],
    "check_rms_norm": [rms, in_place, by_loop],
    "check_swiglu": [
        lambda x, g, u, d: (F.silu(x @ g) * (x @ u)) @ d,
        lambda x, g, u, d: ((x @ g) * torch.sigmoid(x @ g) * (x @ u)) @ d,
        lambda x, g, u, d: torch.einsum("nh,nh,hc->nc", F.silu(x @ g), x @ u, d),
    ],
    "check_cache_bytes": [
        cache,
        named,
        lambda L, C, nh, nkv, T, w: sum(2 * T * C * nkv // nh * w for _ in range(L)),
    ],
}
MISTAKES = {
    "check_rotate": [
        (lambda x, t: rotate(x, t, near=True), "you paired neighbours"),
        (lambda x, t: rotate(x, t, sign=-1), "turned the other way"),
        (lambda x, t: rotate(x, t, power=1), "falls half as fast"),
        (lambda x, t: rotate(x, t + 1), "positions begin at 0"),
        (lambda x, t: rotate(x, 1), "does not depend on t"),
        (lambda x, t: rotate(x, t, same=True), "the same angle"),
        (both_plus, "the length of x changed"),
        (lambda x, t: rotate(x, t, base=1000.0), "should begin"),
    ],
    "check_rms_norm": [
        (lambda x, g: rms(x, g, centre=True), "that is a LayerNorm"),
        (lambda x, g: rms(x, g, inside=0.0), "epsilon is missing"),
        (lambda x, g: rms(x, g, inside=0.0, outside=1e-5), "inside the square root"),
        (lambda x, g: rms(x, g, root=False), "the square root is missing"),
        (lambda x, g: rms(x, g, total=True), "the sum of the squares"),
        (lambda x, g: rms(x, g, dim=(0, 1, 2)), "each position has its own"),
        (lambda x, g: rms(x, 1.0), "the gain is missing"),
        (lambda x, g: rms(x, g, inside=1e-6), "position 0 of text 0 should be"),
        (lambda x, g: F.rms_norm(x, (6,), g, 1e-5), "PyTorch computed it"),
    ],
    "check_swiglu": [
        (lambda x, g, u, d: ((x @ g) * F.silu(x @ u)) @ d, "silu belongs to the gate"),
        (lambda x, g, u, d: (torch.sigmoid(x @ g) * (x @ u)) @ d, "a plain gate"),
        (lambda x, g, u, d: (F.gelu(x @ g) * (x @ u)) @ d, "that gate is a GELU"),
        (lambda x, g, u, d: (F.silu(x @ g) + x @ u) @ d, "not added"),
        (lambda x, g, u, d: F.silu(x @ g) @ d, "one of the two products is missing"),
        (lambda x, g, u, d: F.silu((x @ g) * (x @ u)) @ d, "only the gate is bent"),
        (lambda x, g, u, d: F.silu(x @ g) * (x @ u), "the way back to width C"),
        (lambda x, g, u, d: (F.relu(x @ g) * (x @ u)) @ d, "row 0 should be"),
    ],
    "check_cache_bytes": [
        (lambda *a: cache(*a, kinds=1), "keys are kept, and values too"),
        (lambda L, C, nh, nkv, T, w: cache(L, C, nh, nh, T, w), "not n_head"),
        (lambda L, *a: cache(1, *a), "every layer has a cache"),
        (lambda L, C, nh, nkv, T, w: cache(L, C, nh, nkv, T, 1), "the number of numbers"),
        (lambda *a: 8 * cache(*a), "those are bits"),
        (lambda L, C, nh, nkv, T, w: cache(L, C, nh, nkv, 1, w), "that is one position"),
        (lambda L, C, nh, nkv, T, w: cache(L, C, 1, nkv, T, w), "not n_embd"),
        (lambda *a: cache(*a) + 1, "take"),
    ],
}
