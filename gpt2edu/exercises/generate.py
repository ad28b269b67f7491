"""Checks for temperature, top-k, top-p, picking by one number, and the size of a cache."""

# Made by tools/book.py from ../../book/exercises/generate.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'softmax', 'random_probs', 'check_temperature', 'check_top_k', 'check_top_p',
           'check_pick', 'check_fit']

# %% ../../nbs/exercises/generate.ipynb #10f8cc70
import math

import numpy as np

from gpt2edu.exercises.core import close, exercise, fail, plain
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/generate.ipynb #9cbc1371
quiz = Quiz(
    Question(
        "With `top_p=0.9`, how many of the 50,257 tokens can be drawn?",
        right=(
            "it changes with every position of the text",
            "Where the model is sure, one token may hold 0.9; where it is not, hundreds do.",
        ),
        wrong=(
            (
                "nine tenths of the vocabulary, at each step",
                "p is a share of the probability, not of the vocabulary.",
            ),
            (
                "those whose own probability is 0.9 or more",
                "p is compared with a running sum. A single token seldom reaches it.",
            ),
        ),
    ),
    Question(
        "A KV cache keeps the keys and values of earlier positions. "
        "Why are they still right after another token is appended?",
        right=(
            "no position attends to what comes after it",
            "The model is causal: all that a position computes depends on itself and the past.",
        ),
        wrong=(
            (
                "the new token differs little from the last one",
                "The stored numbers are exact for any continuation, however surprising.",
            ),
            (
                "the model's weights are frozen when it generates",
                "Fixed weights are needed, but without a causal mask the keys of deeper layers "
                "would change with every appended token.",
            ),
        ),
    ),
    Question(
        "A sample is printed every hundred steps of training, drawn from torch's global generator. "
        "What goes wrong?",
        right=(
            "the run is another one than without samples",
            "Every draw moves the global generator on, so later random numbers differ.",
        ),
        wrong=(
            (
                "every one of the samples is the same text",
                "The global generator moves on with each draw, so the samples differ.",
            ),
            (
                "the gradients of the sample join the step's",
                "Generation runs in inference mode, where nothing records gradients.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/generate.ipynb #22965279
def softmax(x):
    "Probabilities from logits."
    e = np.exp(x - x.max())
    return e / e.sum()


def random_probs(n=8):
    "Distinct probabilities in random order, none of them tiny."
    rng = np.random.default_rng()
    p = rng.permutation(np.arange(1, n + 1)) + rng.uniform(0, 0.5, size=n)
    return p / p.sum()

# %% ../../nbs/exercises/generate.ipynb #391464fb
@exercise(hint="softmax(logits / T): the division comes before the exponential.")
def check_temperature(answer):
    "Sharper below 1, flatter above, and no overflow."
    rng = np.random.default_rng()
    x = rng.normal(size=7) * 2
    T = rng.uniform(1.5, 3)
    x[rng.integers(7)] = rng.uniform(2, 4)  # divided by 0.001, its exponential overflows
    got = answer(x.copy(), T)
    if close(got, softmax(x * T)):
        fail("you multiply by the temperature: a high temperature should flatten, so divide")
    if close(got, softmax(x) / T):
        fail("you divide the probabilities: they no longer sum to 1. Divide the logits")
    if close(got, softmax(softmax(x) / T)):
        fail("you take softmax twice: divide the logits, not the probabilities")
    if close(got, x / T / (x / T).sum()):
        fail("logits are not divided by their sum, they may be negative: exponentials are")
    if close(got, np.exp(x / T)):
        fail("the exponentials are not divided by their sum")
    if not close(got, softmax(x / T)):
        fail(
            f"at T={T:.2f} the largest probability should be {softmax(x / T).max():.4f}; "
            f"got {np.max(got):.4f}"
        )
    if not close(answer(x.copy(), 1.0), softmax(x)):
        fail("at T=1 the temperature should change nothing")
    if not close(answer(x.copy(), 1e-3), softmax(x / 1e-3)):
        fail(
            "at T=0.001 it overflows: subtract the largest logit first, which changes nothing else"
        )

# %% ../../nbs/exercises/generate.ipynb #cb59792d
@exercise(hint="np.argsort(-probs)[:k] are the places of the k largest.")
def check_top_k(answer):
    "The k largest, summing to 1, in their places."
    k = int(np.random.default_rng().integers(2, 6))
    order = np.arange(8)
    while set(range(k)) in (set(order[:k]), set(order[-k:])):  # the first k are neither
        probs = random_probs()
        order = np.argsort(-probs)
    want = np.zeros_like(probs)
    worst = np.zeros_like(probs)
    want[order[:k]] = probs[order[:k]]
    worst[order[-k:]] = probs[order[-k:]]
    got = answer(probs.copy(), k)
    if close(got, want):
        fail("the kept probabilities must sum to 1 again: divide by their sum")
    want /= want.sum()
    if close(got, want):
        for k, n in ((1, 1), (len(probs), len(probs))):
            edge = np.where(probs >= probs[order[n - 1]], probs, 0)
            if not close(answer(probs, k), edge / edge.sum()):
                fail(f"k={k} of {len(probs)} should keep {n}")
        return
    for wrong in (k - 1, k + 1):
        if close(
            got,
            np.where(np.isin(np.arange(8), order[:wrong]), probs, 0) / probs[order[:wrong]].sum(),
        ):
            fail(f"you keep {wrong} tokens, and k={k}: look at the border")
    if close(got, softmax(np.where(want > 0, probs, -np.inf))):
        fail("these are probabilities already, not logits: divide by their sum, no softmax")
    if close(got, worst / worst.sum()):
        fail("you keep the k smallest: argsort goes up, so negate or reverse")
    if close(got, np.where(np.arange(len(probs)) < k, probs, 0) / probs[:k].sum()):
        fail("you keep the first k tokens, not the k most probable ones")
    if close(np.sort(np.ravel(got)), np.sort(want[want > 0])) or close(np.ravel(got), want[order]):
        fail("the probabilities are right but not in their places: entry i belongs to token i")
    fail(f"expected {want.round(3).tolist()}, got {np.round(np.asarray(got, float), 3).tolist()}")

# %% ../../nbs/exercises/generate.ipynb #7e96521e
@exercise(hint="Rank; a token stays if the sum of those ranked higher is below p.")
def check_top_p(answer):
    "The fewest tokens that hold at least p."
    order = np.arange(8)
    while max(order[:4]) < 5:  # the four largest are not among the first
        probs = random_probs()
        order = np.argsort(-probs)
    sums = np.cumsum(probs[order])

    def keep(n):
        kept = np.zeros_like(probs)
        kept[order[:n]] = probs[order[:n]]
        return kept / max(kept.sum(), 1e-9)

    p = (sums[2] + sums[3]) / 2  # three are too few, four enough
    got = answer(probs.copy(), p)
    if not close(got, keep(4)):
        if close(got, keep(3)):
            fail(
                "the token that crosses the line is missing: "
                "three hold less than p, so the fourth stays"
            )
        if close(got, keep(5)):
            fail("one token too many: the fewest that hold at least p")
        first = np.cumsum(probs) - probs < p
        if close(got, probs * first / (probs * first).sum()):
            fail("you add up in the order of ids: rank the tokens first, the most probable first")
        if close(got, probs * (probs >= p)) or close(got, probs * (probs > 1 - p)):
            fail("p is a limit for the sum, not for each token")
        if close(got, keep(4) * sums[3]):
            fail("the kept probabilities must sum to 1 again: divide by their sum")
        fail(
            f"expected {keep(4).round(3).tolist()}, "
            f"got {np.round(np.asarray(got, float), 3).tolist()}"
        )
    if not close(answer(probs.copy(), sums[0] / 2), keep(1)):
        fail("for a p below the largest probability one token must stay, not none")
    exact = np.array([0.125, 0.5, 0.125, 0.25])  # sums without rounding: 0.5, 0.75, 0.875, 1
    if not close(answer(exact, 0.75), [0, 2 / 3, 0, 1 / 3]):
        fail("0.5 and 0.25 hold exactly p=0.75, which is at least p: no third token")
    if not close(answer(exact, 1.0), exact):
        fail("with p=1 every token is needed")

# %% ../../nbs/exercises/generate.ipynb #b73b92e1
@exercise(
    hint="Add the probabilities up from the left; "
    "the first sum that is above u belongs to the token."
)
def check_pick(answer):
    "Each token as often as its probability, and never one of probability 0."
    probs = np.array([0.25, 0.0, 0.5, 0.25, 0.0])
    us = [0.0, 0.1, 0.25, 0.4, 0.7, 0.75, 0.999]
    got = [plain(answer(probs, u)) for u in us]
    want = [0, 0, 2, 2, 2, 3, 3]
    if any(g is None for g in got):
        fail(f"for u={us[[g is None for g in got].index(True)]} nothing is returned")
    got = [int(g) for g in got]
    if got == [2] * len(us):
        fail("you take the most probable token: that is greedy, u plays no part")
    if got == [int(np.abs(probs - u).argmin()) for u in us]:
        fail("you compare u with the probabilities: compare it with their running sum")
    if got == [int(np.searchsorted(np.sort(probs).cumsum(), u, side="right")) for u in us]:
        fail("you sorted the probabilities: the shares lie in the order of the tokens")
    if got == [w + 1 for w in want]:
        fail("one too far: count the right ends that are at most u")
    if 1 in got or 4 in got:
        fail(
            "a token of probability 0 was picked: "
            "at u = 0.25 its empty share begins, and the next one too"
        )
    if got != want:
        fail(f"for u={us} expected {want}, got {got}")
    if (got := plain(answer(np.array([0.5, 0.5]), 0.5))) != 1:
        fail(f"shares are closed on the left: with (0.5, 0.5), u=0.5 picks 1, you picked {got}")
    if (got := plain(answer(np.array([0.0, 1.0]), 0.0))) != 1:
        fail(f"a token of probability 0 was picked at u=0: the share of token {got} is empty")

# %% ../../nbs/exercises/generate.ipynb #eafe8b20
@exercise(
    hint="Key and value: 2 vectors of n_embd numbers, per layer and position; 2 bytes a number."
)
def check_fit(answer):
    "Bytes in the cache: 2 · layers · positions · width · bytes."
    rng = np.random.default_rng()
    n_layer = int(rng.integers(6, 40))
    n_embd = 64 * int(rng.integers(5, 20))
    T = int(rng.integers(500, 2000))
    one = 2 * n_layer * T * n_embd * 2
    n = int(rng.integers(20, 90))
    free = n * one + one * 2 // 3
    got = answer(free, n_layer, n_embd, T)
    if close(got, free / one) or close(got, n + 1):
        fail("two thirds of a text do not fit: round down")
    for message, factor in {
        "a factor of 2 is missing: there is a key and a value, and each number has two bytes": 2,
        "two factors of 2 are missing: key and value, and two bytes a number": 4,
        "the layers are missing: each has its own keys and values": n_layer,
        "too few: bfloat16 takes two bytes a number, not four": 0.5,
        "the positions are missing: every one of T tokens is kept": T,
    }.items():
        if any(close(got, f(free * factor / one)) for f in (math.floor, round)):
            fail(message)
    if not close(got, n):
        fail(f"for n_layer={n_layer}, n_embd={n_embd}, T={T}, free={free} expected {n}, got {got}")
    for room, want in ((n * one, n), (n * one - 1, n - 1), (one - 1, 0)):
        if not close(got := answer(room, n_layer, n_embd, T), want):
            fail(f"a text needs {one:,} bytes, so {room:,} bytes hold {want}; you answered {got}")
