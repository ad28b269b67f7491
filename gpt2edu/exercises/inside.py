"""Checks for the exercises of ch28."""

# Made by tools/book.py from ../../book/exercises/inside.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_decided', 'check_share', 'check_induction', 'check_control']

# %% ../../nbs/exercises/inside.ipynb #cdf32f14
import random

import torch

from gpt2edu.exercises.core import close, exercise, fail, plain
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/inside.ipynb #92ed300c
quiz = Quiz(
    Question(
        "Two stories differ in one name. After the first block, patching at that name restores "
        "nothing, and patching at the full stop behind it restores nearly all. What follows?",
        right=(
            "the name has been read into the stop by then",
            "At depth 0 only the name differed, so the stop can have it from nowhere else.",
        ),
        wrong=(
            (
                "the name plays no part in the answer",
                "The stories differ in nothing else, so whatever differs later came from it.",
            ),
            (
                "the stop is the token that decides",
                "It is the same token in both stories; only its vector differs.",
            ),
        ),
    ),
    Question(
        "A probe finds the holder at 65 % of the full stops, and its control task at 6 %. "
        "What may still be wrong with 'the stop knows who has it'?",
        right=(
            "it may read a property that often agrees with the holder",
            "The last name agrees in two thirds; only stops where the two differ can tell.",
        ),
        wrong=(
            (
                "the probe may have learned the answers by heart",
                "Then it would have learned the control task by heart as well.",
            ),
            (
                "a guess among 30 names would reach as much",
                "A guess is right once in thirty.",
            ),
        ),
    ),
    Question(
        "On stories, a head of layer 0 looks at the token behind the last occurrence more than "
        "others do. Why is it not an induction head?",
        right=(
            "at that depth no key holds a neighbour's token",
            "To be found as 'what came after A', a position must have read the A before it.",
        ),
        wrong=(
            (
                "its knock-out costs too little on repeated pairs",
                "The cost there is high, which makes the mistake tempting.",
            ),
            (
                "heads of a small model have no fixed tasks",
                "Some do: one built by hand with these sizes copies perfectly.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/inside.ipynb #74d7c7fc
@exercise(hint="Go from the last depth back, and stop at the first one that says something else.")
def check_decided(answer):
    "The first depth from which on the answer stays on top."
    V = random.randint(5, 9)
    right, other = random.sample(range(1, V), 2)

    def logits(*tops):
        out = torch.rand(len(tops), V)
        for d, top in enumerate(tops):
            out[d, top] = 2.0 + random.random()
        return out

    for tops, want in (
        ((other, other, right, right, right, right), 2),
        ((right, right, right), 0),
        ((other, right, other, right, right, right), 3),
        ((right, other, other, right), 3),
        ((other, right, right, other), None),
        ((other, other, other), None),
    ):
        got = plain(answer(logits(*tops), right))
        names = " ".join("answer" if top == right else "other" for top in tops)
        if got == want and type(got) is type(want):
            continue
        if want is not None and got == tops.index(right):
            fail(f"on top at the depths: {names}. It was on top at {got} and lost it again: {want}")
        if want is None and got is not None:
            fail(
                f"on top at the depths: {names}. At the end it is not, so expected None, got {got}"
            )
        if want is not None and got == want + 1:
            fail(f"depths count from 0: expected {want}, got {got}")
        if want is not None and got == len(tops) - want:
            fail(f"that is how many depths agree, {got}: the first of them is {want}")
        fail(f"on top at the depths: {names}. Expected {want}, got {got}")

# %% ../../nbs/exercises/inside.ipynb #e7d53115
@exercise(hint="Three differences, answer minus other; then (patched - second) / (first - second).")
def check_share(answer):
    "The share of the logit difference that a patch restores."
    V = random.randint(5, 9)
    right, other = random.sample(range(V), 2)
    first, second, patched = 3 * torch.randn(3, V)
    # first, second, patched: the other logit, and the answer minus it
    values = ((0.0, 5.0, 8.0), (1.0, -8.0, -4.0), (-1.0, 1.0, 4.0))
    for x, (level, low, high) in zip((first, second, patched), values, strict=True):
        x[other], x[right] = level, level + random.uniform(low, high)
    a, b, c = (float(x[right] - x[other]) for x in (first, second, patched))
    want = (c - b) / (a - b)
    got = answer(first, second, patched, right, other)

    def softs(x):
        return float(x.softmax(0)[right] - x.softmax(0)[other])

    probs = (softs(patched) - softs(second)) / (softs(first) - softs(second))
    alone = [float(x[right]) for x in (first, second, patched)]
    for wrong, message in (
        (c / a, "you measured from 0: without a patch the second story's difference is not 0"),
        (1 - want, "that is what is missing: measure from the second story to the first"),
        (c - b, "that is in logits: divide by the whole difference between the stories"),
        ((c - b) / a, "the whole is from the second story to the first: first minus second"),
        ((c - b) / (a + b), "first minus second: the second story's difference is subtracted"),
        (probs, "those are probabilities: the logits add up along the stream, so take them"),
        (
            (alone[2] - alone[1]) / (alone[0] - alone[1]),
            "you looked at the answer alone: a patch that raises both logits restores nothing",
        ),
    ):
        if close(got, wrong, 1e-4) and not close(got, want, 1e-4):
            fail(message)
    if not close(got, want, 1e-4):
        fail(
            f"differences {a:.2f} (first), {b:.2f} (second), {c:.2f} (patched): "
            f"expected {want:.4f}, got {got}"
        )

# %% ../../nbs/exercises/inside.ipynb #71e508a6
@exercise(hint="The token at t stood at t - P before, and behind that comes t - P + 1.")
def check_induction(answer):
    "Mean attention of the second copy to the token behind the first."
    P = random.randint(4, 8)
    weights = torch.rand(2 * P, 2 * P).square().tril()
    weights = weights / weights.sum(1, keepdim=True)
    got = answer(weights, P)

    def mean(back, rows, count=None):
        return float(sum(weights[t, t - back] for t in rows)) / (count or len(rows))

    later, inner = range(P, 2 * P), range(P - 1, 2 * P)
    want = mean(P - 1, later)
    for wrong, message in (
        (mean(P, later), "that is the token itself, at t - P: the one behind it is wanted"),
        (mean(P + 1, range(P + 1, 2 * P)), "that is the token before the first copy"),
        (mean(P + 1, later), "that is the token before the first copy, and once a row too far"),
        (mean(1, later), "that is a head for the previous token"),
        (mean(P - 1, inner), "position P - 1 is in the first copy: begin at P"),
        (mean(P - 1, later, 2 * P), "divide by the P positions of the second copy, not by all"),
        (want * P, "that is the sum: the mean over P positions"),
        (
            float(sum(weights.t()[t, t - P + 1] for t in later)) / P,
            "rows look, columns are looked at: your indices are the other way round",
        ),
    ):
        if close(got, wrong, 1e-6) and not close(got, want):  # two means may be much alike
            fail(message)
    if not close(got, want):
        fail(f"for P = {P} expected {want:.4f}, got {got}")

# %% ../../nbs/exercises/inside.ipynb #9f15ad17
@exercise(hint="A dict from word to label: draw only when the word is not in it yet.")
def check_control(answer):
    "Each kind of word has one label by lot."
    n = random.randint(3, 6)
    kinds = [f"word{i}" for i in range(60)]
    words = [*kinds, *random.choices(kinds, k=60)]
    random.shuffle(words)
    seed = random.randrange(10**6)
    got = plain(answer(words, n, random.Random(seed)))
    if not isinstance(got, list) or len(got) != len(words):
        fail(f"return a list with one label for each of the {len(words)} words")
    if not all(isinstance(label, int) and 0 <= label < n for label in got):
        fail(f"labels are whole numbers from 0 to {n - 1}: rng.randrange(n) draws one")
    of = {}
    for word, label in zip(words, got, strict=True):
        of.setdefault(word, set()).add(label)
    if any(len(labels) > 1 for labels in of.values()):
        fail(
            "a word has two labels: drawn anew at each place, nothing could be learned, "
            "and every probe would seem to pass"
        )
    if len(set(got)) < 2:
        fail("every word has the same label: that is learned without looking")
    if plain(answer(words, n, random.Random(seed + 1))) == got:
        fail("another rng gives the same labels: they must be drawn by lot, not computed")
    if plain(answer(words, n, random.Random(seed))) != got:
        fail("the same rng gives other labels: draw from `rng` only")
