"""The checks of the prediction chapter's exercises: they read an answer and name the mistake."""

# Made by tools/book.py from ../../book/exercises/prediction.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_normalise', 'check_draw', 'check_mean_surprise', 'check_smooth',
           'check_bits_per_byte']

# %% ../../nbs/exercises/prediction.ipynb #eef20817
import numpy as np

from gpt2edu.exercises.core import close, exercise, fail, plain
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/prediction.ipynb #c418bb56
quiz = Quiz(
    Question(
        "A model gives the token that really came a probability of 1/8. "
        "What does that token cost, in nats?",
        right=("ln 8, about 2.08", "The surprise is -ln p, and -ln(1/8) = ln 8."),
        wrong=(
            ("1 - 1/8, about 0.88", "That is the chance of being wrong. The surprise is -ln p."),
            ("log2 8, exactly 3", "That is the surprise in bits; a nat uses the natural log."),
        ),
    ),
    Question(
        "A bigram table was counted on one text. On a new text its loss is infinite. "
        "What happened?",
        right=(
            "a pair came that it had never counted",
            "Such a pair has probability zero, and -ln 0 is infinite. Smoothing mends it.",
        ),
        wrong=(
            (
                "the new text is much too long for it",
                "The loss is a mean over tokens, so the length of the text does not matter.",
            ),
            (
                "its rows do not sum to one any more",
                "The table did not change. A row that sums to one may still hold a zero.",
            ),
        ),
    ),
    Question(
        "Two models cut the same text into tokens of different length. "
        "How can their losses be compared?",
        right=(
            "in bits per byte",
            "A byte is the same for both, however the text was cut into tokens.",
        ),
        wrong=(
            (
                "in nats per token",
                "Longer tokens are fewer, and each is harder: the unit differs between the two.",
            ),
            (
                "by perplexity",
                "Perplexity is e to the loss per token, so it has the same unequal unit.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/prediction.ipynb #4ea9537b
@exercise(hint="Divide each row by its own sum; `keepdims=True` keeps the sums as a column.")
def check_normalise(answer):
    "Rows of counts become probabilities."
    for shape in ((4, 4), (3, 5)):  # in the square one no shape helps
        counts = np.random.default_rng().integers(1, 20, shape)
        counts[1] += 30  # no two rows, and no two columns, have the same sum
        counts[:, 2] += 70
        got = answer(counts)
        want = counts / counts.sum(1, keepdims=True)
        if close(got, want):
            continue
        if close(got, counts / counts.sum()):
            fail("you divided by the sum of the whole table; every row is a prediction of its own")
        if close(got, counts / counts.sum(0, keepdims=True)):
            fail("you divided by the sums of the columns; the rows should sum to 1")
        if shape == (4, 4) and close(got, counts / counts.sum(1)):
            fail(
                "the sums lie in a row, so column i was divided by the sum of row i: "
                "keepdims=True keeps them as a column"
            )
        if close(got, np.exp(counts) / np.exp(counts).sum(1, keepdims=True)):
            fail("that is a softmax: counts are no logits, so divide them as they are")
        fail(f"expected row 0 {np.round(want[0], 3)} for counts {counts[0]}, got {_first(got)}")


def _first(got):
    return np.round(got[0], 3) if np.ndim(got) == 2 else f"a value of shape {np.shape(got)}"

# %% ../../nbs/exercises/prediction.ipynb #8e67da3b
@exercise(
    hint="`np.cumsum(probs)` cuts the line from 0 to 1 into one piece per token. "
    "In which piece does u lie?"
)
def check_draw(answer):
    "Draws each token as often as its probability says."
    rng = np.random.default_rng()
    probs = np.sort([1, 2, 3, 5, 8, 13]) / 32
    while (np.diff(probs) > 0).all():  # not sorted
        probs = rng.permutation(probs)
    edges = np.cumsum(probs)
    middles = edges - probs / 2
    points = np.concatenate([middles, [0.0, 0.999999], rng.uniform(0, 0.999, 40)])
    want = [int(np.searchsorted(edges, u, side="right")) for u in points]
    got = [answer(probs, float(u)) for u in points]
    if any(np.ndim(g) or g is None for g in got):
        fail(f"expected one id, got {next(g for g in got if np.ndim(g) or g is None)!r}")
    if plain(got) == want:
        return
    if len({int(g) for g in got}) == 1 and int(got[0]) == int(probs.argmax()):
        fail("you always take the likeliest token; use u, so that rarer tokens get their share")
    if close(got, [int(u * 6) for u in points]):
        fail(
            "you treat all tokens as equally likely; "
            "the pieces must be as wide as the probabilities"
        )
    if close(got, np.array(want) + 1) or close(got, np.array(want) - 1):
        fail("you are one off: the first piece, from 0 to probs[0], belongs to token 0")
    ranked = np.cumsum(np.sort(probs))
    if close(got, [np.searchsorted(ranked, u, side="right") for u in points]):
        fail("you sorted the probabilities: piece i must belong to token i")
    if [int(answer(probs, float(u))) for u in points] != [int(g) for g in got]:
        fail("two calls with the same u give two answers: u is the draw, so draw nothing else")
    i = next(i for i, (g, w) in enumerate(zip(got, want, strict=True)) if g != w)
    fail(f"for probs {np.round(probs, 2)} and u={points[i]:.3f} expected {want[i]}, got {got[i]}")

# %% ../../nbs/exercises/prediction.ipynb #3e371a40
@exercise(
    hint="Three steps, in this order: the logarithm of each probability, the minus sign, the mean."
)
def check_mean_surprise(answer):
    "The mean of -ln p: the cross-entropy in nats per token."
    p = np.random.default_rng().uniform(0.02, 0.9, 7)
    got = answer(p.copy())
    want = -np.log(p).mean()
    if close(got, -want):
        fail("the sign is wrong: ln p is negative, surprise is positive")
    if close(got, -np.log2(p).mean()):
        fail("that is in bits: a logarithm to base 2; nats need the natural logarithm")
    if close(got, -np.log(p).sum()):
        fail("you summed the surprise; a loss is the mean per token")
    if close(got, -np.log(p.mean())):
        fail("you took the logarithm of the mean; take the mean of the logarithms")
    if close(got, -want * len(p) / (len(p) - 1)) or close(got, want * len(p) / (len(p) - 1)):
        fail("you divided by one less than the number of tokens; every token counts")
    if close(got, np.exp(want)):
        fail("that is the perplexity, exp of the loss")
    if close(got, -(p * np.log(p)).sum()) or close(got, -(p * np.log(p)).mean()):
        fail(
            "you weighted each surprise by p; "
            "these tokens have already happened, so each counts once"
        )
    if not close(got, want):
        fail(f"for p = {np.round(p, 2)} expected {want:.4f}, got {got!r}")

# %% ../../nbs/exercises/prediction.ipynb #0d93b1d6
@exercise(hint="On top: counts + alpha * simpler. Below: what the top sums to.")
def check_smooth(answer):
    "A row that leans on a simpler model: no zero, and a sum of 1."
    rng = np.random.default_rng()
    counts = rng.integers(0, 9, 6)
    alpha = rng.uniform(0.5, 3)
    counts[:2] = 0, 4  # one token never seen, one seen
    simpler = rng.dirichlet(np.ones(6))
    got = answer(counts.copy(), simpler.copy(), alpha)
    want = (counts + alpha * simpler) / (counts.sum() + alpha)
    if close(got, counts / counts.sum()):
        fail(
            "the token that was never seen still has probability 0; "
            "add alpha * simpler to the counts"
        )
    if close(got, (counts + alpha * simpler) / counts.sum()):
        fail(
            "the row sums to more than 1; "
            "the alpha that you added on top must be added below as well"
        )
    if close(got, (counts + alpha * simpler) / (counts.sum() + 6 * alpha)):
        fail("too much below: simpler sums to 1, so the top gained alpha and not 6 alpha")
    if close(got, (counts + alpha) / (counts.sum() + 6 * alpha)):
        fail("you added alpha to every count, which leans on 1/V; lean on the simpler model")
    if close(got, (counts / counts.sum() + alpha * simpler) / (1 + alpha)):
        fail("you mixed probabilities, so a row seen often leans as much as a thin one; mix counts")
    if not close(got, want):
        fail(f"expected {np.round(want, 3)}, got {np.round(got, 3) if got is not None else None}")
    unseen = answer(np.zeros(6, dtype=int), simpler.copy(), alpha)
    if unseen is not None and np.isnan(unseen).any():
        fail("a row of zeros gave nan: it divides 0 by 0; add alpha before you divide")
    if not close(unseen, simpler):
        fail("a row that was never seen should be the simpler model")

# %% ../../nbs/exercises/prediction.ipynb #73b89796
@exercise(hint="Total nats of the text, then total bits (one bit is ln 2 nats), then per byte.")
def check_bits_per_byte(answer):
    "Nats per token become bits per byte."
    rng = np.random.default_rng()
    nats = rng.uniform(1, 4)
    n_tokens = int(rng.integers(5, 12))
    text = "café " * int(rng.integers(7, 20))
    n_bytes = len(text.encode())
    n_chars = len(text)
    got = answer(nats, n_tokens, text)
    want = nats * n_tokens / np.log(2) / n_bytes
    if close(got, nats * n_tokens / n_bytes):
        fail("that is nats per byte; one bit is ln 2 = 0.693 nats, so divide by it")
    if close(got, nats * n_tokens * np.log(2) / n_bytes):
        fail(
            "you multiplied by ln 2; "
            "a bit is less than a nat, so there are more bits than nats: divide"
        )
    if close(got, nats * n_tokens / np.log(2) / n_chars):
        fail("that is bits per character; `é` is one character and two bytes: count text.encode()")
    if close(got, nats / np.log(2)):
        fail("that is bits per token; multiply by the tokens and divide by the bytes")
    if close(got, nats * n_bytes / np.log(2) / n_tokens):
        fail("tokens and bytes have changed places: nats per token times tokens gives nats")
    if not close(got, want):
        fail(
            f"for {nats:.2f} nats/token, {n_tokens} tokens, {n_bytes} bytes "
            f"expected {want:.4f}, got {got!r}"
        )
