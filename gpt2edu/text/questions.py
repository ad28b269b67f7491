"""Ask about a story of the grammar, and know the answer without reading it."""

# Made by tools/book.py from ../../book/easy/ch03g_questions.md: edit that, then `make book`.

# %% auto #0
__all__ = ['FACTS', 'KINDS', 'WORDINGS', 'NOBODY_KNOWS', 'SHORT', 'LONG', 'SPLITS', 'OFTEN',
           'PLAIN', 'TAKEN', 'GRAMMAR', 'world_of', 'Fact', 'missing', 'Question',
           'questions_about', 'questions', 'exam', 'Row', 'question_of', 'read_questions',
           'hold_out']

# %% ../../nbs/easy/ch03g_questions.ipynb #a555704b
import random
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

from gpt2edu.machine.state import Filled, check, shown
from gpt2edu.text.files import rows_of
from gpt2edu.text.grammar import Grammar, amount
from gpt2edu.text.stories import Reader, World, Writer, tell

# %% ../../nbs/easy/ch03g_questions.ipynb #c1a156a4
def world_of(
    text: str,  # one whole story
    grammar: Grammar = Grammar(),  # noqa: B008  frozen; the one that may have written it
) -> World:
    "Rebuild the world at the end of a story. ValueError where the text is not a story."
    reader = Reader(text)
    world = World(reader, grammar)
    tell(world)
    if reader.at < len(text):
        raise ValueError(f"not a story: {text[reader.at :][:30]!r} comes after its end")
    return world

# %% ../../nbs/easy/ch03g_questions.ipynb #a42526fa
class Fact(NamedTuple):
    "Something that can be asked about a world."

    words: dict[str, str]  # what goes into the question: p a person, t a thing, f a food
    answer: str


def _holder(thing) -> str:
    return f"It is with {thing.holder.text}." if thing.holder else "Nobody has it."


def _company(world, person) -> str:
    near = [q.text for q in world.people if q is not person and q.place == person.place]
    she = person.they.capitalize()
    return f"{she} is with {' and '.join(near)}." if near else f"{she} is alone."


def _counted(heap) -> str:
    return f"{heap.person.they.capitalize()} has {amount(heap.n, heap.food)}."


def _many(food: str) -> str:  # two plums, without the two
    return amount(2, food).split(" ", 1)[1]


FACTS: dict[str, Callable[[World], list[Fact]]] = {
    "thing": lambda w: [Fact({"t": t.text}, f"It is {t.where}.") for t in w.things],
    "holder": lambda w: [Fact({"t": t.text}, _holder(t)) for t in w.things],
    "person": lambda w: [
        Fact({"p": p.text}, f"{p.they.capitalize()} is {p.at}.") for p in w.people
    ],
    "company": lambda w: [Fact({"p": p.text}, _company(w, p)) for p in w.people],
    "count": lambda w: [
        Fact({"p": h.person.text, "f": _many(h.food)}, _counted(h)) for h in [w.heap] if h
    ],
    "giver": lambda w: [
        Fact({"p": p.text, "t": p.gift.thing.text}, f"It was {p.gift.text}.")
        for p in w.people
        if p.gift
    ],
}
KINDS = (*FACTS, "unknown")

# %% ../../nbs/easy/ch03g_questions.ipynb #fda92d08
WORDINGS = {  # kind: the wordings to train with, and last the one that is held out
    "thing": (
        "Where is the {t}?",
        "Where was the {t}?",
        "In the end, where was the {t}?",
        "Now where is the {t}?",
    ),
    "holder": (
        "Who has the {t}?",
        "Who had the {t}?",
        "In the end, who had the {t}?",
        "Now who has the {t}?",
    ),
    "person": (
        "Where is {p}?",
        "Where was {p}?",
        "Now where is {p}?",
        "In the end, where was {p}?",
    ),
    "company": (
        "Who is with {p}?",
        "Who was with {p}?",
        "Now who is with {p}?",
        "In the end, who was with {p}?",
    ),
    "count": (
        "How many {f} does {p} have?",
        "How many {f} did {p} have?",
        "In the end, how many {f} did {p} have?",
        "Now how many {f} does {p} have?",
    ),
    "giver": (
        "Who gave the {t} to {p}?",
        "Who gave {p} the {t}?",
        "Now who gave the {t} to {p}?",
        "In the end, who gave {p} the {t}?",
    ),
}
NOBODY_KNOWS = "Nobody knows."

# %% ../../nbs/easy/ch03g_questions.ipynb #18529437
def missing(
    world: World,
    text: str,  # of the story
    rng: random.Random,
    without: Collection[str] = (),  # kinds in whose words nothing is asked
) -> tuple[str, Fact]:  # the kind it is worded like
    "Invent a question that the story does not settle."
    g = world.grammar
    here = [p.text for p in world.people]
    person = rng.choice([n.text for n in g.names if n.text not in here])
    thing = rng.choice([x for x in (*g.food, *g.fragile, *g.toys) if f" {x}" not in text])
    foods = [f for f in g.food if f" {f}" not in text and f" {_many(f)}" not in text]
    kind = rng.choice([k for k in FACTS if k not in without])
    words = {"p": person, "t": thing, "f": _many(rng.choice(foods))}
    if kind == "giver" or (kind == "count" and not world.heap):
        words["p"] = rng.choice(here)  # the person is known, the rest is not
    elif kind == "count":  # either the person or the food is known
        others = [n for n in here if n != world.heap.person.text]
        known = {"p": world.heap.person.text}
        words |= rng.choice([known, {"p": rng.choice(others), "f": _many(world.heap.food)}])
    return kind, Fact(words, NOBODY_KNOWS)

