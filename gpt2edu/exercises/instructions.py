"""Checks for the exercises of ch24."""

# Made by tools/book.py from ../../book/exercises/instructions.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_targets', 'check_own_document', 'check_positions', 'check_shares']

# %% ../../nbs/exercises/instructions.ipynb #0dbcf569
import random

import torch

from gpt2edu.exercises.core import close, exercise, fail, plain
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/instructions.ipynb #8259a145
quiz = Quiz(
    Question(
        "You count the loss of every token of a conversation, and not only of the answers. "
        "What does the model learn besides?",
        right=(
            "to write stories and questions like the user's",
            "Most tokens are the user's, so most of the gradient goes there.",
        ),
        wrong=(
            (
                "nothing: the prompt is given at the time of use",
                "The weights do not know that; each counted token moves them.",
            ),
            (
                "to see the answer before it is given",
                "The causal mask prevents that, whichever tokens count.",
            ),
        ),
    ),
    Question(
        "Two conversations share a row without a mask between them, and the training loss is low. "
        "What is wrong?",
        right=(
            "the second learns with the first in view",
            "At the time of use nothing stands before its story, so it meets a new situation.",
        ),
        wrong=(
            (
                "the first sees the answers of the second",
                "It stands before them, and the causal mask hides what comes later.",
            ),
            (
                "gradients of the two cancel each other",
                "They add up, as those of two rows do.",
            ),
        ),
    ),
    Question(
        "A model never saw a question without an answer in its story. "
        "You ask for an umbrella that nobody has mentioned. What does it say?",
        right=(
            "a place or a person, as for any thing",
            "It has learnt that every such question has an answer, and gives the likeliest.",
        ),
        wrong=(
            (
                "that it does not know",
                "These words have a probability only if training gave them one.",
            ),
            (
                "nothing: <|end|> comes first",
                "No answer of the training was empty.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/instructions.ipynb #8c70cab6
@exercise(hint="Zip `ids[1:]` with `answers[1:]`: the mark belongs to the token to predict.")
def check_targets(answer):
    "Each place predicts the next token, and counts where that token is the assistant's."
    n = random.randint(3, 6)
    ids = random.sample(range(10, 99), n + 6)
    counts = [False] * n + [True] * 4 + [False] * 2
    want = [i if a else -100 for i, a in zip(ids[1:], counts[1:], strict=True)]
    got = list(plain(answer(list(ids), list(counts))))
    if len(got) == len(ids):
        fail(f"{len(ids)} tokens have {len(want)} targets: the last one predicts nothing")
    if len(got) != len(want):
        fail(f"expected {len(want)} targets, got {len(got)}")
    inputs = [i if a else -100 for i, a in zip(ids, counts, strict=True)][:-1]
    late = [i if a else -100 for i, a in zip(ids[1:], counts[:-1], strict=True)]
    for wrong, message in (
        (ids[1:], "every token counts: those of the user shall be -100"),
        (inputs, "that is the input, marked: the target is the token after it"),
        (late, "the marks are those of the inputs: the first token of an answer is lost"),
        ([0 if t == -100 else t for t in want], "0 is a token like any other: use -100"),
        ([-100 if t == ids[n + 3] else t for t in want], "<|end|> is part of the answer"),
        ([-100 if t != -100 else i for t, i in zip(want, ids[1:], strict=True)], "turned round"),
    ):
        if got == wrong:
            fail(message)
    if got != want:
        fail(f"for ids {ids} and an answer at {n} to {n + 3} expected {want}, got {got}")

# %% ../../nbs/exercises/instructions.ipynb #86418e90
@exercise(hint="`owner[:, None] == owner[None, :]`, and the lower triangle of it.")
def check_own_document(answer):
    "Row t says whom place t sees: its own document, up to itself."
    sizes = [random.randint(2, 4) for _ in range(3)]
    owner = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    T = len(owner)
    same = owner[:, None] == owner[None, :]
    past = torch.ones(T, T, dtype=torch.bool).tril()
    got = torch.as_tensor(plain(answer(owner)))
    if got.shape != (T, T):
        fail(f"expected shape {(T, T)}, got {tuple(got.shape)}")
    got = got.bool()
    for wrong, message in (
        (same, "a place sees the future of its own document: keep the lower triangle"),
        (past, "a place sees the documents before its own"),
        (same & past.T, "it sees the future and not the past: rows are those who look"),
        (same & past & ~torch.eye(T, dtype=torch.bool), "each place sees itself too"),
        (~(same & past), "turned round: True means that it may look"),
        (~same & past, "it sees all documents except its own"),
    ):
        if torch.equal(got, wrong):
            fail(message)
    if not torch.equal(got, same & past):
        fail(f"for owner {owner.tolist()} expected\n{(same & past).int()}\ngot\n{got.int()}")

# %% ../../nbs/exercises/instructions.ipynb #f4d11c85
@exercise(hint="Count up, and start again at 0 where the owner changes.")
def check_positions(answer):
    "The place of each token in its own document."
    sizes = [random.randint(2, 5) for _ in range(3)]
    owner = [k for k, n in enumerate(sizes) for _ in range(n)]
    want = [i for n in sizes for i in range(n)]
    got = list(plain(answer(list(owner))))
    for wrong, message in (
        (list(range(len(owner))), "positions go on over the border: a document begins at 0"),
        ([i + 1 for i in want], "the first position is 0"),
        (owner, "that is the number of the document"),
        ([n for n in sizes for _ in range(n)], "that is the length of the document"),
        ([n - 1 - i for n in sizes for i in range(n)], "counted from the end"),
    ):
        if got == wrong:
            fail(message)
    if got != want:
        fail(f"for owner {owner} expected {want}, got {got}")

# %% ../../nbs/exercises/instructions.ipynb #c38a8b2f
@exercise(hint="Each mean counts `n / total`; DDP then divides by the number of ranks.")
def check_shares(answer):
    "With these factors, the mean over the ranks is the mean over all targets."
    ranks, micro = random.choice((2, 3)), random.choice((2, 4))
    counts = [[random.randint(1, 9) for _ in range(micro)] for _ in range(ranks)]
    counts[0][0] = 40
    total = sum(map(sum, counts))
    want = torch.tensor([[n / total * ranks for n in row] for row in counts])
    got = torch.as_tensor(plain(answer([list(row) for row in counts])), dtype=torch.float32)
    if got.shape != want.shape:
        fail(f"expected a factor for each micro-batch of each rank, {tuple(want.shape)}")
    n = torch.tensor(counts, dtype=torch.float32)
    for wrong, message in (
        (torch.full_like(want, 1 / micro), "all alike: micro-batches have different numbers"),
        (n / total, "DDP takes the mean over the ranks: each has to multiply by their number"),
        (
            n / n.sum(1, keepdim=True),
            "divided by the rank's own total: few weigh more",
        ),
        (torch.ones_like(want), "a sum of means, larger with every micro-batch"),
        (torch.full_like(want, ranks / total), "the loss is a mean already: multiply by its count"),
        (n, "that is the sum over targets: divide by all of them"),
    ):
        if close(got, wrong):
            fail(message)
    if not close(got, want):
        fail(f"for counts {counts} expected {want.tolist()}, got {got.tolist()}")
