"Classic mistakes for the exercises of ch12."

import torch
from torch import nn


def linear(weight, bias, turn=True, reshape=False, with_bias=True):
    layer = nn.Linear(*weight.shape)
    with torch.no_grad():
        if reshape and weight.shape[0] != weight.shape[1]:
            layer.weight.copy_(weight.reshape(layer.weight.shape))
        else:
            layer.weight.copy_(weight.t() if turn else weight)
        layer.bias.copy_(bias if with_bias else torch.zeros_like(bias))
    return layer


def prefixed(names, drop=(".attn.bias", ".attn.masked_bias"), inner=("transformer.", "lm_head.")):
    return {
        n: n if n.startswith(inner) else f"transformer.{n}" for n in names if not n.endswith(drop)
    }


def padded(table, n, row):
    return torch.cat([table, row.expand(n - len(table), -1)])


def largest(a, b, tol):
    off = {n: ((a[n] - b[n]).abs().max() / a[n].abs().max()).item() for n in a}
    return max(off, key=off.get) if max(off.values()) > tol else None


def first(a, b, tol, absolute=False, signed=False):
    for n in a:
        d = (a[n] - b[n]) if signed else (a[n] - b[n]).abs()
        if d.max() / (1 if absolute else a[n].abs().max()) > tol:
            return n
    return None


MISTAKES = {
    "check_to_linear": [
        (lambda w, b: linear(w, b, turn=False), "not transposed"),
        (lambda w, b: linear(w, b, with_bias=False), "bias is missing"),
        (lambda w, b: linear(w, b, reshape=True), "reshape keeps the order"),
        (lambda w, b: w, "expected an nn.Linear"),
    ],
    "check_translate": [
        (lambda names: prefixed(names, drop=("?",)), "causal mask"),
        (
            lambda names: prefixed(names, drop=("attn.bias", "attn.masked_bias", "c_attn.bias")),
            "left it out",
        ),
        (lambda names: prefixed(names, inner=("lm_head.",)), "twice"),
        (lambda names: prefixed(names, inner=("transformer.",)), "beside the transformer"),
    ],
    "check_pad": [
        (lambda t, n: padded(t, n, torch.zeros(1, t.shape[1])), "rows of zeros"),
        (lambda t, n: padded(t, n, t[-1:]), "copy of one token"),
        (lambda t, n: torch.cat([t, 0.02 * torch.randn(n - len(t), t.shape[1])]), "not random"),
        (lambda t, n: padded(t, n, t.sum(0, keepdim=True)), "mean logit"),
    ],
    "check_first_difference": [
        (largest, "largest difference"),
        (lambda a, b, tol: first(a, b, tol, absolute=True), "which is rounding"),
        (lambda a, b, tol: None, "expected part"),
        (lambda a, b, tol: next(iter(a)), "which is rounding"),
    ],
}
