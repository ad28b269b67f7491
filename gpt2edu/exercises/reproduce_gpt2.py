"""Checks for the exercises of ch22."""

# Made by tools/book.py from ../../book/exercises/reproduce_gpt2.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_step_plan', 'check_bill', 'check_off_track']

# %% ../../nbs/exercises/reproduce_gpt2.ipynb #bcdf217c
import random

from gpt2edu.exercises.core import close, exercise, fail
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/reproduce_gpt2.ipynb #26d4bd2f
quiz = Quiz(
    Question(
        "Your model reaches a lower loss than OpenAI's `gpt2` on FineWeb-Edu, and the same "
        "HellaSwag score. What may you say?",
        right=(
            "on this kind of text it predicts better than `gpt2`",
            "Yours was trained on such text and OpenAI's was not; on other text it may be worse.",
        ),
        wrong=(
            (
                "it is a better language model than `gpt2`",
                "The loss is measured on text that only your model was trained for.",
            ),
            (
                "nothing, as the two losses have different units",
                "Both use one tokenizer and one text, so their losses can be compared.",
            ),
        ),
    ),
    Question(
        "One run reaches 60 % MFU on an A100, another 41 % on an H100, with the same code. "
        "Which of them trains faster?",
        right=(
            "the H100: 41 % of a peak three times as high is more",
            "Speed is the share times the peak, so shares compare only on one kind of card.",
        ),
        wrong=(
            (
                "the A100: a larger share of its peak is used",
                "A share says how well a card is used, not how fast it is.",
            ),
            (
                "both alike: the same code does the same operations in every second",
                "The operations for a token are the same; how many a second are done differs.",
            ),
        ),
    ),
    Question(
        "A run of 10 billion tokens is stopped at 5 billion. Its loss is worse than that of a "
        "run that was planned for 5 billion. Why?",
        right=(
            "its learning rate had not come down yet",
            "The schedule follows the horizon, and the last fall of the loss needs low rates.",
        ),
        wrong=(
            (
                "its batches were drawn from twice as many different documents",
                "Both read new text only; more variety would not make the loss worse.",
            ),
            (
                "its warmup had taken longer than the other's",
                "The warmup has a fixed number of steps and is over early in both.",
            ),
            (
                "its weights had begun to overfit",
                "Text that is read once cannot be known by heart.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/reproduce_gpt2.ipynb #f65ace79
@exercise(
    hint="All GPUs together compute gpus * micro_batch * block_size tokens at once; "
    "a step needs total_batch of them."
)
def check_step_plan(answer):
    "Whole steps, and micro-batches on each GPU; a batch that cannot be cut is refused."
    gpus = random.choice((2, 3, 4, 8))
    B = random.choice((4, 8, 16))
    T = random.choice((256, 1024))
    micro = random.randint(2, 5)
    batch = gpus * B * T * micro
    tokens = batch * random.randint(100, 900) + batch * 3 // 4
    steps = tokens // batch
    got = answer(tokens, batch, B, T, gpus)
    if close(got, (steps + 1, micro)):
        fail(f"you rounded up: the tokens are enough for {steps} whole steps and a part of one")
    if close(got, (tokens / batch, micro)):
        fail("a step is taken whole or not at all: round down")
    if close(got, (micro, steps)):
        fail("the right numbers in the wrong order: steps first")
    if close(got, (steps, micro * gpus)):
        fail("those are the micro-batches of all GPUs together; each computes its share")
    if close(got, (steps, micro * T)):
        fail(
            "a micro-batch has micro_batch windows of block_size tokens, so block_size has to enter"
        )
    if close(got, (tokens // (gpus * B * T), micro)):
        fail("those are micro-batches in the run; a step takes total_batch tokens")
    if close(got, steps):
        fail("two numbers are wanted: the steps, and the micro-batches of each GPU")
    if not close(got, (steps, micro)):
        fail(
            f"{tokens:,} tokens, {batch:,} a step, {B} x {T} on {gpus} GPUs: "
            f"expected {(steps, micro)}, got {got!r}"
        )
    if not close(got := answer(batch * 7, batch, B, T, gpus), (7, micro)):
        fail(f"tokens for exactly 7 steps make 7 steps; got {got!r}")
    if not close(got := answer(batch - 1, batch, B, T, gpus), (0, micro)):
        fail(f"one token too few for a step makes no step; got {got!r}")
    try:
        got = answer(tokens, batch + 1, B, T, gpus)
    except ValueError:
        return
    fail(
        f"{batch + 1:,} tokens are no whole number of micro-batches on {gpus} GPUs: "
        f"raise ValueError; you returned {got!r}"
    )

# %% ../../nbs/exercises/reproduce_gpt2.ipynb #85aa6ab3
@exercise(
    hint="seconds = tokens * flops_per_token / (gpus * peak * share). "
    "A bill counts hours times GPUs times price."
)
def check_bill(answer):
    "Operations become seconds, hours and dollars; the dollars do not depend on the number of GPUs."
    tokens = random.randint(1, 20) * 10**9
    flops = random.uniform(0.5, 5) * 1e9
    gpus = random.randint(2, 16)
    peak = random.uniform(100, 900) * 1e12
    share = random.uniform(0.2, 0.6)
    price = random.uniform(0.5, 4)
    hours = tokens * flops / (gpus * peak * share) / 3600
    want = (hours, hours * gpus * price)
    got = answer(tokens, flops, gpus, peak, share, price)
    if close(got, want):
        return
    if close(got, (hours * share, hours * share * gpus * price)):
        fail("at the full peak: nobody gets that; the share has to enter")
    if close(got, (hours * share**2, hours * share**2 * gpus * price)):
        fail("the share makes a run longer: divide by it")
    if close(got, (hours, hours * price)):
        fail("that is the price of one GPU; all of them are paid for, all the time")
    total = hours * gpus  # GPU-hours
    if close(got, (total, total * gpus * price)) or close(got, (total, total * price)):
        fail("those are GPU-hours; the run takes fewer, since the GPUs work at the same time")
    if close(got, (hours * 3600, hours * 3600 * gpus * price)):
        fail("those are seconds; an hour has 3,600 of them")
    fail(f"expected {want[0]:.3f} hours and {want[1]:.2f} dollars, got {got!r}")

# %% ../../nbs/exercises/reproduce_gpt2.ipynb #8ca927cf
@exercise(
    hint="Collect {step: loss} of the val events, the later line wins; "
    "then look for `not loss <= point + tolerance`."
)
def check_off_track(answer):
    "The first step that is too high, and none for a run that is fine."
    steps = [250 * i for i in range(1, 9)]
    points = {s: 6.0 * 0.9**i + random.uniform(0, 0.02) for i, s in enumerate(steps)}

    # a good run: training losses are noisy, one loss is lower than published,
    # two steps are to come
    def log(**changes):
        for i, s in enumerate(steps[:-2]):
            usual = points[s] + (-0.3 if i == 1 else random.uniform(-0.08, 0.08))
            yield {"event": "val", "step": s, "loss": changes.get(f"s{s}", usual)}
            noisy = points[s] + (0.8 if i == 0 else random.uniform(-0.8, 0.8))
            yield {"event": "train", "step": s, "loss": noisy}

    def expect(events, want, *why):
        if (got := answer(events, points, 0.1)) != want:
            likely = next((text for value, text in why if got == value), "")
            fail(likely or f"expected {want}, got {got!r}")

    text = "a training loss is that of one batch, and noisy: look at `val` events only"
    lower = "lower than published is not off track"
    late = "the run has not come so far yet: a step without a line says nothing"
    expect(list(log()), None, (steps[0], text), (steps[1], lower), (steps[-2], late))
    first, second = steps[2], steps[4]
    bad = list(log(**{f"s{first}": points[first] + 0.3, f"s{second}": points[second] + 0.3}))
    last = "that is the last one; the first is what you want to know, since it costs least"
    missed = f"the loss at {first} is 0.3 too high, and 0.1 is allowed"
    expect(bad, first, (second, last), (None, missed))
    lost = list(log(**{f"s{second}": float("nan")}))
    nan = "nan compares as False with everything: `nan > limit` does not find it"
    expect(lost, second, (None, nan))
    healed = [
        *bad,
        {"event": "val", "step": first, "loss": points[first]},
        {"event": "val", "step": second, "loss": points[second]},
    ]
    resumed = "after a resume the later line of a step counts; you took the first"
    expect(healed, None, (first, resumed))
    edge = [{"event": "val", "step": 250, "loss": 3.25}]
    if (got := answer(edge, {250: 3.0}, 0.25)) is not None:
        fail(f"a loss of exactly point + tolerance is still on track; you answered {got!r}")
    if (got := answer([], points, 0.1)) is not None:
        fail(f"no line at all says nothing; you answered {got!r}")
    if (got := answer(edge, {500: 3.0, 250: 2.0}, 0.25)) != 250:
        fail(f"step 250 is 1.25 too high; you answered {got!r}")