# %% ../../nbs/easy/ch03g_questions.ipynb #24a41e19
class Question(NamedTuple):
    "A question about a story, and its true answer."

    kind: str
    story: str  # may be empty, for a question from a file
    question: str
    answer: str
    split: str = "file"  # a key of `SPLITS`, or that it is from a file

    @property
    def prompt(self) -> str:
        "Say what the user says: the story, then the question."
        return f"{self.story} {self.question}".strip()

# %% ../../nbs/easy/ch03g_questions.ipynb #2834a6cb
SHORT = Grammar(shortest=4, longest=7)  # sentences: a story and its questions fit 128 tokens
LONG = Grammar(shortest=8, longest=9)
SPLITS = {
    "train": SHORT,
    "held-out": SHORT,  # other stories
    "wording": SHORT,  # other stories, and a wording that was never trained
    "longer": LONG,  # longer than any story of the training
}
OFTEN = {"count": 4, "giver": 4}  # few stories allow these; where one does, ask it more often


def questions_about(
    index: int,  # which story; any whole number
    split: str = "train",  # a key of `SPLITS`
    most: int = 1,  # questions about the same story
    seed: int = 0,
    without: Collection[str] = (),  # kinds to leave out, of `FACTS`
) -> list[Question]:  # a kind comes once, what cannot be known up to twice
    "Write a story of a split, and ask about it. ValueError, one line."
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; expected one of {', '.join(SPLITS)}")
    if not {*without} < {*FACTS}:
        got = f"cannot leave out {', '.join(without)}"
        raise ValueError(f"{got}; expected some of {', '.join(FACTS)}, and not all")
    pen = Writer(f"questions {split} {seed}:{index}")
    world = World(pen, SPLITS[split])
    tell(world)
    rng = random.Random(f"asked {split} {seed}:{index}")
    story, found = pen.text, []
    kinds = [kind for kind in FACTS if kind not in without and FACTS[kind](world)]
    kinds += ["unknown"] * min(2, most)
    for _ in range(min(most, len(kinds))):
        kind = rng.choices(kinds, [OFTEN.get(k, 1) for k in kinds])[0]
        kinds.remove(kind)
        worded, fact = kind, None
        if kind == "unknown":
            worded, fact = missing(world, story, rng, without)
        fact = fact or rng.choice(FACTS[kind](world))
        *usual, unseen = WORDINGS[worded]
        wording = unseen if split == "wording" else rng.choice(usual)
        found.append(Question(kind, story, wording.format(**fact.words), fact.answer, split))
    return found


def questions(
    n: int,  # how many
    split: str = "held-out",  # a key of `SPLITS`
    seed: int = 0,
    start: int = 0,  # index of the first story
) -> Iterator[Question]:
    "Write n questions, each about a story of its own."
    return (questions_about(i, split, 1, seed)[0] for i in range(start, start + n))


def exam(n: int, seed: int = 0) -> list[Question]:
    "Write n questions to judge by: half held out, a quarter of new wordings, a quarter longer."
    parts = {"held-out": n - 2 * (n // 4), "wording": n // 4, "longer": n // 4}
    return [q for split, k in parts.items() for q in questions(k, split, seed)]

# %% ../../nbs/easy/ch03g_questions.ipynb #634eee3c
class Row(TypedDict):
    "A line of a file of questions."

    question: Filled
    answer: Filled
    story: NotRequired[str]
    kind: NotRequired[str]


PLAIN = re.compile(r"[\w -]{1,40}")  # what a kind may be: it names a figure of the log
TAKEN = {"exact", *SPLITS}  # names of other figures


def question_of(
    row: Any,  # what a line of the file holds
    where: str,  # names the line in messages
) -> Question:
    "Check a line of a file. ValueError, one line."
    try:
        row = check(row, Row)
    except ValueError as e:
        fields = '"story" and "kind" may be missing'
        expected = f'expected {{"story": "…", "question": "…", "answer": "…"}}; {fields}'
        raise ValueError(f"{where}: {e}; {expected}") from None
    kind = row.get("kind", "").strip() or "file"
    if not PLAIN.fullmatch(kind):
        what = "letters, digits, spaces, - or _, at most 40"
        raise ValueError(f"{where}: kind is {shown(kind)}, expected {what}")
    if kind in TAKEN or f"_{kind}".endswith("_error"):
        what = "another word: a figure has that name"
        raise ValueError(f"{where}: kind is {shown(kind)}, expected {what}")
    return Question(kind, row.get("story", ""), row["question"].strip(), row["answer"].strip())


def read_questions(
    path: str | Path,  # .jsonl
) -> list[Question]:
    "Read questions from a file. ValueError, FileNotFoundError: one line, with file and line."
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}; expected a .jsonl file with a question a line")
    found = [question_of(row, where) for where, row in rows_of(path, strict=True)]
    if not found:
        raise ValueError(f"{path}: holds no questions; expected one object a line")
    return found

# %% ../../nbs/easy/ch03g_questions.ipynb #44912820
GRAMMAR = "stories"  # names the grammar's questions where a file could be named


def hold_out(
    found: list[Question],  # of a file, in order
    name: str,  # of the file, for the message
) -> tuple[list[Question], list[Question]]:  # to train with, to judge by
    "Hold out every tenth question, at least one. ValueError, one line, for a single one."
    asked = list(dict.fromkeys(q.prompt for q in found))
    if len(asked) < 2:
        raise ValueError(f"{name}: holds one question, expected two at least: one is held out")
    chosen = {*(asked[9::10] or asked[-1:])}
    return [q for q in found if q.prompt not in chosen], [q for q in found if q.prompt in chosen]
