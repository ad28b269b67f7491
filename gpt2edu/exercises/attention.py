"""Checks for the exercises of ch08."""

# Made by tools/book.py from ../../book/exercises/attention.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_average_past', 'check_causal_softmax', 'check_split_heads',
           'check_cached_step']

# %% ../../nbs/exercises/attention.ipynb #1d647be5
import math

import torch

from gpt2edu.model.attention import causal_weights
from gpt2edu.exercises.core import close, exercise, fail, has_loop
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/attention.ipynb #548b427b
quiz = Quiz(
    Question(
        "Somebody sets the future's scores to 0 instead of minus infinity before the softmax. "
        "What does a position then see of the future?",
        right=(
            "some of it, since exp(0) is 1",
            "A score of 0 is a score like any other; only minus infinity becomes weight 0.",
        ),
        wrong=(
            (
                "nothing, since zero hides it",
                "A weight of 0 would hide it, but the softmax makes weights of the scores first.",
            ),
            (
                "as much as without a mask",
                "The scores were changed, so the weights are other ones; they are just not zero.",
            ),
        ),
    ),
    Question(
        "You cut the same width into 12 heads where there was one. "
        "What grows, if nothing is fused?",
        right=(
            "the memory for the attention weights",
            "Each head has its own T × T table, so there are twelve of them.",
        ),
        wrong=(
            (
                "the multiplications of queries with keys",
                "Twelve heads of a twelfth of the width multiply as much as the one before.",
            ),
            (
                "the parameters of `c_attn` and of `c_proj`",
                "Both matrices keep their shape; a head is a slice of what they compute.",
            ),
        ),
    ),
    Question(
        "A head puts most of its weight on the right name. Does the model's answer rest on it?",
        right=(
            "only silencing the head can tell",
            "Head 1.2 looked at the name and could be silenced without any change.",
        ),
        wrong=(
            (
                "yes, since a weight is a cause",
                "A weight says where the head looks; what is brought may never be used.",
            ),
            (
                "no, since only the last layer answers",
                "Later layers use what earlier heads brought: head 0.0 is in the first one.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/attention.ipynb #0eb5b34c
@exercise(
    hint="Row t holds 1 / (t + 1) in its first t + 1 columns; `torch.ones(T, T).tril()` is a start."
)
def check_average_past(answer):
    "Every position holds the mean of itself and its past."
    x = torch.randn(6, 3)
    want = x.cumsum(0) / torch.arange(1, 7)[:, None]
    got = answer(x)
    if close(got, x.mean(0).expand(6, 3)):
        fail("every position averages the whole text: the future must be left out")
    if close(got, x.cumsum(0) / 6):
        fail("you divided every row by T; row t has t + 1 positions to share")
    before = torch.cat([torch.zeros(1, 3), x.cumsum(0)[:-1]])
    counts = torch.arange(6)[:, None]
    if close(torch.nan_to_num(got), before / counts.clamp(min=1)):
        fail("the position itself is left out: row t averages t + 1 positions, its own too")
    if close(got, x.cumsum(0)):
        fail("that is the sum of the past: divide each row by its number of positions")
    if close(got, x.flip(0).cumsum(0).flip(0) / torch.arange(6, 0, -1)[:, None]):
        fail("that averages the future: the triangle is upside down")
    if not close(got, want):
        fail(
            f"position 1 should be the mean of positions 0 and 1, {want[1].tolist()}; "
            f"yours is {got[1].tolist()}"
        )
    if not close(answer(x[:1]), x[:1]):
        fail("a text of one position is its own mean")
    if has_loop(answer):
        fail("the numbers are right, but a loop makes them: one matrix times x does all positions")

# %% ../../nbs/exercises/attention.ipynb #dc8686f1
@exercise(
    hint="exp(-inf) is 0: fill the future with -inf before the softmax, `masked_fill` does it."
)
def check_causal_softmax(answer):
    "Rows sum to 1 and the future has no weight."
    scores = torch.randn(5, 5)
    want = torch.where(torch.ones(5, 5).tril() > 0, scores, float("-inf")).softmax(-1)
    got = answer(scores.clone())
    if close(got, scores.tril().softmax(-1)):
        fail(
            "the future's scores became 0, and exp(0) is 1, so it still has weight: "
            "use minus infinity"
        )
    if close(got, scores.softmax(-1).tril()):
        fail("the mask came after the softmax: rows no longer sum to 1")
    if close(got, scores.softmax(-1)):
        fail("the mask is missing: every row looks at the future")
    if torch.isnan(got).any():
        fail(
            "some rows are nan: "
            "the mask hides the diagonal too, so the first row has nothing to look at"
        )
    if close(got, torch.where(torch.ones(5, 5).triu() > 0, scores, float("-inf")).softmax(-1)):
        fail("the mask hides the past: keep the lower triangle, not the upper")
    if close(got, torch.where(torch.ones(5, 5).tril() > 0, scores, float("-inf")).softmax(0)):
        fail(
            "the softmax runs over columns: "
            "each row must sum to 1, so take it over the last dimension"
        )
    if close(got, scores.exp().tril()):
        fail("these are exponentials; divide each row by its sum")
    if not close(got, want):
        fail(f"the last row should be {want[-1].tolist()}; yours is {got[-1].tolist()}")
    if not close(answer(scores[:1, :1]), torch.ones(1, 1)):
        fail("a text of one position looks at itself with weight 1")

# %% ../../nbs/exercises/attention.ipynb #80805647
@exercise(
    hint="`view(B, T, nh, hs)` keeps each position's numbers together; "
    "then swap dimensions 1 and 2."
)
def check_split_heads(answer):
    "Each head holds its own slice of every position."
    x = torch.randn(2, 5, 12)
    want = torch.stack([x[:, :, h * 4 : (h + 1) * 4] for h in range(3)], dim=1)
    got = answer(x, 3)
    if tuple(got.shape) == (2, 5, 3, 4):
        fail("the shape is (B, T, nh, hs): swap time and heads")
    if tuple(got.shape) == (2, 3, 4, 5):
        fail("the last two dimensions are swapped: hs is the last one, as for the keys")
    if tuple(got.shape) == (3, 2, 5, 4):
        fail("the heads come before the batch: the shape is (B, nh, T, hs)")
    if tuple(got.shape) != (2, 3, 5, 4):
        fail(f"the shape should be (B, nh, T, hs) = (2, 3, 5, 4), got {tuple(got.shape)}")
    if close(got, x.view(2, 3, 5, 4)):
        fail("right shape, wrong numbers: view(B, nh, T, hs) cuts through time")
    if close(got, x.view(2, 5, 4, 3).permute(0, 3, 1, 2)):
        fail(
            "the heads are interleaved: head 0 should get the first hs numbers, not every nh-th one"
        )
    if close(got, want.flip(1)):
        fail("the heads are in the wrong order: head 0 gets the first hs numbers")
    if not close(got, want):
        fail("head 0 should hold x[:, :, :hs]")

# %% ../../nbs/exercises/attention.ipynb #64669798
@exercise(hint="The new token looks at itself too. A single query at the end needs no mask.")
def check_cached_step(answer):
    "The cached step equals the last row of the full computation."
    q, k, v = torch.randn(3, 7, 4)
    want = (causal_weights(q, k) @ v)[-1:]
    got, new_k, new_v = answer(q[-1:], k[-1:], v[-1:], k[:-1], v[:-1])
    if close(got, v[:1]):
        fail(
            "is that is_causal=True behind a cache? PyTorch lays the triangle from the first key, "
            "so a single query sees key 0 alone; it needs no mask"
        )
    if close(got, (q[-1:] @ k[:-1].t() / math.sqrt(4)).softmax(-1) @ v[:-1]):
        fail("the new token looks at the past only: append its own key and value first")
    if close(got, (q[-1:] @ k.t()).softmax(-1) @ v):
        fail("the scores are not divided by the square root of hs")
    if close(got, (q[-1:] @ k.t() / 4).softmax(-1) @ v):
        fail("the scores are divided by hs; it should be its square root")
    if not close(got, want):
        fail(f"the output should be {want.tolist()}, got {got.tolist()}")
    if close(new_k, torch.cat([k[-1:], k[:-1]])) or close(new_v, torch.cat([v[-1:], v[:-1]])):
        fail("the new key and value stand at the front: the text goes on at the end")
    if not (close(new_k, k) and close(new_v, v)):
        fail(
            f"keys and values should grow by one row to {tuple(k.shape)}, got {tuple(new_k.shape)}"
        )
    got, new_k, new_v = answer(q[:1], k[:1], v[:1], k[:0], v[:0])
    if not (close(got, v[:1]) and close(new_k, k[:1]) and close(new_v, v[:1])):
        fail("with an empty cache the token sees itself only, and its output is its value")
