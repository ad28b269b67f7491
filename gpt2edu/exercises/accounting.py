"""Checks for operations, bytes between steps, the largest micro-batch and the bill of a run."""

# Made by tools/book.py from ../../book/exercises/accounting.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_matrix_flops', 'check_resting_bytes', 'check_largest', 'check_bill']

# %% ../../nbs/exercises/accounting.ipynb #f68b136c
import random

from gpt2edu.exercises.core import close, exercise, fail, plain
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/accounting.ipynb #a6d7863e
quiz = Quiz(
    Question(
        "A step runs out of memory. You halve the micro-batch and keep the total batch. "
        "What shrinks?",
        right=(
            "activations and logits only",
            "They grow with the tokens that are computed at once. The step takes twice the pieces.",
        ),
        wrong=(
            (
                "activations and gradients",
                "Gradients have the size of the weights, however many tokens are read.",
            ),
            (
                "everything, to about half",
                "Weights, gradients and optimiser take 16 bytes a parameter with any batch.",
            ),
        ),
    ),
    Question(
        "Why does a weight cost six operations for each token of training?",
        right=(
            "two in the forward pass, four in the backward pass",
            "Backward computes two gradients, of the input and of the weight, two operations each.",
        ),
        wrong=(
            (
                "three in the forward pass, three in the backward pass",
                "Forward multiplies and adds once, which makes two.",
            ),
            (
                "two for the gradient, four for the step of the optimiser",
                "The optimiser works once a step, not once for each token.",
            ),
        ),
    ),
    Question(
        "Two trainers have the same speed on the same card. One reports an MFU of 40 %, "
        "the other of 60 %. What may explain it?",
        right=(
            "one divides by a data sheet's peak, one by a measured peak",
            "No real product reaches the data sheet, so an MFU against it comes out lower.",
        ),
        wrong=(
            (
                "one computes activations twice, and so it does more operations",
                "MFU counts what the model needs. Repeated work does not raise it.",
            ),
            (
                "one uses a larger batch, and so it has more tokens in each step",
                "Only tokens in a second count, and in those the two are equal.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/accounting.ipynb #f40a47be
@exercise(
    hint="A weight multiplies and adds once for each token forward; "
    "backward it does so twice, for two gradients."
)
def check_matrix_flops(answer):
    "Counts what a matrix costs in training."
    n = random.randint(100, 999)
    a = random.randint(10, 99)
    b = random.randint(100, 200)
    want = 6 * n * a * b
    got = answer(n, a, b)
    if close(got, want / 3):
        fail(
            "only the forward pass: "
            "the backward pass computes two gradients, of the input and of the weights"
        )
    if close(got, want * 2 / 3):
        fail(
            "one gradient is missing: "
            "backward there are two products, of the input's gradient and of the weights'"
        )
    if close(got, want / 2):
        fail("multiplications only: each comes with an addition")
    if close(got, want / n):
        fail("that is for one token; every token goes through the matrix")
    if not close(got, want):
        fail(f"{n} tokens through {a} x {b}: expected {want:,} operations, got {got!r}")

# %% ../../nbs/exercises/accounting.ipynb #9b4e3ff8
@exercise(
    hint="4 bytes a number. AdamW: weight and two moments. "
    "Muon: weight and one moment, for the matrices only."
)
def check_resting_bytes(answer):
    "Counts the bytes that stay from one step to the next."
    m = random.randint(1000, 9000)
    r = random.randint(100, 900)
    adamw = 12 * (m + r)
    muon = 8 * m + 12 * r
    got = answer(m, r, "adamw")
    if close(got, 16 * (m + r)):
        fail("you counted the gradients; between two steps they are gone")
    if close(got, adamw * 2 / 3):
        fail(
            "the weights or one of the moments are missing: "
            "AdamW has two moments beside each weight"
        )
    if close(got, adamw / 4):
        fail("you counted numbers; a number in fp32 has 4 bytes")
    if not close(got, adamw):
        fail(f"adamw with {m} + {r} parameters: expected {adamw:,} bytes, got {got!r}")
    got = answer(m, r, "muon")
    if close(got, adamw):
        fail("Muon keeps one moment of a matrix, not two")
    if close(got, 12 * m + 8 * r):
        fail("the other way round: Muon trains the matrices, AdamW the rest")
    if close(got, 8 * (m + r)):
        fail("Muon trains the matrices of the blocks only; the rest has AdamW's two moments")
    if not close(got, muon):
        fail(f"muon with {m} + {r} parameters: expected {muon:,} bytes, got {got!r}")

# %% ../../nbs/exercises/accounting.ipynb #2dee9751
@exercise(
    hint="For each b from 1 to windows: "
    "does it divide windows, and is fixed + b * per_window at most memory?"
)
def check_largest(answer):
    "Finds the micro-batch that fits and divides."
    per = random.randint(5, 9)
    windows = 2 ** random.randint(5, 7)
    fixed = per * windows + random.randint(50, 99)  # so much that to forget it changes the answer
    b = windows // 4
    memory = fixed + per * (b + b // 2)  # room for more than b, not for 2b
    got = answer(memory, fixed, per, windows)
    if got == (memory - fixed) // per:
        fail(f"{got} windows fit, but {windows} windows cannot be cut into pieces of {got}")
    if got == max(d for d in range(1, windows + 1) if windows % d == 0 and d * per <= memory) != b:
        fail("what is fixed takes its share first: weights, gradients, optimizer")
    if got == 2 * b:
        fail(f"{2 * b} windows do not fit: {fixed:,} + {2 * b} x {per} bytes are above {memory:,}")
    if got == 1:
        fail("that is the smallest one that fits; the largest is wanted")
    if got != b:
        fail(
            f"memory={memory}, fixed={fixed}, per_window={per}, windows={windows}: "
            f"expected {b}, got {got!r}"
        )
    if (got := answer(fixed + per * b, fixed, per, windows)) != b:
        fail(f"{b} windows fit exactly, to the last byte; got {got!r}")
    try:
        got = answer(fixed, fixed, per, windows)
    except ValueError:
        fail("where not one window fits, the answer is 0, not an error: max(..., default=0)")
    if got != 0:
        fail(f"not one window fits: expected 0, got {got!r}")
    if (got := answer(10 * memory, fixed, per, windows)) != windows:
        fail(f"with memory for all, the micro-batch is the whole batch, {windows}; got {got!r}")
    if (got := answer(memory, fixed, per, 99)) != max(
        d for d in (1, 3, 9, 11, 33, 99) if d <= b + b // 2
    ):
        fail(f"99 windows divide by 1, 3, 9, 11, 33 and 99, not by powers of two; got {got!r}")

# %% ../../nbs/exercises/accounting.ipynb #f4ed0426
@exercise(
    hint="hours = 6 N tokens / (gpus x peak x mfu) / 3600; "
    "the bill counts every GPU for all these hours."
)
def check_bill(answer):
    "Turns operations into hours and dollars."
    N = random.randint(1, 9) * 10**8
    tokens = random.randint(1, 9) * 10**9
    gpus = random.randint(2, 8)
    peak = random.uniform(1e14, 9e14)
    mfu = random.uniform(0.2, 0.6)
    price = random.uniform(1, 4)
    hours = 6 * N * tokens / (gpus * peak * mfu) / 3600
    got = plain(answer(N, tokens, gpus, peak, mfu, price))
    if not isinstance(got, list) or len(got) != 2:
        fail(f"expected two numbers, hours and dollars, got {got!r}")
    if close(got[0], hours * gpus):
        fail("these are GPU-hours; all GPUs work at the same time, so you wait for less")
    if close(got[0], hours * mfu):
        fail(
            "a GPU reaches only the share mfu of its peak, so the run takes longer than at the peak"
        )
    if close(got[0], hours * mfu**2):
        fail("you multiplied by mfu; a smaller share of the peak means more hours, so divide by it")
    if close(got[0], hours / 3):
        fail("2 N operations are the forward pass; training takes 6 N for a token")
    if close(got[0], hours * 3600):
        fail("these are seconds; an hour has 3600")
    if not close(got[0], hours):
        fail(f"expected {hours:.2f} hours, got {got[0]!r}")
    if close(got[1], hours * price):
        fail(f"that pays for one GPU; {gpus} of them are rented")
    if not close(got[1], hours * gpus * price):
        fail(f"expected {hours * gpus * price:.2f} dollars, got {got[1]!r}")
