"""The checks of the corpus chapter's exercises, and its quiz."""

# Made by tools/book.py from ../../book/exercises/corpus.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_logprob', 'check_entropy', 'check_split']

# %% ../../nbs/exercises/corpus.ipynb #4a61b4c3
import math
import random

from gpt2edu.exercises.core import close, exercise, fail, plain
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/corpus.ipynb #7cd17502
quiz = Quiz(
    Question(
        "On the stories, a model is 0.1 nats per token above the floor. "
        "On Shakespeare, its loss is 1.5. "
        "Which of the two numbers says how much better a model could become?",
        right=(
            "the first, as the entropy of the stories is known",
            "No model gets below the entropy on average, so 0.1 nats is all that is left. "
            "For Shakespeare nobody knows that limit.",
        ),
        wrong=(
            (
                "the second, as people's text is harder to predict",
                "Harder, yes. But 1.5 may be close to the best possible loss or far from it.",
            ),
            (
                "neither, as more training brings any loss to zero",
                "Nobody can predict a fair die, so on new text the entropy is a limit.",
            ),
        ),
    ),
    Question(
        "The end of a story follows with certainty from what happened before. "
        "What do its words add to the floor?",
        right=(
            "nothing, though a model has to learn them",
            "The program makes no choice there, and -ln 1 is 0. "
            "A model pays for these words until it looks back far enough.",
        ),
        wrong=(
            (
                "as much as any other words, since it is a mean",
                "The mean is over unequal costs: each choice has its price, and the rest is free.",
            ),
            (
                "more than other words, since they are hard to guess",
                "Hard for a short memory. The floor assumes a reader who knows the rules.",
            ),
        ),
    ),
    Question(
        "One page of the manual contains another one, word for word. "
        "A model trains on the first and is tested on the second. "
        "What does its low loss show?",
        right=(
            "memory: it has read that text before",
            "Only the name of the page was held out. Its text was trained on.",
        ),
        wrong=(
            (
                "skill: the two are different pages",
                "The names differ, the paragraphs do not, so recalling them is enough.",
            ),
            (
                "luck: a single page is a small sample",
                "A hundred repeated pages would mislead as much, and with less noise.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/corpus.ipynb #231a6e63
@exercise(hint="Each step has probability 1 / len(words). Logarithms of probabilities add.")
def check_logprob(answer):
    "Probabilities of independent choices multiply, so their logarithms add."
    lists = [random.randint(2, 9) for _ in range(random.randint(3, 6))]
    choices = [[f"word{i}" for i in random.sample(range(99), n)] for n in [*lists, 1]]
    got = answer(choices)
    sizes = [len(words) for words in choices]
    want = -sum(map(math.log, sizes))
    if close(got, -want):
        fail("the sign is wrong: a log-probability is below zero; you returned the surprise")
    if close(got, math.exp(want)):
        fail("you returned the probability; take its logarithm")
    if close(got, want / math.log(2)):
        fail("that is in bits; nats need the natural logarithm")
    if close(got, math.log(sum(1 / n for n in sizes))):
        fail("you added the probabilities; independent choices multiply, so their logarithms add")
    if close(got, want / len(sizes)):
        fail("that is the mean of a step; the text has the sum")
    if close(got, -math.log(sum(sizes))):
        fail("you added the numbers of words; choices multiply, so their logarithms add")
    if not close(got, want):
        fail(f"for steps with {sizes} words the log-probability is {want:.4f}; yours is {got}")
    if not close(answer([]), 0.0):
        fail("a text of no choices has probability 1, so its logarithm is 0")


@exercise(
    hint="Sum -p * log(p), and leave out the texts that never come: p log p goes to 0 with p."
)
def check_entropy(answer):
    "Entropy is the average surprise, weighted by how often each text comes."
    weights = [random.random() for _ in range(random.randint(4, 7))] + [0.0]
    probs = [w / sum(weights) for w in weights]
    zero = "0 · log 0 has no value for a computer: leave the texts out that never come"
    try:
        got = answer(probs)
    except ValueError as e:
        fail(f"{zero} ({e})")
    want = -sum(p * math.log(p) for p in probs if p)
    if close(got, want):
        return
    if got is not None and got != got:
        fail(f"{zero}; your answer is nan")
    if close(got, math.exp(want)):
        fail("that is exp of the entropy: the number of texts that are equally likely")
    if close(got, math.log(len(probs) - 1)) or close(got, math.log(len(probs))):
        fail("that is the entropy of texts that are all alike; these have probabilities")
    if close(got, -want):
        fail("the sign is wrong: surprise is minus the logarithm")
    if close(got, -sum(math.log(p) for p in probs if p) / (len(probs) - 1)):
        fail(
            "you averaged all texts alike; "
            "a text counts as often as it comes, so weight by its probability"
        )
    if close(got, want / math.log(2)):
        fail("that is in bits; nats need the natural logarithm")
    fail(f"the entropy of {[round(p, 3) for p in probs]} is {want:.4f} nats; yours is {got}")


@exercise(hint="Add whole documents to the validation list until it is long enough; then stop.")
def check_split(answer):
    "Whole documents go to validation until it is long enough; the rest is for training."
    docs = [f"{i}" * random.randint(20, 60) for i in range(9)]
    n = random.randint(2, 5)
    characters = sum(map(len, docs[:n])) - random.randint(1, 15)
    val, train = (list(part) for part in answer(docs, characters))
    if set(val) & set(train):
        fail("a document is in both lists: the model would be tested on what it has read")
    if (val, train) == (docs[n:], docs[:n]):
        fail("the two lists are swapped: return validation first")
    if any(d not in docs for d in val + train):
        fail("a document was cut in two: its end would be tested after its beginning was learned")
    if val == docs[: n - 1]:
        fail("validation is too short: stop when it has at least that number of characters")
    if (val, train) != (docs[:n], docs[n:]):
        fail(
            f"expected the first {n} documents for validation "
            f"and the other {len(docs) - n} for training, in order"
        )
    val, train = plain(answer(docs, len("".join(docs[:n]))))
    if val != docs[:n]:
        fail("validation was long enough at the border of a document, and you took one more")
    if plain(answer(docs, 0)) != [[], docs]:
        fail("0 characters: nothing goes to validation")
    if plain(answer(docs, 10**6)) != [docs, []]:
        fail("more characters than there are: all documents go to validation, and no error")
