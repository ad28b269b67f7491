"""Checks for the exercises of ch26."""

# Made by tools/book.py from ../../book/exercises/modern.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'turned', 'check_rotate', 'check_rms_norm', 'check_swiglu', 'check_cache_bytes']

# %% ../../nbs/exercises/modern.ipynb #b038de47
import random

import torch
from torch.nn import functional as F

from gpt2edu.exercises.core import close, exercise, fail, names_in
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/modern.ipynb #440c7c64
quiz = Quiz(
    Question(
        "A head with RoPE sees the same two tokens once at positions 3 and 5 and once at 90 and "
        "92. What about their score, before the softmax?",
        right=(
            "it is equal, as both pairs are two apart",
            "Turning both by the same further angle leaves their dot product as it was.",
        ),
        wrong=(
            (
                "it is smaller at 92, far from the start",
                "A rotation changes no length; only the angle between the two counts.",
            ),
            (
                "it differs, as every position has a vector",
                "That holds for a table of positions. Here no vector is added.",
            ),
        ),
    ),
    Question(
        "Twelve heads of queries share four heads of keys and values. What becomes four heads' "
        "worth in place of twelve?",
        right=(
            "the cache, and two thirds of c_attn's rows for them",
            "Keys and values are kept for four heads only; queries stay twelve.",
        ),
        wrong=(
            (
                "the table of attention weights that is computed",
                "Every head of queries has weights of its own, so there are still twelve.",
            ),
            (
                "the output of attention, and with it c_proj",
                "Each head of queries still writes its hs numbers: the width stays C.",
            ),
        ),
    ),
    Question(
        "One variant ends 0.004 nats lower than GPT-2's block, and the standard error of the "
        "difference over three seeds is 0.006. What do you report?",
        right=(
            "that these runs cannot tell the two apart",
            "A difference smaller than its error is what chance alone often gives.",
        ),
        wrong=(
            (
                "that it is better, since the mean is lower",
                "Another three seeds could well turn the sign.",
            ),
            (
                "that it is worse, since the error is larger",
                "The error says how sure the difference is, not which way it points.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/modern.ipynb #ff2ef2f4
def turned(x, t, sign=1.0, power=2.0, base=10_000.0, near=False):
    "Rotate one head, right by default."
    half = len(x) // 2
    a, b = (x[::2], x[1::2]) if near else (x[:half], x[half:])
    angle = sign * t * base ** (-power * torch.arange(half) / len(x)).double()
    u, v = a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()
    return torch.stack([u, v], dim=1).flatten() if near else torch.cat([u, v])


@exercise(hint="angle i is t * 10000 ** (-2 * i / hs), for i from 0 to hs / 2 - 1.")
def check_rotate(answer):
    "Number i turns with number i + hs / 2, by t times its own frequency."
    x, t = torch.randn(8).double(), random.randint(3, 6)  # t - 1 is not 1
    got = answer(x.clone(), t)
    if close(got, turned(x, t, near=True)):
        fail("you paired neighbours, as the paper does; Llama pairs i with i + hs / 2")
    if close(got, turned(x, t, sign=-1.0)):
        fail("you turned the other way: (a, b) becomes (a cos - b sin, b cos + a sin)")
    if close(got, turned(x, t, power=1.0)):
        fail("the exponent is -2 i / hs; yours falls half as fast")
    if close(got, turned(x, t + 1)) or close(got, turned(x, t - 1)):
        fail("positions begin at 0, so that the first token is not turned at all")
    if close(got, turned(x, 1)):
        fail("the angle does not depend on t")
    if close(got, turned(x, t, power=0.0)):
        fail("every pair turns by the same angle: the frequency falls from pair to pair")
    if not close(got, turned(x, t)):
        for v in (x, torch.ones_like(x)):  # a wrong turn keeps some lengths by chance
            turn = answer(v.clone(), t)
            if torch.is_tensor(turn) and not close(turn.double().norm(), v.norm(), 1e-3):
                fail("the length of x changed, and a rotation keeps it: are cos and sin in place?")
        fail(f"rotate(x, {t}) should begin {turned(x, t)[:3].tolist()}, got {got}")
    if not close(answer(x.clone(), 0), x):
        fail("at position 0 nothing is turned")

# %% ../../nbs/exercises/modern.ipynb #b710499a
@exercise(hint="The mean of x * x over the last dimension; 1e-5 goes inside the square root.")
def check_rms_norm(answer):
    "Divide by the root of the mean square; no mean is taken off."
    x, gain = torch.randn(2, 3, 6) * 0.01 + 0.01, torch.randn(6)  # small: epsilon shows
    square = x.pow(2).mean(-1, keepdim=True)
    got = answer(x.clone(), gain.clone())
    if close(got, F.layer_norm(x, (6,)) * gain):
        fail("that is a LayerNorm: RMSNorm takes no mean off")
    if close(got, x / square.sqrt() * gain):
        fail("epsilon is missing: a vector of zeros would divide 0 by 0")
    if close(got, x / (square.sqrt() + 1e-5) * gain):
        fail("epsilon belongs inside the square root")
    if close(got, x / (square + 1e-5) * gain):
        fail("the square root is missing")
    if close(got, x / (x.pow(2).sum(-1, keepdim=True) + 1e-5).sqrt() * gain):
        fail("that is the sum of the squares; the norm divides by their mean")
    if close(got, x / (x.pow(2).mean() + 1e-5).sqrt() * gain):
        fail("you took one mean over everything: each position has its own")
    if close(got, x / (square + 1e-5).sqrt()):
        fail("the gain is missing")
    want = x / (square + 1e-5).sqrt() * gain
    if not close(got, want):
        fail(f"position 0 of text 0 should be {want[0, 0].tolist()}, got {got[0, 0].tolist()}")
    if names_in(answer) & {"rms_norm", "RMSNorm"}:
        fail("right, but PyTorch computed it: write the formula yourself")

# %% ../../nbs/exercises/modern.ipynb #827e4a70
@exercise(hint="(silu(x @ gate) * (x @ up)) @ down")
def check_swiglu(answer):
    "One product is bent and gates the other."
    x, gate, up = torch.randn(4, 6), torch.randn(6, 5), torch.randn(6, 5)
    down = torch.randn(5, 6)
    a, b = x @ gate, x @ up
    got = answer(*(m.clone() for m in (x, gate, up, down)))
    if close(got, (a * F.silu(b)) @ down, 1e-4):
        fail("you bent the other product: silu belongs to the gate")
    if close(got, (torch.sigmoid(a) * b) @ down, 1e-4):
        fail("that is a plain gate (GLU): silu(a) is a * sigmoid(a)")
    if any(close(got, (F.gelu(a, approximate=form) * b) @ down, 1e-4) for form in ("none", "tanh")):
        fail("that gate is a GELU; the S of SwiGLU is SiLU, also called Swish")
    if close(got, (F.silu(a) + b) @ down, 1e-4):
        fail("the two are multiplied number by number, not added")
    if close(got, F.silu(a) @ down, 1e-4) or close(got, F.silu(b) @ down, 1e-4):
        fail("one of the two products is missing: a gate needs something to pass")
    if close(got, F.silu(a * b) @ down, 1e-4):
        fail("only the gate is bent, before the product and not after it")
    if close(got, F.silu(a) * b, 1e-4):
        fail("the way back to width C is missing: multiply with down")
    want = (F.silu(a) * b) @ down
    if not close(got, want, 1e-4):
        fail(f"row 0 should be {want[0].tolist()}, got {torch.as_tensor(got)[0].tolist()}")

# %% ../../nbs/exercises/modern.ipynb #7ac7f0d6
@exercise(hint="Two tensors a layer, each T x (n_kv_head * hs) numbers, with hs = n_embd / n_head.")
def check_cache_bytes(answer):
    "Keys and values of every layer, for the heads that are kept."
    L, hs, T, width = random.randint(5, 9), 8 * random.randint(2, 5), random.randint(70, 99), 4
    nkv = random.choice((2, 3))
    nh = nkv * 5
    C, want = nh * hs, 2 * L * nkv * hs * T * width
    got = answer(L, C, nh, nkv, T, width)
    if got == want // 2:
        fail("keys are kept, and values too: twice that")
    if got == want * 5:
        fail("only the heads of keys are kept: n_kv_head of them, not n_head")
    if got == want // L:
        fail("every layer has a cache of its own")
    if got == want // width:
        fail("that is the number of numbers; each has `width` bytes")
    if got == want * 8:
        fail("those are bits: width is in bytes already")
    if got == want // T:
        fail("that is one position; T of them are kept")
    if got == 2 * L * nkv * C * T * width:
        fail("a head has hs = n_embd / n_head numbers, not n_embd")
    if got != want:
        sizes = f"{L} layers, C {C}, {nh} heads, {nkv} of keys, T {T}"
        fail(f"{sizes} at {width} bytes take {want:,} bytes, got {got}")
