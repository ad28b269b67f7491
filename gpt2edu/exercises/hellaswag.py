"""The checks of the HellaSwag chapter's exercises: they read an answer and name the mistake."""

# Made by tools/book.py from ../../book/exercises/hellaswag.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_choose', 'check_border', 'check_who_sees', 'check_paired',
           'check_seen_before']

# %% ../../nbs/exercises/hellaswag.ipynb #3614babf
import math
import random

import numpy as np

from gpt2edu.exercises.core import close, exercise, fail, plain
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/hellaswag.ipynb #68c9406a
quiz = Quiz(
    Question(
        "A scorer picks the ending with the lowest summed surprise. "
        "Which endings does it prefer for no good reason?",
        right=(
            "short ones: each token adds surprise",
            "The surprise of a token is never negative, so a sum grows with the length.",
        ),
        wrong=(
            (
                "long ones: they fill more of the row",
                "More tokens mean more surprise, and the lowest sum wins.",
            ),
            (
                "those made of one rare word in many pieces",
                "That is the bias of the mean: the later pieces follow from the first.",
            ),
        ),
    ),
    Question(
        "On 10,042 items model A scores 0.29 and model B 0.30. "
        "When does that show that B is better?",
        right=(
            "if they disagree on only a few of them",
            "Both answered the same items, so only those where exactly one is right add noise.",
        ),
        wrong=(
            (
                "always, since 10,042 is a large number",
                "For independent scores the difference is within 1.96 standard errors.",
            ),
            (
                "never, since the errors of the two overlap",
                "Overlapping error bars assume items of their own; here the items are the same.",
            ),
        ),
    ),
    Question(
        "Four endings follow a context in one row of the model. "
        "Why does each still get the surprise that it has alone?",
        right=(
            "mask and positions hide the other three from it",
            "Its tokens see the context and themselves, at the places they would have alone.",
        ),
        wrong=(
            (
                "the causal mask stops it from seeing the others",
                "A causal mask hides later tokens only; the endings before it would be seen.",
            ),
            (
                "its loss is averaged over its own tokens alone",
                "That chooses which losses count, but each was computed with what the token saw.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/hellaswag.ipynb #ce486d42
def _endings():
    "Four endings: by the product a short one is best, by the mean a long one; two decoys."
    short, long = random.uniform(0.28, 0.32), random.uniform(0.48, 0.52)
    # the third has the likeliest token
    endings = [[short] * 2, [long] * 4, [0.95, 0.05, 0.05], [0.08] * 3]
    order = random.sample(range(4), 4)
    return [endings[i] for i in order], order.index(0), order.index(1), order.index(2)


@exercise(hint="sums = [-sum(log p)], means = sums by lengths; .index(min(...)) of each.")
def check_choose(answer):
    "Chooses by sum and by mean."
    for _ in range(3):
        probs, by_sum, by_mean, decoy = _endings()
        got = answer([list(p) for p in probs])
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            fail(f"return two numbers, the choice by sum and the choice by mean; got {got!r}")
        got = (int(got[0]), int(got[1]))
        want = (by_sum, by_mean)
        sums = [-sum(map(math.log, p)) for p in probs]
        means = [s / len(p) for s, p in zip(sums, probs, strict=True)]
        if got == (sums.index(max(sums)), means.index(max(means))):
            fail("you choose the most surprising ending: the least surprise is the likeliest")
        if got == want[::-1]:
            fail("the two are swapped: first the choice by sum, then by mean")
        plain = [sum(p) for p in probs]
        if got[0] == plain.index(max(plain)) != by_sum:
            fail(
                "the first is chosen by the plain sum: you divided it, or you added probabilities; "
                "they multiply, so add their logarithms"
            )
        if got == (by_sum, by_sum):
            fail("the second is not divided by the number of tokens")
        if decoy in got:
            fail("you look at the likeliest token only: every token of the ending counts")
        if got != want:
            fail(f"for {[[round(x, 2) for x in p] for p in probs]} expected {want}, got {got}")

# %% ../../nbs/exercises/hellaswag.ipynb #385e87b2
def _encode(text):
    "A small tokenizer: a token is a word with the space before it, or a space that is left over."
    ids = []
    word = ""
    for i, c in enumerate(text):
        if c == " ":
            ids += [word] if word else []
            word = " "
            if i + 1 == len(text) or text[i + 1] == " ":
                ids = [*ids, " "]
                word = ""
        else:
            word += c
    return [*ids, word] if word else ids


@exercise(hint="begin = encode(context.rstrip()); then encode(f'{context} {ending}')[len(begin):].")
def check_border(answer):
    "Cuts where the harness cuts."
    words = random.sample("ada bo cat dog elm fig gem hat ink jam".split(), 6)
    for spaces in (0, 1, 2):
        context = " ".join(words[:4]) + " " * spaces
        ending = " ".join(words[4:])
        got = tuple(plain(answer(_encode, context, ending)))
        begin = _encode(context.rstrip())
        want = (begin, _encode(f"{context} {ending}")[len(begin) :])
        if len(got) != 2 or isinstance(got[0], str):
            fail("return two lists of ids, the context's and the ending's")
        if got == want[::-1]:
            fail("the two are swapped: the context's ids first")
        if got == (begin, _encode(f"{context} {ending}")):
            fail("the ending's ids still have the context in front: cut at its length")
        if got[1] == _encode(ending):
            fail("the space is lost: the ending begins with a word that has no space before it")
        if not spaces and got[1] == _encode(f"{context}{ending}")[len(begin) :]:
            fail("context and ending are joined by a space, besides those that the context has")
        if spaces and got[0] == _encode(context):
            fail("the context's last spaces stay with the context: they belong to the ending")
        if spaces and got[1] == _encode(f" {ending}"):
            fail("the context's last spaces are gone: they go over to the ending")
        if got != want:
            fail(f"for {context!r} and {ending!r} expected {want}, got {got}")

# %% ../../nbs/exercises/hellaswag.ipynb #0e6a22ba
@exercise(
    hint="Give each token a branch: 0 in the context, j in ending j. "
    "Past, and (same branch or the key's branch is 0)."
)
def check_who_sees(answer):
    "The context is seen by all, an ending by itself."
    n = random.randint(2, 5)
    ends = random.sample(range(1, 6), 4)
    branch = np.array([0] * n + [j for j, k in enumerate(ends, start=1) for _ in range(k)])
    T = len(branch)
    past = np.tril(np.ones((T, T), bool))
    same = branch[:, None] == branch
    want = past & (same | (branch == 0))
    got = np.asarray(answer(n, list(ends)))
    if got.shape != (T, T):
        fail(f"expected the shape {(T, T)}: the context has rows and columns too; got {got.shape}")
    got = got.astype(bool)
    if (got == past).all():
        fail(
            "the endings see each other: the second would be read as the continuation of the first"
        )
    if (got == (past & same)).all():
        fail("the endings do not see the context")
    if (got == (same | (branch == 0))).all():
        fail("tokens see the future of their own ending: only the past, and themselves")
    if (got == want.T).all():
        fail("rows and columns are swapped: entry [t, s] says whether t sees s")
    if (got == (want & ~np.eye(T, dtype=bool))).all():
        fail("a token sees itself too")
    if (got == (want & ((branch > 0) | (branch[:, None] > 0)))).all():
        fail("the context does not see itself: its tokens see those before them")
    if (got == ~want).all():
        fail("the mask is the wrong way round: True means that t sees s")
    if not (got == want).all():
        t, s = np.argwhere(got != want)[0]
        fail(f"n={n}, ends={ends}: whether {t} sees {s} should be {bool(want[t, s])}")

# %% ../../nbs/exercises/hellaswag.ipynb #2f5a2f27
@exercise(hint="d = b - a as numbers; d.mean(), d.std() / sqrt(n).")
def check_paired(answer):
    "The same items, so their differences."
    rng = np.random.default_rng()
    n = int(rng.integers(400, 900))
    a = rng.random(n) < 0.3
    b = np.where(rng.random(n) < 0.15, rng.random(n) < 0.6, a)  # mostly the same answers
    d = b.astype(float) - a
    got = answer(a.copy(), b.copy())
    want = (d.mean(), d.std() / math.sqrt(n))
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        fail(f"return the difference and its standard error; got {got!r}")
    p, q = a.mean(), b.mean()
    if close(got[0], -want[0], 1e-9) and want[0]:
        fail("the sign: B minus A")
    if close(got[1], math.sqrt((p * (1 - p) + q * (1 - q)) / n), 1e-6):
        fail(
            "that is the error for two models with items of their own: "
            "here they share them, which makes it smaller"
        )
    if close(got[0], d.sum()):
        fail("that is the number of items; divide by all of them")
    if close(got[1], np.abs(d).mean()) or close(got[1], d.var() / math.sqrt(n), 1e-6):
        fail("the standard error is the standard deviation over the root of n; this is not it")
    if close(got[1], d.std(), 1e-6):
        fail("that is the spread of one item: the error of a mean is smaller by the root of n")
    if close(got[1], d.std() / n, 1e-6):
        fail("divide by the root of n, not by n")
    if not close(got, want, 1e-4) and not close(got, (want[0], d.std(ddof=1) / math.sqrt(n)), 1e-4):
        fail(
            f"expected {want[0]:.4f} ± {want[1]:.4f}, got {float(got[0]):.4f} ± {float(got[1]):.4f}"
        )
    if not close(answer(a, a), (0.0, 0.0), 1e-9):
        fail("a model compared with itself: the difference is 0, and so is its error")

# %% ../../nbs/exercises/hellaswag.ipynb #9558324a
@exercise(
    hint="{tuple(words[a:a+n]) for a in range(len(words) - n + 1)} "
    "of the test and of each training text; & of the two."
)
def check_seen_before(answer):
    "Counts runs of words."
    v = [f"w{i}" for i in random.sample(range(1000), 40)]
    n = random.randint(3, 4)
    test = v[:12]
    training = [
        " ".join(v[20:30] + v[: n + 1] + v[30:34]),
        " ".join(v[8:7:-1] + v[4 : 4 + n] + v[34:]),
    ]
    # the first holds 2 runs of n words, the second one more
    total = len(test) - n + 1
    got = answer(" ".join(test), list(training), n)
    want = 3 / total
    words = set(" ".join(training).split())
    if close(got, sum(w in words for w in test) / len(test)):
        fail("you count words: runs of n words in their order are asked for")
    if close(got, 3):
        fail("that is a number, not a share: divide by the n-grams of the test text")
    if close(got, 3 / len(test)):
        fail("divide by the number of n-grams; it is smaller than the number of words")
    if close(got, 3 / (total - 1)):
        fail("the last n-gram is missing: there are words - n + 1")
    if close(got, 2 / total):
        fail("you look at the first training text only")
    if not close(got, want):
        fail(f"expected {want:.3f}, got {float(got):.3f}")
    glued = answer(" ".join(v[:n]), [" ".join(v[: n - 1]), " ".join(v[n - 1 :])], n)
    if not close(glued, 0):
        fail("a run across the border of two training texts does not count")
    if not close(answer(" ".join(v[:n]), [" ".join(v)], n), 1):
        fail("a test text of exactly n words that was read has the share 1")
    if not close(answer(" ".join(test), [], n), 0):
        fail("no training text: nothing was seen before")
    if not close(answer("w1", list(training), n), 0):
        fail("a text of fewer than n words has no n-gram: return 0")
