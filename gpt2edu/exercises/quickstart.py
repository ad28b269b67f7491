"""Checks for the exercises of ch01."""

# Made by tools/book.py from ../../book/exercises/quickstart.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_passes', 'check_progress', 'check_sentences']

# %% ../../nbs/exercises/quickstart.ipynb #6e1b0c30
import random

from gpt2edu.exercises.core import close, exercise, fail
from gpt2edu.train.config import preset
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/quickstart.ipynb #9e2be579
quiz = Quiz(
    Question(
        "A new model with 500 tokens in its vocabulary has a loss of 6.2 before any training. "
        "What does that say?",
        right=(
            "it gives all tokens about the same probability",
            "ln 500 is 6.21, the loss of a model that knows nothing. So it should start there.",
        ),
        wrong=(
            (
                "it was built with a mistake and has to be made anew",
                "A mistake would show as a first loss far from ln V; 6.2 is just ln 500.",
            ),
            (
                "it already knows which of the tokens are common",
                "Then its loss would be lower than ln 500, which is 6.21.",
            ),
        ),
    ),
    Question(
        "After training, the loss on the validation stories is lower than the bigram model's. "
        "What does this prove?",
        right=(
            "the model looks further back than one token",
            "Nobody who sees only one token back can beat the best table of pairs by much.",
        ),
        wrong=(
            (
                "the model has learnt the validation stories by heart",
                "It never learns from them: they were held out before training began.",
            ),
            (
                "the model cannot get any better on this text",
                "Only the floor says that, and the loss is still above it.",
            ),
        ),
    ),
    Question(
        "You lower the temperature from 1 to 0.5. What changes?",
        right=(
            "the choice among the next tokens",
            "Likely tokens become likelier before the dice are rolled.",
        ),
        wrong=(
            (
                "the parameters of the model",
                "They change only in training. Temperature acts on the probabilities afterwards.",
            ),
            (
                "the validation loss of the model",
                "The loss is measured on the model's own probabilities, without a temperature.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/quickstart.ipynb #1b169746
@exercise(
    hint="Tokens read: `config.max_steps * config.total_batch`. "
    "Divide them by the tokens that there are."
)
def check_passes(answer):
    "Steps times tokens per step, divided by the tokens of the text."
    for _ in range(3):
        steps, more = random.randint(100, 900), random.choice((2, 4, 8))
        c = preset("tiny", max_steps=steps, total_batch=2048 * more, micro_batch=8)
        n = random.randint(300, 900) * 1001
        got = answer(c, n)
        want = steps * c.total_batch / n
        if close(got, want):
            continue
        if close(got, steps * c.micro_batch * c.block_size / n):
            fail(
                "micro_batch × block_size is computed at once; "
                "a step may take several of those: use total_batch"
            )
        if close(got, c.total_batch / n):
            fail("that is one step: the run takes max_steps of them")
        if close(got, steps / n):
            fail("you counted steps, and a step reads total_batch tokens")
        if close(got, want * n):
            fail("those are the tokens read: divide by the tokens that there are")
        if close(got, 1 / want):
            fail("upside down: tokens read, divided by the tokens that there are")
        if got in (int(want), round(want)):
            fail(
                "you rounded: "
                f"a run may end in the middle of the text, here after {want:.3f} passes"
            )
        fail(
            f"{steps} steps of {c.total_batch} tokens over {n} tokens make {want:.4f} passes, "
            f"got {got}"
        )

# %% ../../nbs/exercises/quickstart.ipynb #e773def2
@exercise(hint="The whole way is `bigram - floor`; the way made is `bigram - loss`.")
def check_progress(answer):
    "0 at the bigram model, 1 at the floor, negative before."
    floor = random.uniform(0.5, 0.8)
    bigram = floor + random.uniform(1.2, 1.6)
    for loss in (
        floor + random.uniform(0.1, 0.4),
        bigram + random.uniform(0.3, 1.0),
        bigram,
        floor,
    ):
        got = answer(loss, bigram, floor)
        want = (bigram - loss) / (bigram - floor)
        if close(got, want):
            continue
        if close(got, 1 - want):
            fail(
                "that is the part of the way that is left: 1 must be the floor, 0 the bigram model"
            )
        if close(got, (bigram - loss) / bigram):
            fail("divide by the whole way, bigram - floor: nobody can get to a loss of 0")
        if close(got, bigram - loss):
            fail("those are nats: divide them by the whole way")
        if close(got, -want):
            fail("the sign is wrong: a lower loss is more progress")
        if want < 0 and close(got, 0):
            fail("before the bigram model the answer is negative; do not cut it off at 0")
        fail(
            f"loss {loss:.3f}, bigram {bigram:.3f}, floor {floor:.3f}: "
            f"expected {want:.3f}, got {got}"
        )

# %% ../../nbs/exercises/quickstart.ipynb #35b44da9
@exercise(hint="Add each piece; return as soon as `text.count('.') >= n`, and after the loop too.")
def check_sentences(answer):
    "Stops in time, and keeps the last full stop."
    for _ in range(3):
        n = random.randint(2, 4)
        words = random.choices(["Tom", " went", " to", " the", " hill"], k=40)
        pieces = [
            w
            for i, word in enumerate(words, start=1)
            for w in ([word, "."] if i % 5 == 0 else [word])
        ]
        end = [i for i, p in enumerate(pieces) if p == "."][n - 1] + 1
        taken = 0

        def stream(pieces=pieces, end=end, n=n):
            nonlocal taken
            for piece in pieces:
                taken += 1
                if taken > end + 1:
                    fail(
                        f"you read on after {n} full stops: "
                        "a model may write for ever, so stop inside the loop"
                    )
                yield piece

        got = answer(stream(), n)
        want = "".join(pieces[:end])
        if got == want[:-1]:
            fail("the last full stop is missing: add the piece first, then count")
        if taken > end:
            fail(
                f"you took one piece more than the {end} that were needed: "
                "count after adding, not before"
            )
        if got != want:
            fail(f"expected {want!r}, got {got!r}")
        short = "".join(pieces[: end - 2])
        if answer(iter(pieces[: end - 2]), n) != short:
            fail("if the text ends before there are n sentences, return what there is")
        glued = ["Tom went up", " the hill.", " Sue", " sat", " down.", " Ben", " ran."]
        if answer(iter(glued), 2) != "".join(glued[:5]):
            fail("' hill.' is one piece: count the full stops of the text, not pieces that are one")
    if answer(iter([]), 2) != "":
        fail("no piece at all: return the empty text")
