"""Checks for the exercises of ch27."""

# Made by tools/book.py from ../../book/exercises/scaling.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_three', 'check_huber', 'check_frontier', 'check_bootstrap']

# %% ../../nbs/exercises/scaling.ipynb #72dcebcd
import random

import numpy as np

from gpt2edu.exercises.core import close, exercise, fail, plain
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/scaling.ipynb #7f7e7845
quiz = Quiz(
    Question(
        "You train one model on 8 million tokens and write down the loss at 1, 2, 4 and 8 million. "
        "Its learning rate falls along a cosine to zero at 8 million. "
        "What is wrong with the first three losses?",
        right=(
            "their rate had not fallen yet",
            "A run that ends at 1 million lowers its rate by then, and its loss is lower.",
        ),
        wrong=(
            (
                "they come from too few tokens to be measured",
                "The validation text is the same for all four, however long the training was.",
            ),
            (
                "they share their first tokens with the last one",
                "That is allowed: it saves work, and it even removes some of the noise.",
            ),
        ),
    ),
    Question(
        "All your runs were measured on the same validation text. Another text of the same source "
        "gives losses that are all higher by 0.02. Which number of the law takes that up?",
        right=(
            "E, the constant",
            "A shift that is the same for every size and every length is what the constant means.",
        ),
        wrong=(
            ("alpha and beta, the exponents", "The losses still fall at the same pace."),
            ("A and B, the factors", "Those terms go to zero as N and D grow; the shift stays."),
        ),
    ),
    Question(
        "Bootstrap says: E = 0.60 with a standard error of 0.02. What may the true floor be, "
        "beyond that error?",
        right=(
            "anything, if the form of the law is wrong far away",
            "Resampling sees the noise of the runs; it cannot see what no run has visited.",
        ),
        wrong=(
            (
                "never outside 0.56 to 0.64",
                "That holds if the law has the right form, and the runs cannot say whether it has.",
            ),
            (
                "only lower, since no model is perfect",
                "A fitted constant can lie on either side of the truth.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/scaling.ipynb #4440b4d7
@exercise(
    hint="With L = E + b: the first gap b1 - b2 and the second b2 - b3 have the ratio 2**beta. "
    "What is left after the third is the second gap, over and over again, each time smaller."
)
def check_three(answer):
    "Finds the floor from three losses at D, 2D and 4D."
    E = random.uniform(0.5, 3)
    b = random.uniform(0.5, 2)
    r = random.uniform(0.4, 0.8)  # 2**-beta
    losses = [E + b, E + b * r, E + b * r * r]
    got = answer(*losses)
    x, y, z = losses
    if close(got, z):
        fail("that is the last loss; more tokens would bring it down further")
    if close(got, z - (y - z)):
        fail("you took the last gap away once; the next gap is smaller, and others follow it")
    if close(got, z - (y - z) * r):
        fail("you took one more gap away; others follow it, each smaller by the same factor")
    if close(got, z - (y - z) / (1 - r)):
        fail(
            "the gaps that are left begin with the next one, which is smaller than the last: "
            "a factor is missing"
        )
    if close(got, z * z / y):
        fail("the losses do not fall by a constant factor: what lies above the floor does")
    if not close(got, E):
        fail(f"losses {x:.4f}, {y:.4f} and {z:.4f}: expected {E:.4f}, got {got!r}")

# %% ../../nbs/exercises/scaling.ipynb #21f264ed
@exercise(
    hint="r = log(predicted / measured); r**2 / 2 where |r| <= delta, "
    "delta * (|r| - delta / 2) beyond; then the sum."
)
def check_huber(answer):
    "Sums the Huber losses of the logarithms."
    rng = np.random.default_rng(random.randrange(10**6))
    measured = rng.uniform(0.7, 4, 12)
    r = np.r_[rng.uniform(2e-4, 8e-4, 6), rng.uniform(0.01, 0.1, 6)] * np.tile([-1, 1], 6)
    predicted, delta = measured * np.exp(r), 1e-3

    def total(r):
        a = np.abs(r)
        return np.where(a <= delta, a * a / 2, delta * (a - delta / 2)).sum()

    want = total(r)
    got = answer(predicted, measured, delta)
    if close(got, want / 12, 1e-9):
        fail("that is the mean; a small mean makes an optimiser stop too early, so sum")
    if close(got, total(predicted - measured), 1e-9):
        fail("you compared the losses; compare their logarithms")
    if close(got, (r * r / 2).sum(), 1e-9) or close(got, (r * r).sum(), 1e-9):
        fail("squares only: one broken run would decide the fit; beyond delta the loss is linear")
    if close(got, delta * np.abs(r).sum(), 1e-9) or close(got, np.abs(r).sum(), 1e-9):
        fail("absolute values only: within delta the loss is a square")
    a = np.abs(r)
    if close(got, np.where(a <= delta, a * a / 2, delta * a).sum(), 1e-9):
        fail("the two parts do not meet at delta: half of delta is missing in the linear one")
    if close(got, np.where(r <= delta, r * r / 2, delta * (r - delta / 2)).sum(), 1e-9):
        fail("a prediction far too low counts as a square: take the absolute value")
    if not close(got, want, 1e-9):
        fail(f"expected {want:.6g}, got {got!r}")
    if not close(got := answer(predicted[:1], measured[:1], delta), total(r[:1]), 1e-9):
        fail(f"for one run: expected {total(r[:1]):.6g}, got {got!r}")

# %% ../../nbs/exercises/scaling.ipynb #bb87585b
@exercise(
    hint="Put D = C / (6 N) into the law, and set the derivative by N to zero: "
    "alpha A / N**alpha = beta B / D**beta."
)
def check_frontier(answer):
    "Splits a budget between parameters and tokens."
    alpha, beta = random.uniform(0.2, 0.45), random.uniform(0.5, 0.8)
    A, B = random.uniform(50, 500), random.uniform(500, 5000)
    C = 10 ** random.uniform(12, 18)
    ratio, power = alpha * A / (beta * B), 1 / (alpha + beta)
    n = (ratio * (C / 6) ** beta) ** power
    got = plain(answer(C, A, alpha, B, beta))
    if not isinstance(got, list) or len(got) != 2:
        fail(f"expected two numbers, parameters and tokens, got {got!r}")
    if close(got[0], C / 6 / n) and close(got[1], n):
        fail("the two numbers are the other way round: parameters first")
    if close(got[0], (ratio * C**beta) ** power):
        fail("C = 6 N D: without the 6 you plan for a sixth of the work")
    if close(got[0], (ratio * (C / 6) ** alpha) ** power):
        fail("the exponents are exchanged: if tokens help fast (large beta), few of them do")
    if close(got[0], ((C / 6) ** beta / ratio) ** power):
        fail("the ratio is upside down: a large A means that parameters matter")
    if close(got[0], (A / B * (C / 6) ** beta) ** power):
        fail("the derivative of A / N**alpha brings the factor alpha down, and the other one beta")
    if close(got[0], (C / 6) ** 0.5):
        fail("an equal split holds where alpha = beta and A = B only")
    if not close(got[0], n):
        fail(f"expected {n:.4g} parameters, got {got[0]!r}")
    if not close(got[1], C / 6 / n):
        fail(f"6 N D must be the budget: expected {C / 6 / n:.4g} tokens, got {got[1]!r}")

# %% ../../nbs/exercises/scaling.ipynb #b0001a2c
@exercise(
    hint="Draw as many runs as there are, with replacement; compute the statistic; "
    "after many draws take the standard deviation."
)
def check_bootstrap(answer):
    "Estimates a standard error by resampling."
    seed = random.randrange(10**6)
    rng = np.random.default_rng(seed)
    values = rng.exponential(2.0, 40)
    n = len(values)
    want = values.std() / n**0.5
    got = answer(values.tolist(), np.mean, 800, np.random.default_rng(seed))
    if not np.isscalar(got) and np.ndim(got):
        fail(f"expected one number, got {len(np.ravel(got))}")
    got = float(got)
    if got < 1e-9:
        fail("every draw gave the same: draw with replacement, so that some runs come twice")
    if abs(got / (want / n**0.5) - 1) < 0.2:
        fail("you divided by the root of the number of runs; each draw has that many runs already")
    if abs(got / (want / 800**0.5) - 1) < 0.2:
        fail(
            "you divided by the root of the number of draws: that is how well you know the mean "
            "of the draws, not how much they differ"
        )
    if abs(got / values.std() - 1) < 0.2:
        fail("that is how much single runs differ; each draw has as many runs as there are")
    if abs(got / want**2 - 1) < 0.2 and abs(want - 1) > 0.5:
        fail("that is the variance; an error is its root")
    if abs(got / want - 1) > 0.25:
        fail(f"the mean of {n} values: expected about {want:.3f}, got {got:.3f}")
    seen = []

    def statistic(v):
        seen.append(len(v))
        return float(np.max(v) - np.min(v))

    answer([1.0, 2.0, 3.0], statistic, 7, np.random.default_rng(seed))
    if len(seen) != 7 or set(seen) != {3}:
        fail(f"expected 7 draws of 3 runs for the statistic, got draws of {seen}")
