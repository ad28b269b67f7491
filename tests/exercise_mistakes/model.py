"Classic mistakes for the exercises of ch09."

import math

import numpy as np
import torch
from torch.nn import functional as F


def norm(x, gain, bias, dim=-1, centre=True, unbiased=False, inside=1e-5, outside=0.0, root=True):
    var = x.var(dim, keepdim=True, unbiased=unbiased) + inside
    return (x - x.mean(dim, keepdim=True) * centre) / (
        (var.sqrt() if root else var) + outside
    ) * gain + bias


def total(L, C, T, V, head=0, ln_f=1, bias=1, ln=1, wpe=1):
    block = 12 * C * C + 9 * C * bias + 4 * C * ln
    return V * C * (1 + head) + T * C * wpe + L * block + 2 * C * ln_f


def post_norm(x, ln_1, attn, ln_2, mlp):
    x = ln_1(x + attn(x))
    return ln_2(x + mlp(x))


def on_the_copy(x, ln_1, attn, ln_2, mlp):
    x = ln_1(x)
    x = ln_2(x + attn(x))
    return x + mlp(x)


def by_hand(x, gain, bias):
    mean = x.sum(-1, keepdim=True) / x.shape[-1]
    var = ((x - mean) ** 2).sum(-1, keepdim=True) / x.shape[-1]
    return gain * (x - mean) * torch.rsqrt(var + 1e-5) + bias


