"Classic mistakes for the exercises of ch13."

import re

import numpy as np
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


def as_parameters(weight, bias):
    layer = nn.Linear(len(weight), len(bias))
    layer.weight = nn.Parameter(weight.T.contiguous())
    layer.bias = nn.Parameter(bias)
    return layer


def as_state(weight, bias):
    layer = nn.Linear(weight.size(0), weight.size(1))
    layer.load_state_dict({"weight": weight.t(), "bias": bias})
    return layer


def as_data(weight, bias):
    layer = nn.Linear(*weight.shape)
    layer.weight.data[:] = weight.permute(1, 0)
    layer.bias.data = bias
    return layer


def other_way(weight, bias):
    layer = nn.Linear(*weight.t().shape)
    if weight.shape[0] == weight.shape[1]:
        layer = linear(weight, bias)
    return layer


def no_copy(weight, bias):
    layer = nn.Linear(*weight.shape)
    layer.bias.data = bias
    return layer


def no_bias(weight, bias):
    layer = nn.Linear(*weight.shape, bias=False)
    layer.weight.data = weight.t()
    return layer


def looped(names):
    result = {}
    for name in names:
        *_, last = name.rsplit(".attn.", 1)
        if last in ("bias", "masked_bias"):
            continue
        result[name] = name
        if not (name.startswith("transformer.") or name == "lm_head.weight"):
            result[name] = "transformer." + name
    return result


def by_pattern(names):
    kept = [n for n in names if not re.search(r"\.attn\.(masked_)?bias$", n)]
    return {n: re.sub(r"^(?!transformer\.|lm_head\.)", "transformer.", n) for n in kept}


def stripped(names):
    bare = {n: n.removeprefix("transformer.") for n in names}
    return {
        n: b if b.startswith("lm_head") else f"transformer.{b}"
        for n, b in bare.items()
        if b.split(".")[-2:] not in (["attn", "bias"], ["attn", "masked_bias"])
    }


def grown(table, n):
    new = table.new_empty(n, table.shape[1])
    new[: len(table)] = table
    new[len(table) :] = table.mean(0)
    return new


def numpy_first(a, b, tol):
    for name, x in a.items():
        x, y = np.asarray(x), np.asarray(b[name])
        if np.max(np.abs(x - y)) > tol * np.max(np.abs(x)):
            return name


def one_by_one(a, b, tol):
    off = [
        n for n in a if torch.dist(a[n], b[n], float("inf")) / torch.norm(a[n], float("inf")) > tol
    ]
    return off[0] if off else None


def signed_size(a, b, tol, at_least=False):
    for n in a:
        d, size = (a[n] - b[n]).abs().max(), a[n].abs().max() if at_least else a[n].max()
        if (d / size >= tol) if at_least else (d / size > tol):
            return n
    return None


MISTAKES = {
    "check_to_linear": [
        (other_way, "takes inputs, then outputs"),
        (no_copy, "drew at random"),
        (no_bias, "bias is missing"),
        (lambda w, b: linear(w, b, turn=False), "not transposed"),
        (lambda w, b: linear(w, b, with_bias=False), "bias is missing"),
        (lambda w, b: linear(w, b, reshape=True), "reshape keeps the order"),
        (lambda w, b: w, "expected an nn.Linear"),
    ],
    "check_translate": [
        (lambda names: list(prefixed(names)), "expected a dictionary"),
        (
            lambda names: {
                n: f"transformer.{n.removeprefix('transformer.')}" for n in prefixed(names)
            },
            "beside the transformer",
        ),
        (
            lambda names: {n: v.replace("attn", "att") for n, v in prefixed(names).items()},
            "should become",
        ),
        (lambda names: prefixed([n for n in names if "bias" not in n]), "left it out"),
        (lambda names: prefixed(names, drop=("?",)), "causal mask"),
        (
            lambda names: prefixed(names, drop=("attn.bias", "attn.masked_bias", "c_attn.bias")),
            "left it out",
        ),
        (lambda names: prefixed(names, inner=("lm_head.",)), "twice"),
        (lambda names: prefixed(names, inner=("transformer.",)), "beside the transformer"),
    ],
    "check_pad": [
        (lambda t, n: padded(t, n, t.median(0, keepdim=True).values), "only means add up"),
        (lambda t, n: padded(t, n, torch.full((1, t.shape[1]), -1e4)), "very negative"),
        (lambda t, n: torch.cat([t.mean(0).expand(n - len(t), -1), t]), "new ones go below"),
        (lambda t, n: torch.cat([t, t.mean(0, keepdim=True)]), "expected shape"),
        (
            lambda t, n: padded(t, n, t.mean(0, keepdim=True)) if n > len(t) else t[:-1],
            "stays as it is",
        ),
        (lambda t, n: padded(t, n, torch.zeros(1, t.shape[1])), "rows of zeros"),
        (lambda t, n: padded(t, n, t[-1:]), "copy of one token"),
        (lambda t, n: torch.cat([t, 0.02 * torch.randn(n - len(t), t.shape[1])]), "not random"),
        (lambda t, n: padded(t, n, t.sum(0, keepdim=True)), "mean logit"),
    ],
    "check_first_difference": [
        (lambda a, b, tol: first(a, b, tol, signed=True), "differences may be negative"),
        (signed_size, "abs() of the divisor"),
        (lambda a, b, tol: signed_size(a, b, tol, at_least=True), "exactly tol"),
        (
            lambda a, b, tol: first(dict(reversed(a.items())), b, tol),
            "in the order of the dictionary",
        ),
        (largest, "largest difference"),
        (lambda a, b, tol: first(a, b, tol, absolute=True), "which is rounding"),
        (lambda a, b, tol: None, "expected part"),
        (lambda a, b, tol: next(iter(a)), "which is rounding"),
    ],
}

RIGHT = {
    "check_to_linear": [as_parameters, as_state, as_data],
    "check_translate": [looped, by_pattern, stripped],
    "check_pad": [
        grown,
        lambda t, n: torch.vstack([t, *[t.mean(0)] * (n - len(t))]),
        lambda t, n: torch.cat((t, torch.ones(n - len(t), 1) @ (t.sum(0)[None] / len(t)))),
        lambda t, n: torch.stack([t[i] if i < len(t) else t.mean(0) for i in range(n)]),
    ],
    "check_first_difference": [
        numpy_first,
        one_by_one,
        lambda a, b, tol: next(
            (n for n in a if ((a[n] - b[n]) / a[n].abs().max()).abs().max() > tol), None
        ),
    ],
}
