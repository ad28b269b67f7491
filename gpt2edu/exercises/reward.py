"""Checks for the exercises of ch25."""

# Made by tools/book.py from ../../book/exercises/reward.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'PLACES', 'check_policy_slope', 'check_normalise', 'token_gains',
           'check_clipped', 'said_of', 'check_mended']

# %% ../../nbs/exercises/reward.ipynb #1ad4a4d8
import math
import random

import torch

from gpt2edu.exercises.core import close, exercise, fail
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/reward.ipynb #e29ac320
quiz = Quiz(
    Question(
        "Eight answers to a question are all right. What does the question teach in this step?",
        right=(
            "nothing: all advantages are 0",
            "Each answer is as good as the mean of its group. Only the price of KL is left.",
        ),
        wrong=(
            (
                "to say these answers more often",
                "That would be so without a baseline. Compared with each other, none is better.",
            ),
            (
                "as much as any other, since the deviation is divided out",
                "The deviation is 0, and so is what is divided by it.",
            ),
        ),
    ),
    Question(
        "The reward rises from step to step, and the share of right answers falls. What is likely?",
        right=(
            "it has found other things that pay",
            "It climbs what is measured. Read some answers, then mend the reward.",
        ),
        wrong=(
            (
                "the learning rate is too high",
                "Then the reward would fall too: a model that breaks earns nothing.",
            ),
            (
                "the weight of KL is too small",
                "More of it slows the drift down, but the wrong reward still points there.",
            ),
        ),
    ),
    Question(
        "A token has a positive advantage, and its probability has doubled since it was sampled. "
        "What does the clip at 0.2 do?",
        right=(
            "the token has no slope any more",
            "Its gain is level beyond 1.2 times the old odds; the other tokens go on.",
        ),
        wrong=(
            (
                "it pulls the odds back to 1.2 times the old ones",
                "A level line pulls nowhere. Only KL, or other answers, may bring them back.",
            ),
            (
                "it cuts the length of the gradient to 0.2",
                "That is another clip: of the gradient's norm. This one works on each token.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/reward.ipynb #79601fcb
@exercise(
    hint="The slope of ln p[a] by the scores is one-hot minus probabilities; "
    "multiply by the verdict less the baseline."
)
def check_policy_slope(answer):
    "Which way one judged choice moves the scores."
    n = random.randint(3, 6)
    scores = torch.randn(n, dtype=torch.float64)
    a, verdict = random.randrange(n), random.uniform(1, 3)
    baseline = random.choice((-1, 1)) * random.uniform(0.1, 0.9)
    p = scores.softmax(0)
    one_hot = torch.eye(n, dtype=torch.float64)[a]
    want = (verdict - baseline) * (one_hot - p)
    try:
        got = answer(scores.clone(), a, verdict, baseline)
    except RuntimeError as e:
        fail(f"torch says: {str(e).splitlines()[0]}")
    if isinstance(got, torch.Tensor):
        got = got.detach()
    if close(got, want):
        return
    gain = verdict - baseline
    for wrong, message in (
        (-want, "the sign is that of a loss: this slope climbs"),
        (verdict * (one_hot - p), "the baseline is missing: subtract it from the verdict"),
        ((verdict + baseline) * (one_hot - p), "the baseline is subtracted, not added"),
        (
            gain * p[a] * (one_hot - p),
            "that is the slope of p, not of ln p: p[a] is in it once more",
        ),
        (gain * one_hot, "the other choices lose what this one wins: subtract the probabilities"),
        (one_hot - p, "the verdict is missing: it says how far to go"),
        (
            gain * (one_hot - scores),
            "you subtracted the scores: subtract probabilities",
        ),
    ):
        if close(got, wrong):
            fail(message)
    fail(f"for the scores {scores.tolist()}, choice {a}: expected {want.tolist()}, got {got}")

# %% ../../nbs/exercises/reward.ipynb #0e850540
@exercise(
    hint="mean(1, keepdim=True), std(1, correction=0, keepdim=True), "
    "and 0 where the deviation is 0."
)
def check_normalise(answer):
    "Each answer against its group."
    P, G = random.randint(2, 4), random.randint(3, 6)
    rewards = 100 * torch.rand(P, G, dtype=torch.float64)  # the small number does not show
    rewards[0] = 1.0  # all alike
    centred = rewards - rewards.mean(1, keepdim=True)
    std = rewards.std(1, correction=0, keepdim=True)
    want = torch.where(std > 1e-9, centred / std.clamp(min=1e-9), 0.0)
    got = torch.as_tensor(answer(rewards.clone()))
    if got.shape != rewards.shape:
        fail(f"expected the shape {tuple(rewards.shape)}, got {tuple(got.shape)}")
    if not torch.isfinite(got).all():
        fail("a group whose rewards are all equal gives nan: its advantages are 0")
    if close(got, want, 2e-3):  # a small number beside the deviation is fine
        return
    every = (rewards - rewards.mean()) / rewards.std(correction=0)
    down = rewards - rewards.mean(0)
    for wrong, message in (
        (centred, "divide by the deviation of the group as well"),
        (every, "mean and deviation are those of the group, not of the whole batch"),
        (down / (rewards.std(0, correction=0) + 1e-9), "a group is a row: take dimension 1"),
        (rewards / std.clamp(min=1e-9), "subtract the mean of the group first"),
        (-want, "the sign is wrong: a good answer has a positive advantage"),
        (
            torch.where(std > 1e-9, centred / rewards.std(1, keepdim=True), 0.0),
            "that deviation divides by G - 1: here it is that of the group itself, correction=0",
        ),
        (
            torch.where(std > 1e-9, centred / std.clamp(min=1e-9) ** 2, 0.0),
            "you divided by the variance: take its root",
        ),
    ):
        if close(got[1:], wrong[1:], 1e-4):
            fail(message)
    fail(f"for {rewards[1].tolist()} expected {want[1].tolist()}, got {got[1].tolist()}")

# %% ../../nbs/exercises/reward.ipynb #b60989b5
def token_gains(logp, old, A, clip):
    "PPO's gain of each token, and those of the classic mistakes."
    ratio = (logp - old).exp()
    bound = ratio.clamp(1 - clip, 1 + clip)
    gains = {
        "right": torch.minimum(ratio * A, bound * A),
        "take the smaller of the two: you took the larger": torch.maximum(ratio * A, bound * A),
        "you took the clipped value alone: a change in the wrong direction must be pulled back": (
            bound * A
        ),
        "the clip is missing": ratio * A,
        "the ratio is the other way round: now over then": torch.minimum(
            A / ratio, (1 / ratio).clamp(1 - clip, 1 + clip) * A
        ),
        "a difference of logarithms is not the ratio: take exp": torch.minimum(
            (logp - old) * A, (logp - old).clamp(1 - clip, 1 + clip) * A
        ),
    }
    return gains


@exercise(hint="ratio = exp(logp - old); the mean of -minimum(…) over the tokens that count.")
def check_clipped(answer):
    "The loss of one answer."
    n, left, clip = random.randint(4, 6), random.randint(1, 2), 0.2
    old = -torch.rand(n + left, dtype=torch.float64) - 0.5
    step = torch.tensor(random.sample((0.5, -0.7, 0.1, -0.15), 4) + [0.4] * n, dtype=torch.float64)
    logp = old + step[: n + left]
    counts = torch.arange(n + left) < n
    for A in random.sample((1.5, -1.5), 2):
        gains = token_gains(logp, old, A, clip)
        got = answer(logp.clone(), old.clone(), counts.clone(), A, clip)
        got = float(got)
        want = -float(gains["right"][counts].mean())
        if close(got, want):
            continue
        if close(got, -want):
            fail("the sign is wrong: a loss falls where the gain rises")
        for message, each in gains.items():
            if message != "right" and close(got, -float(each[counts].mean())):
                fail(message)
        each = gains["right"]
        if close(got, -float(each.mean())):
            fail("tokens that do not count are in the mean: leave them out")
        if close(got, -float((each * counts).mean())):
            fail("divide by the number of tokens that count, not by the length of the row")
        if close(got, -float(each[counts].sum())):
            fail("that is the sum: take the mean over the tokens of the answer")
        fail(f"with an advantage of {A} expected {want:.4f}, got {got:.4f}")

# %% ../../nbs/exercises/reward.ipynb #62a4daf6
PLACES = ("at the park", "in the attic", "on the hill", "in the barn")


def said_of(truth: str, other: str) -> list[tuple[str, str]]:
    "Answers that are wrong in a way of their own, and what a reward that pays for them misses."
    return [
        (f"{truth} {other}", "it pays for the right sentence with others behind it: saying all "
         "places would always win"),
        (f"{other} {truth}", "it pays for the right sentence with others before it: saying all "
         "places would always win"),
        (truth[:-1], "it pays for an answer that was cut before its end"),
        (other, "it pays for a wrong answer"),
        ("", "it pays for an empty answer"),
        (truth.split()[-1], "it pays for one word of the answer"),
        ("Nobody knows.", "it pays for `Nobody knows.` where the story says it"),
    ]  # fmt: skip


@exercise(hint="Only one text is right: `float(said.strip() == truth)`.")
def check_mended(answer):
    "A reward that pays for the right answer and for nothing else."
    place, another = random.sample(PLACES, 2)
    truth, other = f"She is {place}.", f"She is {another}."
    got = answer(truth, truth)
    if isinstance(got, bool) or not isinstance(got, (int, float)) or not math.isfinite(got):
        fail(f"a reward is a finite number, got {got!r}")
    best = float(got)
    for text in (f" {truth}", f"{truth}\n"):
        if float(answer(text, truth)) != best:
            fail("spaces around an answer do not make it wrong: strip them")
    for text, message in said_of(truth, other):
        if not float(answer(text, truth)) < best:
            fail(f"{message}; it gives {best:g} for {text!r}")
    nobody = "Nobody knows."
    if float(answer(nobody, nobody)) != best:
        fail(
            "where nobody knows, `Nobody knows.` is the right answer and pays as much as any other"
        )
    wrong = {float(answer(text, truth)) for text, _ in said_of(truth, other)}
    if len(wrong) > 1:
        fail("two wrong answers are paid differently: the model would climb from one to the other")
