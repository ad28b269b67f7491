"""Checks for the exercises of ch13."""

# Made by tools/book.py from ../../book/exercises/openai_weights.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_to_linear', 'check_translate', 'check_pad', 'check_first_difference']

# %% ../../nbs/exercises/openai_weights.ipynb #104784f4
import random

import torch
from torch import nn

from gpt2edu.exercises.core import close, exercise, fail
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/openai_weights.ipynb #ac1fb9af
quiz = Quiz(
    Question(
        "You forget to transpose `attn.c_proj` when you load OpenAI's weights. What happens?",
        right=(
            "the model loads, and its logits are wrong",
            "The matrix is square, so no shape reveals it; only a comparison of numbers does.",
        ),
        wrong=(
            (
                "loading stops, for the two shapes do not fit",
                "That holds for the other three matrices of a block. This one is square.",
            ),
            (
                "nothing: a square matrix equals its transpose",
                "Only a symmetric one does. Equal sides do not make it symmetric.",
            ),
        ),
    ),
    Question(
        "Published weights have 50,257 rows, and training wants 50,304. "
        "Why are the new rows not filled with zeros?",
        right=(
            "their logit would be 0, and others may be near -30",
            "Softmax compares: beside logits of -30, a logit of 0 takes nearly everything.",
        ),
        wrong=(
            (
                "training could never move them away from zero",
                "Their gradient is not zero, since each of them takes part in the softmax.",
            ),
            (
                "generation would then sample an id without text",
                "`generate` cuts padded ids off, whatever they hold. The loss is what suffers.",
            ),
        ),
    ),
    Question(
        "Two models are compared part by part. "
        "Every part from `h.3.mlp.c_proj` on differs, none before. Where do you look?",
        right=(
            "at the step between `c_fc` and `c_proj`, and at `c_proj` itself",
            "`c_fc` agrees and `c_proj` does not, so the bug is in what lies between or in it.",
        ),
        wrong=(
            (
                "at the last part, where the difference has become the largest",
                "Everything after a bug differs too, and differences may grow on the way.",
            ),
            (
                "at block 4, since block 3 computed its attention without a mistake",
                "Block 3's MLP already gives other numbers, before block 4 has begun.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/openai_weights.ipynb #933c5197
@exercise(hint="`nn.Linear(n_in, n_out)` has a weight of shape (n_out, n_in): copy `weight.t()`.")
@torch.no_grad()
def check_to_linear(answer):
    "The layer computes x @ weight + bias."
    n = random.randint(3, 6)
    for n_in, n_out in ((n, n), (n, n + 2)):  # the square one first: there no shape helps
        weight = torch.randn(n_in, n_out)
        bias = torch.randn(n_out)
        x = torch.randn(5, n_in)
        layer = answer(weight, bias)
        if not isinstance(layer, nn.Linear):
            fail(f"expected an nn.Linear, got {type(layer).__name__}")
        if (layer.in_features, layer.out_features) != (n_in, n_out):
            fail(
                f"nn.Linear takes inputs, then outputs: expected nn.Linear({n_in}, {n_out}), "
                f"got nn.Linear({layer.in_features}, {layer.out_features})"
            )
        if tuple(layer.weight.shape) != (n_out, n_in):
            fail(f"a weight of shape {tuple(layer.weight.shape)} was put in: transpose it")
        got = layer(x)
        want = x @ weight + bias
        if n_in == n_out and close(got, x @ weight.t() + bias):
            fail("the weight is not transposed: in a square matrix no shape tells you")
        if layer.bias is None or close(got, x @ weight):
            fail("the bias is missing")
        if close(layer.weight, weight.reshape(n_out, n_in)) and n_in != n_out:
            fail("reshape keeps the order of the numbers: transpose with .t()")
        if not close(layer.weight, weight.t()) and close(layer.bias, bias):
            fail("the layer still has the weight that it drew at random: copy ours into it")
        if not close(got, want):
            fail(f"the first output should be {want[0, 0]:.4f}, got {got[0, 0]:.4f}")

# %% ../../nbs/exercises/openai_weights.ipynb #857c6cc0
@exercise(
    hint="Compare the end with '.attn.bias', the dot included: 'attn.c_attn.bias' ends otherwise."
)
def check_translate(answer):
    "Every weight has its name, and no buffer has one."
    i = random.randint(0, 9)
    weights = [
        f"h.{i}.attn.c_attn.bias",
        f"h.{i}.attn.c_proj.bias",
        f"h.{i}.mlp.c_fc.weight",
        f"h.{i}.ln_1.bias",
        "wte.weight",
        "ln_f.bias",
    ]
    buffers = [f"h.{i}.attn.bias", f"h.{i}.attn.masked_bias"]
    for prefix in ("", "transformer."):
        names = random.sample([prefix + n for n in weights + buffers] + ["lm_head.weight"], 9)
        want = {prefix + n: f"transformer.{n}" for n in weights} | {
            "lm_head.weight": "lm_head.weight"
        }
        got = answer(names)
        if not isinstance(got, dict):
            fail(f"expected a dictionary, got {type(got).__name__}")
        if kept := [n for n in got if n.endswith((".attn.bias", ".attn.masked_bias"))]:
            fail(f"{kept[0]} is the causal mask, no weight")
        if lost := [n for n in want if n not in got]:
            fail(f"{lost[0]} is a weight and you left it out")
        if any(v.startswith("transformer.transformer.") for v in got.values()):
            fail("the prefix is there twice: some checkpoints have it already")
        if got["lm_head.weight"] != "lm_head.weight":
            fail("lm_head is beside the transformer, not in it: no prefix")
        if got != want:
            wrong = next(n for n in want if got[n] != want[n])
            fail(f"{wrong} should become {want[wrong]}, got {got[wrong]}")

# %% ../../nbs/exercises/openai_weights.ipynb #f0145b78
@exercise(hint="A logit is x · row, so the mean of the rows has the mean of the logits.")
def check_pad(answer):
    "New rows have the mean logit: none can be likelier than an average token."
    V = random.randint(5, 9)
    C = random.randint(11, 14)
    n = random.randint(15, 20)
    table = torch.randn(V, C) + 1
    got = answer(table.clone(), n)
    if tuple(got.shape) != (n, C):
        fail(f"expected shape {(n, C)}, got {tuple(got.shape)}")
    if not close(got[:V], table):
        fail("the rows of the tokens have changed: new ones go below them")
    new = got[V:]
    if close(new, torch.zeros_like(new)):
        fail("rows of zeros have logit 0: when all others are at -30, they take everything")
    if close(new, table.median(0).values.expand_as(new)):
        fail("the median of the rows has no logit that is a median: only means add up")
    if new.max() < -100:
        fail("very negative numbers have a very high logit where the input is negative too")
    if close(new, table.sum(0).expand_as(new)):
        fail("the sum of the rows has V times the mean logit: divide by V")
    if close(new, table[-1].expand_as(new)) or close(new, table[0].expand_as(new)):
        fail("a copy of one token is as likely as that token: on some inputs that is very likely")
    if not close(new, new[:1].expand_as(new)):
        fail("the new rows differ: each should be the same, and not random")
    if not close(new[0], table.mean(0)):
        fail("the new row should have the mean logit for every input")
    if not close(answer(table, V), table):
        fail(f"a table of {V} rows that should have {V} stays as it is")

# %% ../../nbs/exercises/openai_weights.ipynb #032472e4
@exercise(
    hint="Loop over `a`; "
    "`(a[name] - b[name]).abs().max() / a[name].abs().max() > tol`; return at once."
)
def check_first_difference(answer):
    "The first part that differs is where to look."
    tol = 1e-5
    names = [f"part{i}" for i in random.sample(range(100), 6)]
    a = {n: torch.randn(3, 4).clamp(-2, 2) for n in names}
    for x in a.values():
        x[0, 0] = 2.5  # the largest value is positive
    a[names[0]] *= 1e6  # a large part: rounding alone differs by more than tol
    a[names[4]] *= 1e-4  # a small one
    small = {n: x + 1e-7 * x.abs().max() for n, x in a.items()}
    if (got := answer(a, small, tol)) is not None:
        fail(
            f"{got} differs by 1e-7 of its size, which is rounding: "
            "compare relative to the largest value"
        )
    b = small | {
        names[2]: -a[names[2]] * 0.999,
        names[3]: a[names[3]] + 100 * a[names[3]].abs().max(),
        names[5]: a[names[5]] * 1.5,
    }
    got = answer(a, b, tol)
    if got == names[0]:
        fail(
            f"{got} differs by rounding only, 1e-7 of its size: compare with tol before you return"
        )
    if got == names[3]:
        fail("that part has the largest difference; the first one is what caused it")
    if got == names[5] or got == sorted([names[2], names[3]])[0] != names[2]:
        fail("go through the parts in the order of the dictionary, and stop at the first")
    if got != names[2]:
        fail(f"expected {names[2]}, got {got}; differences may be negative, so take abs()")
    faint = small | {names[4]: a[names[4]] * 1.01}
    if (got := answer(a, faint, tol)) != names[4]:
        fail(
            f"a small part that is wrong by one percent was missed (got {got}): "
            "divide by the largest value"
        )
    below = {n: x - x.abs() - 1e-3 * x.abs().max() for n, x in a.items()}  # a - b > 0
    above = {n: x + x.abs() + 1e-3 * x.abs().max() for n, x in a.items()}  # a - b < 0
    for b in (below, above):
        if (got := answer(a, b, tol)) != names[0]:
            fail(f"differences may be negative, so take abs() before max(); got {got}")
    minus = {n: -x.abs() for n, x in a.items()}  # no value above 0
    if (got := answer(minus, {n: 1.01 * x for n, x in minus.items()}, tol)) != names[0]:
        fail(f"values may be negative, so take abs() of the divisor as well; got {got}")
    edge = {"part": torch.tensor([1.0, 0.5])}, {"part": torch.tensor([1.0, 0.75])}
    if (got := answer(*edge, 0.25)) is not None:
        fail(f"a difference of exactly tol is not above it: expected None, got {got}")