def in_place(x, gain, bias):
    x -= x.mean(-1, keepdim=True)
    x /= (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    x *= gain
    x += bias
    return x


def with_var_mean(x, gain, bias):
    var, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
    return (x - mean) / (var + 1e-5) ** 0.5 * gain + bias


def tanh_form(x, c=0.044715, k=(2 / math.pi) ** 0.5, power=3, one=1):
    return 0.5 * x * (one + torch.tanh(k * (x + c * x**power)))


def by_exp(x):
    y = 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    return x / (1 + torch.exp(-y))


def by_sigmoid(x):
    return x * torch.sigmoid(1.5957691216057308 * x * (1 + 0.044715 * x.square()))


def added(x, ln_1, attn, ln_2, mlp):
    x += attn(ln_1(x))
    x += mlp(ln_2(x))
    return x


def no_norms(x, ln_1, attn, ln_2, mlp):
    x = x + attn(x)
    return x + mlp(x)


def mlp_first(x, ln_1, attn, ln_2, mlp):
    x = x + mlp(ln_2(x))
    return x + attn(ln_1(x))


def named(x, ln_1, attn, ln_2, mlp):
    found = attn(ln_1(x))
    return x + found + mlp(ln_2(x + found))


def summed(x, ln_1, attn, ln_2, mlp):
    for norm_, part in ((ln_1, attn), (ln_2, mlp)):
        x = torch.add(x, part(norm_(x)))
    return x


def std(name, n, end="c_proj.weight", wpe=0.02, small=None):
    if "wpe" in name:
        return wpe
    return (small or 0.02 / math.sqrt(2 * n)) if name.endswith(end) else 0.02


def counted(L, C, T, V):
    shapes = [(V, C), (T, C), (C,), (C,)]
    for _ in range(L):
        shapes += [(C,)] * 4 + [
            (C, 3 * C),
            (3 * C,),
            (C, C),
            (C,),
            (C, 4 * C),
            (4 * C,),
            (4 * C, C),
            (C,),
        ]
    return sum(math.prod(s) for s in shapes)


MISTAKES = {
    "check_layer_norm": [
        (lambda x, g, b: norm(x, g, b, inside=0), "epsilon is missing"),
        (lambda x, g, b: norm(x, g, b, inside=1e-8), "epsilon is too small"),
        (lambda x, g, b: norm(x, g, b, inside=0, outside=1e-5), "outside the square root"),
        (lambda x, g, b: norm(x, g, b, unbiased=True), "divided by C - 1"),
        (lambda x, g, b: norm(x, g, b, centre=False), "mean is not taken off"),
        (lambda x, g, b: norm(x, g, b, root=False), "square root is missing"),
        (lambda x, g, b: norm(x, g, b, dim=1), "over time"),
        (lambda x, g, b: norm(x, 1, 0), "gain and bias are missing"),
    ],
    "check_gelu": [
        (lambda x: tanh_form(x, c=0.0447), "with all its digits"),
        (lambda x: tanh_form(x, k=math.sqrt(math.pi / 2)), "square root of 2 / pi"),
        (lambda x: tanh_form(x, power=2), "third power"),
        (lambda x: tanh_form(x, one=0), "the 1 before tanh"),
        (lambda x: F.gelu(x, approximate="tanh"), "write the formula yourself"),
        (F.gelu, "exact GELU"),
        (lambda x: x * torch.sigmoid(1.702 * x), "sigmoid form"),
        (lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * x)), "cubic term"),
        (lambda x: 2 * F.gelu(x, approximate="tanh"), "one half"),
    ],
    "check_block": [
        (no_norms, "a norm is missing"),
        (mlp_first, "the MLP came first"),
        (lambda x, ln_1, attn, ln_2, mlp: x + mlp(ln_2(attn(ln_1(x)))), "expected x + attn"),
        (post_norm, "norm on the stream"),
        (lambda x, ln_1, attn, ln_2, mlp: mlp(ln_2(attn(ln_1(x)))), "residual is missing"),
        (lambda x, ln_1, attn, ln_2, mlp: x + attn(ln_1(x)) + mlp(ln_2(x)), "before attention"),
        (on_the_copy, "added to the normalised copy"),
    ],
    "check_init_std": [
        (lambda name, n: std(name, n, wpe=0.01), "wpe.weight does not add"),
        (lambda name, n: std(name, n, end="attn.c_proj.weight"), "should start smaller"),
        (lambda name, n: 0.01 if "c_attn" in name else std(name, n), "c_attn.weight does not add"),
        (lambda name, n: std(name, n, small=0.003), "layers should start at"),
        (
            lambda name, n: std(name, n) if "h.11." not in name else 0.02,
            "h.11.mlp.c_proj.weight writes",
        ),
        (lambda name, n: 0.02, "should start smaller"),
        (
            lambda name, n: 0.02 / math.sqrt(n) if "c_proj" in name else 0.02,
            "each block adds twice",
        ),
        (lambda name, n: 0.02 / (2 * n) if "c_proj" in name else 0.02, "variances add"),
        (lambda name, n: 0.02 / math.sqrt(2 * n), "does not add to the stream"),
    ],
    "check_count": [
        (lambda *a: total(*a, head=1), "head is tied"),
        (lambda *a: total(*a, ln_f=0), "ln_f is missing"),
        (lambda *a: total(*a, bias=0), "biases of the linear layers"),
        (lambda *a: total(*a, ln=0), "LayerNorms are missing"),
        (lambda *a: total(*a, wpe=0), "position embeddings are missing"),
    ],
}

RIGHT = {
    "check_layer_norm": [by_hand, in_place, with_var_mean, lambda x, g, b: norm(x, g, b)],
    "check_gelu": [tanh_form, by_exp, by_sigmoid, lambda x: tanh_form(x, k=0.7978845608)],
    "check_block": [added, named, summed],
    "check_init_std": [
        std,
        lambda name, n: 0.02 * (2 * n) ** -0.5 if "c_proj" in name else 0.02,
        lambda name, n: 0.02 / (math.sqrt(2 * n) if name.split(".")[-2] == "c_proj" else 1.0),
        lambda name, n: {"c_proj": 0.02 / math.sqrt(n) / math.sqrt(2)}.get(
            name.split(".")[-2], 0.02
        ),
    ],
    "check_count": [
        counted,
        lambda L, C, T, V: V * C + T * C + L * (12 * C**2 + 13 * C) + 2 * C,
        lambda L, C, T, V: C * (V + T + 2 + L * (12 * C + 13)),
        lambda L, C, T, V: np.int64(total(L, C, T, V)),
    ],
}
