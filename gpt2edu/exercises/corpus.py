"""What the exercises of chapter 3 are checked against."""

# Made by tools/book.py from ../../book/exercises/corpus.md: edit that, then `make book`.

# %% auto #0
__all__ = ['check_logprob', 'check_entropy', 'check_split']

# %% ../../nbs/exercises/corpus.ipynb #4a61b4c3
import math
import random

from gpt2edu.exercises.core import close, exercise, fail

# %% ../../nbs/exercises/corpus.ipynb #7cd17502
@exercise(hint="Each step has probability 1 / len(words). Logarithms of probabilities add.")
def check_logprob(answer):
    "Probabilities of independent choices multiply, so their logarithms add."
    choices = [["word"] * random.randint(2, 9) for _ in range(random.randint(3, 6))]
    got = answer(choices)
    sizes = [len(words) for words in choices]
    want = -sum(map(math.log, sizes))
    if close(got, -want):
        fail("the sign is wrong: a log-probability is below zero; you returned the surprise")
    if close(got, math.exp(want)):
        fail("you returned the probability; take its logarithm")
    if close(got, want / math.log(2)):
        fail("that is in bits; nats need the natural logarithm")
    if close(got, -math.log(sum(sizes))):
        fail("you added the numbers of words; choices multiply, so their logarithms add")
    if not close(got, want):
        fail(f"for steps with {sizes} words the log-probability is {want:.4f}; yours is {got}")


@exercise(
    hint="Sum -p * log(p), and leave out the texts that never come: p log p goes to 0 with p."
)
def check_entropy(answer):
    "Entropy is the average surprise, weighted by how often each text comes."
    weights = [random.random() for _ in range(random.randint(4, 7))] + [0.0]
    probs = [w / sum(weights) for w in weights]
    got = answer(probs)
    want = -sum(p * math.log(p) for p in probs if p)
    if close(got, -want):
        fail("the sign is wrong: surprise is minus the logarithm")
    if close(got, -sum(math.log(p) for p in probs if p) / (len(probs) - 1)):
        fail(
            "you averaged all texts alike; "
            "a text counts as often as it comes, so weight by its probability"
        )
    if close(got, want / math.log(2)):
        fail("that is in bits; nats need the natural logarithm")
    if not close(got, want):
        fail(f"the entropy of {[round(p, 3) for p in probs]} is {want:.4f} nats; yours is {got}")


@exercise(hint="Add whole documents to the validation list until it is long enough; then stop.")
def check_split(answer):
    "Whole documents go to validation until it is long enough; the rest is for training."
    docs = [f"{i}" * random.randint(20, 60) for i in range(9)]
    n = random.randint(2, 5)
    characters = sum(map(len, docs[:n])) - random.randint(1, 15)
    val, train = (list(part) for part in answer(list(docs), characters))
    if set(val) & set(train):
        fail("a document is in both lists: the model would be tested on what it has read")
    if (val, train) == (docs[n:], docs[:n]):
        fail("the two lists are swapped: return validation first")
    if any(d not in docs for d in val + train):
        fail("a document was cut in two: its end would be tested after its beginning was learned")
    if val == docs[: n - 1]:
        fail("validation is too short: stop when it has at least so many characters")
    if (val, train) != (docs[:n], docs[n:]):
        fail(
            f"expected the first {n} documents for validation "
            f"and the other {len(docs) - n} for training, in order"
        )
