"""Checks for the ring, the loss of all ranks, bytes on the wire and who reads what."""

# Made by tools/book.py from ../../book/exercises/distributed.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_chunk_to_send', 'check_global_loss', 'check_bytes_sent',
           'check_my_positions']

# %% ../../nbs/exercises/distributed.ipynb #7859dfb7
import random

from gpt2edu.exercises.core import close, exercise, fail, plain
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/distributed.ipynb #aac4f16f
quiz = Quiz(
    Question(
        "Someone puts an all-reduce inside `if ranks.is_main:`. What happens?",
        right=(
            "rank 0 waits until its time limit runs out",
            "A collective ends only when every rank has called it, and the others never do.",
        ),
        wrong=(
            (
                "rank 0 gets its own numbers back, unchanged",
                "That holds for a process alone. In a group it waits for the others' numbers.",
            ),
            (
                "the others get the sum without calling anything",
                "Nothing arrives in a process that does not ask for it.",
            ),
        ),
    ),
    Question(
        "One rank reads 8 windows and another 4. DDP averages their mean gradients. "
        "What does the step follow?",
        right=(
            "a mean in which the windows of the second count double",
            "Each rank's mean has the same weight, and the second spreads it over fewer windows.",
        ),
        wrong=(
            (
                "the mean over all 12 windows, each with the same weight",
                "A mean of means is the mean only if the parts are equally large.",
            ),
            (
                "only the gradient of the rank that has more of the windows",
                "An all-reduce takes every rank's gradient, whatever it was computed from.",
            ),
        ),
    ),
    Question(
        "With a ring, how does the traffic of the busiest rank grow from 8 ranks to 64?",
        right=(
            "hardly: it stays below twice the gradient",
            "A rank sends 2(W - 1)/W times the gradient: 1.75 at 8 ranks, 1.97 at 64.",
        ),
        wrong=(
            (
                "eightfold, like the number of the ranks",
                "That is the way through rank 0, which sends W - 1 times the gradient.",
            ),
            (
                "it falls to an eighth, as chunks get smaller",
                "Chunks get smaller and steps more numerous, and the two nearly cancel.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/distributed.ipynb #bbc618fd
@exercise(
    hint="At step 0 rank r sends chunk r. "
    "At each later step it sends what it received the step before."
)
def check_chunk_to_send(answer):
    "Says which chunk travels: the sums of all chunks come out whole."
    W = random.randint(3, 8)
    cases = [(r, s) for r in range(W) for s in range(W - 1)]
    got = plain([answer(r, s, W) for r, s in cases])
    if got == [(r - s) % W for r, s in cases]:
        return
    if got == [r - s for r, s in cases]:
        fail("chunk numbers below 0: the ring closes, so count modulo world_size")
    if got == [(r + s) % W for r, s in cases]:
        fail(
            "you go round the wrong way: "
            "the chunk that arrives comes from rank - 1, so its number falls"
        )
    if got == [(r - s - 1) % W for r, s in cases]:
        fail("one step ahead: at step 0 a rank sends its own chunk; this is what it receives")
    if got == [(r + 1) % W for r, _ in cases] or got == [(r - 1) % W for r, _ in cases]:
        fail("that is the neighbour's rank; the chunk's number is asked for")
    if got == [r for r, _ in cases]:
        fail("the same chunk at every step: what was received a step before must be passed on")
    r, s, value = next(
        (*case, g) for case, g in zip(cases, got, strict=True) if g != (case[0] - case[1]) % W
    )
    fail(f"rank {r} of {W} at step {s} should send chunk {(r - s) % W}, got {value!r}")

# %% ../../nbs/exercises/distributed.ipynb #36da596a
@exercise(
    hint="A rank with more tokens weighs more: add up mean times count, and divide by all counts."
)
def check_global_loss(answer):
    "Weighs each rank by what it counted."
    counts = [random.randint(1, 50), random.randint(100, 200), random.randint(300, 500)]
    means = [random.uniform(2, 3), random.uniform(3, 4), random.uniform(5, 6)]  # nats/token
    total = sum(m * n for m, n in zip(means, counts, strict=True))
    want = total / sum(counts)
    got = answer(means, counts)
    if close(got, sum(means) / len(means)):
        fail("a mean of means: a rank with 10 tokens counts as much as one with 400")
    if close(got, sum(m / n for m, n in zip(means, counts, strict=True)) / len(means)):
        fail("you divided each mean by its count; multiply, and divide the sum once")
    if close(got, sum(means)):
        fail("you added the means; weigh each by its tokens, and divide by all of them")
    if close(got, total):
        fail("you have the sum over all tokens; divide by how many there are")
    if close(got, total / len(counts)):
        fail("you divided by the number of ranks; divide by the number of tokens")
    if not close(got, want):
        fail(f"expected {want:.4f}, got {got!r}")
    if not close(answer([*means, 0.0], [*counts, 0]), want):
        fail("a rank that had no tokens left should change nothing")
    if not close(answer(means[:1], counts[:1]), means[0]):
        fail("with one rank its own mean is the answer")

# %% ../../nbs/exercises/distributed.ipynb #c5cbfe70
@exercise(
    hint="Two rounds of world_size - 1 steps; "
    "in each step one chunk of n / world_size numbers, 4 bytes each."
)
def check_bytes_sent(answer):
    "Counts what a rank sends in a ring all-reduce of fp32 numbers."
    W = random.randint(3, 16)
    n = W * random.randint(10, 1000)
    want = 2 * (W - 1) * (n // W) * 4
    got = answer(n, W)
    if close(got, want / 2):
        fail("only one of the two rounds: the sums have to travel on to everybody, too")
    if close(got, want / 4):
        fail("you counted numbers; a number in fp32 has 4 bytes")
    if close(got, 2 * (W - 1) * n * 4):
        fail("you sent all numbers in every step; a step moves one chunk, n / world_size numbers")
    if close(got, 2 * n * 4):
        fail("world_size steps in a round are one too many: world_size - 1")
    if not close(got, want):
        fail(f"n={n}, world_size={W}: expected {want:,} bytes, got {got!r}")
    if not close(answer(n, 1), 0):
        fail("one rank alone sends nothing")

# %% ../../nbs/exercises/distributed.ipynb #6bb2509a
@exercise(
    hint="Micro-batch m starts at position + m * B * world_size, where all ranks read side by side."
)
def check_my_positions(answer):
    "The ranks together read each window once, and the same windows as one rank alone."
    p = random.randint(100, 999)
    B = random.randint(2, 4)
    n = random.randint(2, 4)
    W = random.randint(2, 4)
    want = [[[p + (m * W + r) * B + i for i in range(B)] for m in range(n)] for r in range(W)]
    got = [plain(answer(p, B, n, r, W)) for r in range(W)]
    if got == want:
        return
    if got == [[x for micro in rank for x in micro] for rank in want]:
        fail("one list for each micro-batch: yours are joined into one")
    if all(len(micro) == 1 or not isinstance(micro, list) for rank in got for micro in rank):
        fail(f"a micro-batch has B={B} windows; you list its first one")
    if all(len(g) < n for g in got):
        fail(f"a step has n_micro={n} micro-batches on each rank; yours has {len(got[0])}")
    if all(g == got[0] for g in got):
        fail("every rank reads the same windows: the rank has to enter")
    if got == [[[p + (r * n + m) * B + i for i in range(B)] for m in range(n)] for r in range(W)]:
        fail(
            "each rank reads one block of its own: "
            "with another number of ranks the order would be another"
        )
    if got == [[[p + (m + r) * B + i for i in range(B)] for m in range(n)] for r in range(W)]:
        fail(
            "neighbours read the same windows: "
            "a micro-batch moves the position on by B * world_size, not by B"
        )
    if got == [[[x - p for x in micro] for micro in rank] for rank in want]:
        fail("you started at 0, not at position")
    fail(f"position={p}, B={B}, n_micro={n}, rank=1 of {W}: expected {want[1]}, got {got[1]}")
