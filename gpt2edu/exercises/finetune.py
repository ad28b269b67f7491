"""Checks for the exercises of ch23."""

# Made by tools/book.py from ../../book/exercises/finetune.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'shapes', 'check_lora_forward', 'check_merge', 'Deep', 'look_at_frozen',
           'check_freeze', 'check_grow']

# %% ../../nbs/exercises/finetune.ipynb #580634c2
import random

import torch
from torch import nn
from torch.nn import functional as F

from gpt2edu.exercises.core import close, exercise, fail, plain
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/finetune.ipynb #a74202d6
quiz = Quiz(
    Question(
        "Before fine-tuning, a model of 896 tokens has a loss of 18 nats on a new text, and ln V "
        "is 6.8. What does that say?",
        right=(
            "it is sure of tokens that do not come",
            "Guessing evenly costs 6.8; only a probability below 1/896 for the right token "
            "costs more.",
        ),
        wrong=(
            (
                "its weights were lost on the way",
                "Random weights give about ln V: they know nothing, and are sure of nothing.",
            ),
            (
                "the text has a higher entropy",
                "No text has more than ln V nats per token for a model that guesses evenly.",
            ),
        ),
    ),
    Question(
        "Why does B begin at zero, and A not?",
        right=(
            "the model begins as it was, and B learns",
            "B's gradient is multiplied by A x, which is not zero; A's follows when B has moved.",
        ),
        wrong=(
            (
                "so that the adapter is small at the end",
                "Where training begins says nothing of how far it goes.",
            ),
            (
                "two random matrices could not be merged",
                "Any A and B can be merged; but the model would begin with noise in every layer.",
            ),
        ),
    ),
    Question(
        "An adapter of rank 3 is merged into its model. What does a token then cost?",
        right=(
            "the same as without an adapter",
            "The product is added into a matrix that is multiplied anyway.",
        ),
        wrong=(
            (
                "about three per cent more",
                "That is so before merging, when two thin products are computed as well.",
            ),
            (
                "less, since most weights are frozen",
                "Frozen weights save work in training only: they multiply as before.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/finetune.ipynb #96885256
def shapes():
    n_in, n_out = random.sample((6, 8, 11, 12), 2)  # alpha is never one of them
    r = random.choice((2, 3))
    alpha = float(r * random.choice((2, 3, 4)) + 1)
    W, b = torch.randn(n_out, n_in), torch.randn(n_out)
    return W, b, torch.randn(r, n_in), torch.randn(n_out, r), alpha, r


@exercise(hint="`x @ W.T + b + alpha / len(A) * (x @ A.T @ B.T)`")
def check_lora_forward(answer):
    "The large product, and beside it the small one, scaled by alpha over the rank."
    W, b, A, B, alpha, r = shapes()
    x = torch.randn(4, W.shape[1])
    base, small = F.linear(x, W, b), x @ A.T @ B.T
    got = answer(x, W, b, A, B, alpha)
    if not close(torch.as_tensor(plain(got)).shape, base.shape):
        fail(f"y has shape {tuple(torch.as_tensor(got).shape)}, expected {tuple(base.shape)}")
    wrong = (
        (base, "the adapter is missing: that is the old layer"),
        (base + small, "the scale is missing: alpha / r, where r is the number of A's rows"),
        (base + alpha * small, "alpha alone is not the scale: divide it by the rank"),
        (base + alpha / W.shape[1] * small, "divide by the rank r, not by the width n_in"),
        (base + alpha * r * small, "alpha times r: a higher rank should not mean a longer step"),
        (base - b + alpha / r * small, "the bias is missing"),
        (alpha / r * small, "only the adapter is left: W is frozen, not removed"),
        ((base + small) * alpha / r, "the scale is for the adapter only, not for W"),
    )
    for value, message in wrong:
        if close(got, value.numpy(), 1e-4):
            fail(message)
    want = base + alpha / r * small
    if not close(got, want.numpy(), 1e-4):
        fail(f"y[0] should be {[round(v, 3) for v in want[0].tolist()]}")

# %% ../../nbs/exercises/finetune.ipynb #e9227a92
@exercise(hint="`W + alpha / len(A) * B @ A`, as a new tensor")
def check_merge(answer):
    "One matrix that does the work of three."
    W, _, A, B, alpha, r = shapes()
    got = answer(W, A, B, alpha)
    if not close(torch.as_tensor(got).shape, W.shape):
        fail(
            f"the result has shape {tuple(torch.as_tensor(got).shape)}, expected "
            f"{tuple(W.shape)}: B comes first, n_out x r times r x n_in"
        )
    for value, message in (
        (W + B @ A, "the scale is missing: merged and unmerged would differ"),
        (W + alpha * B @ A, "divide alpha by the rank"),
        (W - alpha / r * B @ A, "you subtracted: that removes an adapter that is merged"),
        (alpha / r * B @ A, "that is the change alone; add it to W"),
        (W, "W is unchanged: where is B @ A?"),
    ):
        if close(got, value.numpy(), 1e-4):
            fail(message)
    want = W + alpha / r * B @ A
    if not close(got, want.numpy(), 1e-4):
        fail(f"the first row should be {[round(v, 3) for v in want[0].tolist()]}")

# %% ../../nbs/exercises/finetune.ipynb #9a030075
class Deep(nn.Module):
    "Eleven blocks and two tables, so that h.1 and h.10 are different names."

    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(3, 2), nn.Embedding(4, 2)
        self.h = nn.ModuleList(
            nn.ModuleDict({"attn": nn.Linear(2, 2), "ln_1": nn.LayerNorm(2)}) for _ in range(11)
        )


def look_at_frozen(model: Deep, part: str, got_n):
    "Compare what is frozen with what a part names."
    want = {n for n, _ in model.named_parameters() if f".{part}." in f".{n}."}
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    everything = {n for n, _ in model.named_parameters()}
    if not frozen:
        fail("nothing is frozen: set `p.requires_grad_(False)` on the parameters themselves")
    if frozen == everything:
        fail("everything is frozen: only names that have the part")
    if frozen == everything - want:
        fail(f"that is the other way round: {part} should stay as it is, and the rest train")
    if part == "h.1" and any(n.startswith("h.10.") for n in frozen):
        fail("h.1 froze h.10 as well: compare at the dots, not letter by letter")
    if frozen != want:
        fail(f"for {part!r}, look at {(sorted(want - frozen) or sorted(frozen - want))[0]}")
    n = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if got_n == len(everything - want) != n:
        fail("you counted tensors: count their numbers, `p.numel()`")
    if got_n == sum(p.numel() for p in model.parameters()) - n:
        fail("you counted the frozen ones")
    if not close(got_n, n):
        fail(f"{n} numbers are left to train, got {got_n}")


@exercise(hint="Compare whole names: `f'.{part}.' in f'.{name}.'`")
def check_freeze(answer):
    "Only what is named stays as it is, and the rest is counted."
    for part in ("h.1", random.choice(("wte", "attn"))):
        model = Deep()
        look_at_frozen(model, part, answer(model, [part]))
    answer(model, ["wpe"])
    others = [p for n, p in model.named_parameters() if not n.startswith("wpe")]
    if model.wpe.weight.requires_grad or not all(p.requires_grad for p in others):
        fail("a second call should free what the first one froze: set requires_grad both ways")

# %% ../../nbs/exercises/finetune.ipynb #4c9b4158
@exercise(hint="`table[pieces(token)].mean(0)` for a new token; a known one has one piece")
def check_grow(answer):
    "A known token keeps its row, and a new one begins as the mean of its pieces."
    old = {"um": 0, "br": 1, "ella": 2, "s": 3, " cat": 4}
    table = torch.randn(5, 3)
    new = ["s", " cats", "um", "umbrellas"]
    cut = {"s": [3], " cats": [4, 3], "um": [0], "umbrellas": [0, 1, 2, 3]}
    got = answer(table, new, lambda token: cut[token])
    rows = torch.as_tensor(plain(got)) if not isinstance(got, torch.Tensor) else got
    if tuple(rows.shape) != (4, 3):
        fail(f"expected a row for each of the 4 new tokens, (4, 3), got {tuple(rows.shape)}")
    want = torch.stack([table[cut[token]].mean(0) for token in new])
    total = torch.stack([table[cut[token]].sum(0) for token in new])
    first = torch.stack([table[cut[token][0]] for token in new])
    for value, message in (
        (total, "you added the pieces: their mean has the length of a row, their sum is longer"),
        (first, "you took the first piece only: all pieces spell the token"),
        (table[:4], "you kept rows by number: id 0 is another token in the new vocabulary"),
        (
            table.mean(0).expand(4, 3),
            "every row is the mean of the table: known tokens keep theirs",
        ),
    ):
        if close(rows, value.numpy(), 1e-4):
            fail(message)
    for i, token in enumerate(new):
        if not close(rows[i], want[i].numpy(), 1e-4):
            how = " is known and keeps its row" if token in old else f" is spelled by {cut[token]}"
            fail(f"{token!r}{how}; expected {[round(v, 3) for v in want[i].tolist()]}")
