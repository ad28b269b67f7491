"Classic mistakes for the exercises of ch08."

import math

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


MISTAKES = {
    "check_layer_norm": [
        (lambda x, g, b: norm(x, g, b, inside=0, outside=1e-5), "outside the square root"),
        (lambda x, g, b: norm(x, g, b, unbiased=True), "divided by C - 1"),
        (lambda x, g, b: norm(x, g, b, centre=False), "mean is not taken off"),
        (lambda x, g, b: norm(x, g, b, root=False), "square root is missing"),
        (lambda x, g, b: norm(x, g, b, dim=1), "over time"),
        (lambda x, g, b: norm(x, 1, 0), "gain and bias are missing"),
    ],
    "check_gelu": [
        (F.gelu, "exact GELU"),
        (lambda x: x * torch.sigmoid(1.702 * x), "sigmoid form"),
        (lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * x)), "cubic term"),
        (lambda x: 2 * F.gelu(x, approximate="tanh"), "one half"),
    ],
    "check_block": [
        (post_norm, "norm on the stream"),
        (lambda x, ln_1, attn, ln_2, mlp: mlp(ln_2(attn(ln_1(x)))), "residual is missing"),
        (lambda x, ln_1, attn, ln_2, mlp: x + attn(ln_1(x)) + mlp(ln_2(x)), "before attention"),
        (on_the_copy, "added to the normalised copy"),
    ],
    "check_init_std": [
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
