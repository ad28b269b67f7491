"""Checks for the exercises of ch09."""

# Made by tools/book.py from ../../book/exercises/model.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_layer_norm', 'check_gelu', 'check_block', 'check_init_std', 'check_count']

# %% ../../nbs/exercises/model.ipynb #a85e1725
import math
import random

import torch
from torch.nn import functional as F

from gpt2edu.exercises.core import close, exercise, fail, names_in
from gpt2edu.exercises.quiz import Question, Quiz
from gpt2edu.model.gpt import GPT, GPTConfig, num_params

# %% ../../nbs/exercises/model.ipynb #fd9d6728
quiz = Quiz(
    Question(
        "A new GPT-2 with V = 50,257 has a first loss of 7.3, where ln V is 10.8. What do you do?",
        right=(
            "look for a leak of the targets",
            "A model without training cannot know anything, so it sees what it should predict.",
        ),
        wrong=(
            (
                "train on, since lower is better",
                "Lower is better only after training. Before it, a low loss is a bug.",
            ),
            (
                "make the initial weights smaller",
                "Large weights raise the first loss above ln V; they cannot lower it below.",
            ),
        ),
    ),
    Question(
        "You move the norm from before each layer onto the stream, after each addition. "
        "What becomes of the embedding?",
        right=(
            "its share of the variance halves again and again",
            "Each addition is as large as the stream, and the norm shrinks both to size 1.",
        ),
        wrong=(
            (
                "it stays in the sum, as each norm keeps directions",
                "A norm shrinks the whole sum, so old parts lose to each new one.",
            ),
            (
                "it grows with depth, because all layers add to it",
                "Layers add other vectors; the norm keeps the sum at one size.",
            ),
        ),
    ),
    Question(
        "Why do the `c_proj` matrices of a deep model begin smaller than those of a shallow one?",
        right=(
            "more outputs are summed up",
            "Variances of independent outputs add, so each gets smaller by √(2·n_layer).",
        ),
        wrong=(
            (
                "a deep one needs smaller steps",
                "The learning rate sets the steps; this is about the size of the stream.",
            ),
            (
                "a product of many layers explodes",
                "Layers are added to the stream here, so what grows is a sum and not a product.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/model.ipynb #1430bc2f
@exercise(hint="`x.var(dim=-1, keepdim=True, unbiased=False)`, and 1e-5 inside the square root.")
def check_layer_norm(answer):
    "Every position has mean 0 and variance 1 before gain and bias."
    x = torch.randn(2, 3, 6) * 0.01 + 0.02  # small numbers: here epsilon shows
    gain, bias = torch.randn(6), torch.randn(6)
    want = F.layer_norm(x, (6,), gain, bias)
    got = answer(x, gain, bias)
    centred = x - x.mean(-1, keepdim=True)
    var = x.var(-1, keepdim=True, unbiased=False)
    if close(got, centred / var.sqrt() * gain + bias):
        fail("epsilon is missing: a position whose numbers are all equal would divide 0 by 0")
    if any(close(got, centred / (var + e).sqrt() * gain + bias) for e in (1e-6, 1e-8, 1e-12)):
        fail("epsilon is too small: GPT-2's is 1e-5, and here it shows")
    if close(got, centred / (var.sqrt() + 1e-5) * gain + bias):
        fail("epsilon is outside the square root: it belongs to the variance")
    if close(got, centred / (x.var(-1, keepdim=True) + 1e-5).sqrt() * gain + bias):
        fail("the variance is divided by C - 1; LayerNorm divides by C (unbiased=False)")
    rms = (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    std = (var + 1e-5).sqrt()
    if close(got, x / rms * gain + bias) or close(got, x / std * gain + bias):
        fail("the mean is not taken off")
    if close(got, centred / (var + 1e-5) * gain + bias):
        fail("you divided by the variance: its square root is missing")
    if close(got, F.layer_norm(x.transpose(1, 2), (3,)).transpose(1, 2) * gain + bias):
        fail("you normalised over time: each position by itself, over the last dimension")
    if close(got, F.layer_norm(x, (6,))):
        fail("gain and bias are missing")
    if not close(got, want):
        fail(f"position 0 of text 0 should be {want[0, 0].tolist()}, got {got[0, 0].tolist()}")
    if not close(answer(torch.full((1, 2, 6), 3.0), gain, bias), bias.expand(1, 2, 6), 1e-3):
        fail("numbers that are all equal become 0, and then the bias; yours become something else")

# %% ../../nbs/exercises/model.ipynb #3e3ef7f8
@exercise(hint="0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))")
def check_gelu(answer):
    "The tanh form, to the last digit."
    x = torch.cat([3 * torch.randn(50), torch.tensor([0.0, 1.3, -1.3])]).double()
    got = answer(x)
    want = F.gelu(x, approximate="tanh")

    def form(c=0.044715, k=(2 / math.pi) ** 0.5, power=3):
        return 0.5 * x * (1 + torch.tanh(k * (x + c * x**power)))

    if close(got, F.gelu(x)):
        fail("that is the exact GELU; OpenAI's weights were trained with the tanh form")
    if close(got, x * torch.sigmoid(1.702 * x)):
        fail("that is the sigmoid form; GPT-2 uses tanh")
    if close(got, 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * x))):
        fail("the cubic term 0.044715 x³ is missing")
    if close(got, 2 * want):
        fail("a factor of one half is missing")
    if any(close(got, form(c), 1e-8) for c in (0.0447, 0.04471, 0.04472, 0.045, 0.44715)):
        fail("the number before x³ is 0.044715, with all its digits")
    if close(got, form(k=math.sqrt(math.pi / 2))) or close(got, form(k=2 / math.pi)):
        fail("the factor inside of tanh is the square root of 2 / pi")
    if close(got, form(power=2)):
        fail("the small term has the third power of x, so that it changes sign with x")
    if close(got, want - 0.5 * x):
        fail("the 1 before tanh is missing: half of x passes whatever tanh says")
    if not close(got, want, 1e-6):
        at = int((torch.as_tensor(got) - want).abs().argmax())
        fail(f"gelu({x[at]:.3f}) should be {want[at]:.7f}, got {got[at]:.7f}")
    if names_in(answer) & {"gelu", "GELU"}:
        fail("right, but PyTorch computed it: write the formula yourself")

# %% ../../nbs/exercises/model.ipynb #5b75e5f0
@exercise(hint="Two lines: `x = x + …` and `return x + …`; the second reads what the first wrote.")
def check_block(answer):
    "Each part reads a normalised copy and adds to the stream."
    x = torch.randn(2, 4, 6)
    a, b = torch.randn(6, 6), torch.randn(6, 6)

    def ln_1(x):
        return F.layer_norm(x, (6,))

    def ln_2(x):
        return F.layer_norm(x, (6,)) * 2

    def attn(x):
        return x.cumsum(1) @ a

    def mlp(x):
        return torch.tanh(x @ b)

    after = x + attn(ln_1(x))
    want = after + mlp(ln_2(after))
    got = answer(x, ln_1, attn, ln_2, mlp)
    post = ln_1(x + attn(x))
    if close(got, ln_2(post + mlp(post))):
        fail(
            "that is the first transformer's block, norm on the stream: "
            "GPT-2 normalises what a part reads"
        )
    found = attn(ln_1(x))
    if any(close(got, y) for y in (mlp(ln_2(found)), mlp(ln_2(after)), found + mlp(ln_2(found)))):
        fail(
            "a residual is missing: a part's output is added to the stream, it does not replace it"
        )
    first = x + mlp(ln_2(x))
    if close(got, first + attn(ln_1(first))):
        fail("the MLP came first: a block attends, and then computes on what was found")
    if close(got, x + attn(x) + mlp(x + attn(x))) or close(got, after + mlp(after)):
        fail("a norm is missing: each part reads a normalised copy of the stream")
    if close(got, x + attn(ln_1(x)) + mlp(ln_2(x))):
        fail(
            "the MLP reads the stream as it was before attention: "
            "it should read what attention wrote"
        )
    normed = ln_1(x) + attn(ln_1(x))
    if close(got, ln_2(normed) + mlp(ln_2(normed))):
        fail("you added to the normalised copy: the stream itself is never normalised")
    if not close(got, want):
        fail("expected x + attn(ln_1(x)), and to that the MLP of its ln_2")

# %% ../../nbs/exercises/model.ipynb #fff9c951
@exercise(hint="A block adds to the stream twice, so n_layer blocks add 2 * n_layer times.")
def check_init_std(answer):
    "0.02, and 0.02 / sqrt(2 n_layer) where a layer adds to the stream."
    n_layer = random.randint(3, 48)
    for name in (
        "wte.weight",
        "wpe.weight",
        "h.0.attn.c_attn.weight",
        "h.11.attn.c_attn.weight",
        "h.1.mlp.c_fc.weight",
    ):
        got = answer(f"transformer.{name}", n_layer)
        if not close(got, 0.02):
            fail(f"{name} does not add to the stream by itself: it starts at 0.02, got {got}")
    for name in ("h.2.mlp.c_proj.weight", "h.0.attn.c_proj.weight", "h.11.mlp.c_proj.weight"):
        got = answer(f"transformer.{name}", n_layer)
        if close(got, 0.02):
            fail(f"{name} writes to the stream: it should start smaller")
        if close(got, 0.02 / math.sqrt(n_layer)):
            fail("you divided by sqrt(n_layer): each block adds twice, attention and MLP")
        if close(got, 0.02 / (2 * n_layer)) or close(got, 0.02 / n_layer):
            fail("you divided by the number of additions: variances add, so the square root of it")
        if not close(got, 0.02 / math.sqrt(2 * n_layer)):
            fail(
                f"{name} with {n_layer} layers should start at "
                f"{0.02 / math.sqrt(2 * n_layer):.5f}, got {got}"
            )

# %% ../../nbs/exercises/model.ipynb #f0dad0bd
@exercise(hint="A linear layer from a to b has a * b + b parameters; a LayerNorm has 2 C.")
def check_count(answer):
    "Every parameter counted once."
    L = random.randint(2, 5)
    C = 8 * random.randint(2, 5)
    T = random.randint(50, 90)  # T > 9 L, so that no two mistakes give the same count
    V = random.randint(100, 150)
    with torch.device("meta"):
        want = num_params(GPT(GPTConfig(L, 4, C, T, V)))
    got = answer(L, C, T, V)
    if got == want + V * C:
        fail("the head is tied to wte: the same matrix counts once")
    if got == want - 2 * C:
        fail("ln_f is missing: a gain and a bias of width C after the last block")
    if got == want - L * 9 * C:
        fail("the biases of the linear layers are missing: 9 C in each block")
    if got == want - L * 4 * C or got == want - L * 4 * C - 2 * C:
        fail("the LayerNorms are missing: two in each block, with gain and bias")
    if got == want - T * C:
        fail("the position embeddings are missing: block_size rows of width C")
    if got != want:
        fail(
            f"n_layer={L}, n_embd={C}, block_size={T}, vocab_size={V} has {want:,} parameters, "
            f"got {got:,}"
        )
