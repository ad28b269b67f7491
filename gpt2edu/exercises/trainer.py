"""The checks of the trainer chapter's exercises: they read an answer and name the mistake."""

# Made by tools/book.py from ../../book/exercises/trainer.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_micro_batches', 'check_due_steps', 'check_judged', 'check_spike',
           'check_first_windows']

# %% ../../nbs/exercises/trainer.ipynb #ac37567e
import random

from gpt2edu.exercises.core import exercise, fail, plain
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/trainer.ipynb #2239bf45
quiz = Quiz(
    Question(
        "A step adds up 8 micro-batches and forgets to divide their losses by 8. "
        "What does an AdamW run with clipping look like?",
        right=(
            "almost right: the curve falls, and every step is clipped",
            "AdamW divides by the gradient's size, so a factor of 8 hardly shows; only the norm "
            "in the log is too large.",
        ),
        wrong=(
            (
                "it diverges: the weights move eight times as far as they should",
                "With SGD they would. AdamW's update does not grow with the gradient.",
            ),
            (
                "it learns slower, as if the batch held one piece only",
                "All eight pieces are in the sum; it is too large, and nothing is lost.",
            ),
        ),
    ),
    Question(
        "A checkpoint stores the loader's own number after a step. What does the resumed run do?",
        right=(
            "it skips one micro-batch, and nothing looks wrong",
            "The loader had read one micro-batch ahead, so its number is too high by that much.",
        ),
        wrong=(
            (
                "it trains on one micro-batch twice, and repeats its loss",
                "That would need a number that is too low. Reading ahead makes it too high.",
            ),
            (
                "it continues exactly where the killed run had stopped",
                "The loader was ahead of the training; the position of the steps is the right one.",
            ),
        ),
    ),
    Question(
        "Two ranks train, and a SIGTERM reaches rank 1 alone. "
        "Why does it not simply save and exit?",
        right=(
            "rank 0 would wait for its gradients until a timeout",
            "Every step ends in an all-reduce, which needs all ranks; so they agree on the last "
            "step.",
        ),
        wrong=(
            (
                "it holds only half of the weights, and rank 0 the rest",
                "Under DDP every rank has all the weights; the data are what is shared out.",
            ),
            (
                "a process cannot save after it has received a SIGTERM",
                "It can: the signal is only noted, and SIGKILL comes seconds later.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/trainer.ipynb #db461358
@exercise(
    hint="divmod(total_batch, micro_batch * block_size * world_size) "
    "gives the number and what is left over."
)
def check_micro_batches(answer):
    "Counts a rank's micro-batches; refuses what does not divide in one line that names the sizes."
    b = random.randint(2, 9)
    T = 16 * random.randint(2, 9)
    W = random.randint(2, 5)
    n = random.randint(2, 9)
    total = b * T * W * n
    got = plain(answer(total, b, T, W))
    if got == n * W:
        fail(f"{W} ranks work at once: one of them computes {n} micro-batches a step, not {n * W}")
    if got == b * W * n:
        fail("you counted windows; a micro-batch holds micro_batch of them")
    if got != n:
        fail(
            f"total_batch={total}, micro_batch={b}, block_size={T}, world_size={W}: "
            f"expected {n}, got {got!r}"
        )
    if not isinstance(got, int):
        fail(f"{got!r} is not a whole number; use // or divmod")
    wrong = total + b * T  # a micro-batch more than the ranks can share
    try:
        got = answer(wrong, b, T, W)
    except ValueError as e:
        text = str(e)
    except Exception as e:  # noqa: BLE001
        fail(f"a user's mistake is a ValueError, not {type(e).__name__}")
    else:
        fail(
            f"{wrong} tokens are not a whole number of micro-batches of {b * T * W}, "
            f"and you returned {got!r}: some windows would be lost silently"
        )
    if "\n" in text.strip():
        fail("the message has more than one line")
    missing = [
        name
        for name, value in (("total_batch", wrong), ("micro_batch", b))
        if name not in text or str(value) not in text
    ]
    if missing:
        fail(
            f"the message should name {' and '.join(missing)} with the value that was given; "
            f"it says {text!r}"
        )
    if (got := answer(T, 1, T, 1)) != 1:
        fail(f"one window, one rank: expected 1, got {got!r}")

# %% ../../nbs/exercises/trainer.ipynb #4d4ff26c
@exercise(
    hint="Multiples of `every` above `start`, up to max_steps; "
    "then add max_steps unless it is there already."
)
def check_due_steps(answer):
    "The clock does not shift on a resume, and the last step is due exactly once."
    every = random.randint(5, 20)
    k = random.randint(3, 6)
    rest = random.randint(1, every - 1)
    end = every * k + rest
    want = [every * i for i in range(1, k + 1)] + [every * k + rest]
    got = plain(answer(0, end, every))
    if got == want[:-1]:
        fail(
            f"step {end} is the last one and is not due: "
            f"what was learned since step {every * k} is neither judged nor saved"
        )
    if got and got[0] == 0:
        fail("step 0 is due before anything has been learned; the count begins after `start`")
    if got != want:
        fail(f"start=0, max_steps={end}, every={every}: expected {want}, got {got}")
    if (got := plain(answer(0, every * k, every))) == [*want[:-1], every * k]:
        fail(f"with max_steps={every * k} the last step is due twice")
    if got != want[:-1]:
        fail(f"start=0, max_steps={every * k}, every={every}: expected {want[:-1]}, got {got}")
    start = every + rest
    got = plain(answer(start, end, every))
    want = [s for s in want if s > start]
    if got and got[0] == start + every:
        fail(
            f"after a resume at step {start} the clock began anew: "
            f"{got}; it counts steps of the run, not of the process"
        )
    if every in got:
        fail(f"step {every} was done before the resume at step {start}")
    if got != want:
        fail(f"start={start}, max_steps={end}, every={every}: expected {want}, got {got}")
    if (got := plain(answer(end, end, every))) != []:
        fail(f"a run that is finished has no step left, so none is due; got {got}")
    if (got := plain(answer(every, end, every))) != want:
        fail(f"step {every} was done when the run stopped: expected {want}, got {got}")
    if (got := plain(answer(0, every - 1, every))) != [every - 1]:
        fail(f"a run shorter than `every` has its last step due, [{every - 1}]; got {got}")

# %% ../../nbs/exercises/trainer.ipynb #32c1fd69
@exercise(
    hint="Windows start at 0, T - unjudged, 2 * (T - unjudged), … while a + T <= n; "
    "each judges targets a + unjudged + 1 to a + T."
)
def check_judged(answer):
    "Each token is judged once, after enough context."
    T = 4 * random.randint(2, 6)
    for unjudged in (T // 4, T // 2, 0):
        n = T + (T - unjudged) * random.randint(3, 6) + random.randint(1, T - unjudged - 1)
        starts = range(0, n - T + 1, T - unjudged)
        want = [list(range(a + unjudged + 1, a + T + 1)) for a in starts]
        got = plain(answer(n, T, unjudged))
        if got == want:
            continue
        flat = [i for w in got for i in w]
        if len(flat) != len(set(flat)):
            fail(
                f"token {next(i for i in flat if flat.count(i) > 1)} "
                f"is judged twice (n={n}, T={T}, unjudged={unjudged})"
            )
        if flat and max(flat) > n:
            fail(
                f"token {max(flat)} does not exist: "
                f"inputs are 0 to {n - 1}, targets 1 to {n}, and the last window must fit"
            )
        if got == [[i - 1 for i in w] for w in want]:
            fail("you list the inputs; the token that is judged is the one after its input")
        if flat and sorted(flat) != list(range(flat[0], flat[-1] + 1)):
            fail(
                "there are gaps: "
                f"windows that overlap by {unjudged} start {T - unjudged} tokens apart"
            )
        if flat and flat[0] != unjudged + 1:
            fail(
                f"the first {unjudged} tokens of a window are context only: "
                f"the first judged one is {unjudged + 1}, got {flat[0]}"
            )
        fail(
            f"n={n}, T={T}, unjudged={unjudged}: expected {len(want)} windows, "
            f"the last {want[-1]}; got {len(got)}, the last {got[-1:]}"
        )
    if (got := plain(answer(T, T, 2))) != [list(range(3, T + 1))]:
        fail(f"n={T}, T={T}: exactly one window fits; got {got}")
    if (got := plain(answer(T - 1, T, 2))) != []:
        fail(f"n={T - 1}, T={T}: no window fits, so the list is empty; got {got}")

# %% ../../nbs/exercises/trainer.ipynb #b3fbab5e
@exercise(
    hint="Keep a list of calm losses. A loss above their mean plus limit "
    "adds to a run of high ones; any other ends that run and is calm."
)
def check_spike(answer):
    "Ignores one odd batch; finds a loss that stays up, at the step where it began."
    level = random.uniform(2, 4)
    at = random.randint(30, 60)
    calm = [level + random.uniform(-0.1, 0.1) for _ in range(at)]
    up = level + random.uniform(4, 6)
    if (got := answer([*calm, up, *calm], 1.0, 5)) is not None:
        fail(f"one odd batch at step {at} should not stop the run; you answered {got!r}")
    scattered = [*calm, up, *calm[:5], up, *calm[:5], up, *calm[:5], up, *calm[:5], up, *calm[:5]]
    if (got := answer(scattered, 1.0, 5)) is not None:
        fail(
            "five odd batches, none after another: the run is sound; "
            f"you answered {got!r}. Begin the count anew after a calm step"
        )
    if (got := answer([*calm, *[up] * 4], 1.0, 5)) is not None:
        fail(f"four high steps are not five; you answered {got!r}")
    got = answer([*calm, *[up] * 5], 1.0, 5)
    if got == at + 4:
        fail(
            f"{got} is where the patience ended; "
            f"the batch to look at is where the spike began, {at}"
        )
    if got != at:
        fail(f"five high losses from step {at} on: expected {at}, got {got!r}")
    if (got := answer([*calm, *[level + 0.5] * 8], 1.0, 5)) is not None:
        fail(f"a rise of 0.5 nats is within limit=1.0; you answered {got!r}")
    creeping = [*calm, *[level + 1.5] * 5]
    if (got := answer(creeping, 1.0, 5)) != at:
        fail(
            f"a rise of 1.5 nats at step {at} with limit=1.0: "
            f"expected {at}, got {got!r}; do high losses lift your mean?"
        )
    flat = [2.0] * 20
    for losses, want, message in (
        (calm[::-1], None, "nothing happened"),
        ([up] * 10 + calm, None, "a falling loss is not a spike"),
        ([*flat, *[3.0] * 9], None, "a loss of exactly mean + limit is not above it"),
        ([*flat, *[9.0] * 5], 20, "20 calm losses are enough to judge by"),
        ([*flat, *[3.1] * 5], 20, "do high losses lift your mean? Five at 3.1 after 20 at 2.0"),
        ([*flat[1:], *[9.0] * 5], None, "19 calm losses are fewer than 20: none is high yet"),
    ):
        if (got := answer(losses, 1.0, 5)) != want:
            fail(f"{message}: expected {want}, got {got!r}")

# %% ../../nbs/exercises/trainer.ipynb #3e3ced02
@exercise(
    hint="The run has consumed step * total_batch // block_size windows. "
    "From there on, rank r of W reads micro_batch windows at + r * micro_batch."
)
def check_first_windows(answer):
    "Finds the window at which a resumed rank continues, for any earlier micro-batch."
    b = random.randint(2, 4)
    T = 2 ** random.randint(4, 7)
    W = random.randint(2, 4)
    k = random.randint(3, 6)
    total = b * T * W * k
    step = random.randint(10, 99)
    rank = random.randint(1, W - 1)
    at = step * b * W * k
    want = [at + rank * b + i for i in range(b)]
    got = plain(answer(step, total, T, b, rank, W))
    if got == want:
        if (got := plain(answer(0, total, T, b, 0, W))) != list(range(b)):
            fail(f"rank 0 of a run that has not begun reads from 0 on; got {got}")
        return
    if not isinstance(got, list):
        fail(f"that is one position; a rank reads micro_batch={b} of them, so return a list")
    if got == list(range(at + rank * b, at + rank * b + b * W)):
        fail("those are too many: a rank reads micro_batch windows at a time")
    if got == [at + i for i in range(b)]:
        fail("every rank reads the same windows: the rank has to enter")
    if got == [at + rank + i for i in range(b)]:
        fail("neighbours share windows: rank r begins r * micro_batch later, not r")
    if got == [x + b * W for x in want]:
        fail("you went on behind the batch that was read ahead: nobody has learned from it")
    starts = (step * b * W, step * b)  # a micro-batch of all ranks, or of one, in a step
    if got in [[start + rank * b + i for i in range(b)] for start in starts]:
        fail("a step consumes total_batch tokens, not one micro-batch")
    if got and got[0] >= step * total:
        fail("you counted tokens; the position counts windows of block_size tokens")
    fail(
        f"step={step}, total_batch={total}, block_size={T}, micro_batch={b}, rank={rank} of {W}: "
        f"expected {want}, got {got}"
    )
