"""The words, the values and the sentence shapes of the stories of chapter 3."""

# Made by tools/book.py from ../../book/easy/ch03a_grammar.md: edit that, then `make book`.

# %% auto #0
__all__ = ['GIRLS', 'BOYS', 'FOOD', 'FRAGILE', 'TOYS', 'ROOMS', 'OUTSIDE', 'SPOTS', 'AT', 'NUMBERS',
           'BEGIN', 'FIRST', 'ACTS', 'BOTH', 'WORLD', 'END', 'SHAPES', 'at', 'amount', 'Person',
           'Thing', 'Named', 'Owned', 'Swap', 'Heap', 'Counted', 'Asked', 'Shape', 'shape',
           'Grammar']

# %% ../../nbs/easy/ch03a_grammar.ipynb #570f315c
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

# %% ../../nbs/easy/ch03a_grammar.ipynb #ede19195
GIRLS = tuple(
    "Anna Bella Clara Daisy Ella Fiona Grace Hanna Iris Julia Kate Lily Mia Nora Olive".split()
)
BOYS = tuple("Adam Ben Carl David Eric Felix George Hugo Ivan Jack Leo Max Noah Oscar Tom".split())
FOOD = tuple(
    "apple pear plum carrot cookie bun peach lemon "
    "cherry muffin pancake potato orange banana egg".split()
)
FRAGILE = tuple("cup plate vase bowl jar lamp mug mirror bottle teapot".split())
TOYS = tuple(
    "ball book kite doll drum key hat coat map rope coin shell "
    "stone spoon brush pen flute ring scarf candle letter ticket ladder bucket "
    "blanket pillow puppet whistle lantern hammer umbrella feather marble robot wagon".split()
)
ROOMS = tuple(
    "kitchen attic barn cellar library classroom tower cave museum bakery garage shed".split()
)
OUTSIDE = tuple(
    "garden forest yard meadow park beach market station lake farm zoo harbour hill bridge".split()
)
SPOTS = tuple(
    "in the box,in the basket,in the drawer,in the chest,"
    "on the table,on the shelf,on the bench,on the chair,"
    "under the rug,under the bed".split(",")
)
AT = dict.fromkeys("park beach market station lake farm zoo harbour".split(), "at")
AT |= {"hill": "on", "bridge": "on"}
NUMBERS = tuple("no one two three four five six seven eight nine".split())


def at(place: str) -> str:
    "Say where: in the kitchen, at the park, on the hill."
    return f"{AT.get(place, 'in')} the {place}"


def amount(n: int, food: str) -> str:
    "Count food: one apple, two cherries, three peaches."
    many = food[:-1] + "ies" if food[-1] == "y" else food + ("es" if food[-1] in "ho" else "s")
    return f"{NUMBERS[n]} {food if n == 1 else many}"

# %% ../../nbs/easy/ch03a_grammar.ipynb #2ccfce0c
@dataclass(eq=False)
class Person:
    "Somebody in a story."

    text: str
    girl: bool
    place: str
    before: str | None = None  # the place they came from
    gift: "Owned | None" = None  # a thing they still hold, and who gave it

    they = property(lambda self: "she" if self.girl else "he")
    them = property(lambda self: "her" if self.girl else "him")
    at = property(lambda self: at(self.place))


@dataclass(eq=False)
class Thing:
    "Something that can be held, moved, lost and found."

    text: str
    kind: str  # food, fragile or toys
    holder: Person | None = None
    place: str | None = None  # where it lies while nobody holds it
    spot: str | None = None  # in, on or under what
    loser: Person | None = None  # who lost it and has not found it

    where = property(
        lambda self: f"with {self.holder.text}" if self.holder else self.spot or at(self.place)
    )

    @property
    def off(self) -> str:
        "Say from where it is taken: out of the box."
        word, rest = self.spot.split(" ", 1)
        away = {"in": "out of", "on": "from", "under": "from under"}[word]
        return f"{away} {rest}"


class Named(NamedTuple):
    "A choice with a text and something behind it."

    text: str
    value: object  # a girl or not, a place, a noun with its kind


class Owned(NamedTuple):
    "A thing and a person; written as the person."

    thing: Thing
    person: Person
    text = property(lambda self: self.person.text)


class Swap(NamedTuple):
    "Two things change hands; written as the one that comes."

    mine: Thing
    theirs: Thing
    other: Person
    text = property(lambda self: self.theirs.text)


class Heap(NamedTuple):
    "An amount of food of somebody, and what is left when some is taken away (or added)."

    n: int
    food: str
    left: int = 0
    person: Person | None = None
    text = property(lambda self: amount(self.n, self.food))
    left_text = property(lambda self: NUMBERS[self.left])


class Counted(NamedTuple):
    "A heap, written as its owner."

    heap: Heap
    text = property(lambda self: self.heap.person.text)


class Asked(NamedTuple):
    "Somebody asks somebody where a thing is; written as who asks."

    person: Person
    other: Person
    thing: Thing
    text = property(lambda self: self.person.text)

    @property
    def answer(self) -> str:
        "Say where the thing is, as the other would."
        if self.thing.holder is self.other:
            return "I have it"
        return "You have it" if self.thing.holder is self.person else f"It is {self.thing.where}"

# %% ../../nbs/easy/ch03a_grammar.ipynb #14c3df35
class Shape(NamedTuple):
    "One way to write a sentence."

    weight: int  # how often, beside the weights of the other shapes that are possible
    head: str  # text before the first slot
    slots: tuple[tuple[str, str, str], ...]  # name, kind and the text behind, for each choice
    effect: Callable  # what happens in the world
    text: str


def shape(weight: int, text: str, effect: Callable = lambda w, v: None) -> Shape:
    "Read a shape from its text."
    head, *rest = re.split(r"\{(\w)=(\w+)\}", text)
    return Shape(
        weight, head, tuple(zip(rest[::3], rest[1::3], rest[2::3], strict=True)), effect, text
    )


# fmt: off
BEGIN = (
    shape(2, "One morning, {m=name} was {x=at} with {n=name}.", lambda w, v: w.meet(v)),
    shape(2, "One day, {m=name} and {n=name} were {x=at}.", lambda w, v: w.meet(v)),
    shape(1, "There once was a girl called {m=girl}. She was {x=at} with {n=name}.",
          lambda w, v: w.meet(v)),
    shape(1, "There once was a boy called {m=boy}. He was {x=at} with {n=name}.",
          lambda w, v: w.meet(v)),
)
FIRST = (
    shape(2, "had {u=new}.", lambda w, v: w.add(v.u, holder=v.p)),
    shape(1, "saw {u=new} {s=spot}.", lambda w, v: w.add(v.u, place=v.p.place, spot=v.s)),
)
ACTS = (
    shape(1, "went to the {x=place}.", lambda w, v: w.move(v.x, v.p)),
    shape(2, "went back to the {x=before}.", lambda w, v: w.move(v.x, v.p)),
    shape(2, "followed {q=far} to the {q.place}.", lambda w, v: w.move(v.q.place, v.p)),
    shape(2, "called {q=far}, and {q.they} came to the {p.place}.",
          lambda w, v: w.move(v.p.place, v.q)),
    shape(1, "waited for {q=far} {p.at}."),
    shape(1, "carried the {t=mine} to the {x=place}.", lambda w, v: w.move(v.x, v.p)),
    shape(2, "found {u=new} {s=spot}.", lambda w, v: w.add(v.u, holder=v.p)),
    shape(5, "took the {t=spotted} {t.off}.", lambda w, v: w.hold(v.t, v.p)),
    shape(4, "gave the {t=mine} to {q=near}.", lambda w, v: w.hold(v.t, v.q, v.p)),
    shape(2, "handed {q=near} the {t=mine}.", lambda w, v: w.hold(v.t, v.q, v.p)),
    shape(1, "showed {q=near} the {t=mine}."),
    shape(4, "put the {t=mine} {s=spot}.", lambda w, v: w.drop(v.t, v.p.place, v.s)),
    shape(1, "hid the {t=mine} {s=spot}.", lambda w, v: w.drop(v.t, v.p.place, v.s)),
    shape(1, "washed the {t=mine}."),
    shape(1, "lost the {t=mine} {p.at}.", lambda w, v: w.drop(v.t, v.p.place, loser=v.p)),
    shape(1, "looked for the {t=lost_far} {p.at}, but it was not there."),
    shape(4, "saw the {t=lost_here} {p.at} and picked it up.", lambda w, v: w.hold(v.t, v.p)),
    shape(2, "asked {h=theirs} for the {h.thing.text}, so {h.person.they} gave it to {p.them}.",
          lambda w, v: w.hold(v.h.thing, v.p, v.h.person)),
    shape(1, "wanted the {t=wanted}, but {t.holder.text} kept it."),
    shape(2, "was hungry, so {p.they} ate the {t=food}.", lambda w, v: w.remove(v.t)),
    shape(1, "was tired, so {p.they} sat down {p.at}."),
    shape(2, "was sad because {p.they} had lost the {t=my_loss}."),
    shape(2, "was happy because {g=gift} had given {p.them} the {g.thing.text}."),
    shape(2, "thanked {g=gift} for the {g.thing.text}."),
    shape(2, "dropped the {t=fragile}, and it broke.", lambda w, v: w.remove(v.t)),
    shape(2, "bought {a=some}.", lambda w, v: w.count(v.p, v.a.n, v.a.food)),
    shape(3, "got {a=more}, so now {p.they} had {a.left_text}.",
          lambda w, v: w.count(v.p, v.a.left, v.a.food)),
    shape(2, "ate {a=one}, so now {p.they} had {a.left_text}.",
          lambda w, v: w.count(v.p, v.a.left, v.a.food)),
    shape(2, "kept {a=part} and gave {a.left_text} to {q=near}.",
          lambda w, v: w.count(v.p, v.a.n, v.a.food)),
)
BOTH = (
    shape(1, "went to the {x=place} together.", lambda w, v: w.move(v.x, *w.people[:2])),
    shape(1, "sat down {p.at} and talked."),
    shape(2, "played with the {t=toy} {p.at}."),
    shape(3, "swapped: now {p.text} had the {e=exchange} and {e.other.text} had the {e.mine.text}.",
          lambda w, v: w.swap(v.p, v.e)),
)
WORLD = (
    shape(2, " Now the {t=known} was {t.where}."),
    shape(1, " Meanwhile, {r=anyone} was {r.at}.", lambda w, v: w.turn_to(v.r)),
    shape(2, ' "Where is the {t=askable}?" asked {r=asker}. "{r.answer}," said {r.other.text}.',
          lambda w, v: w.turn_to(v.r.other)),
    shape(1, " Then {n=third} came to the {y=shared}.", lambda w, v: w.arrive(v)),
    shape(1, " It started to rain, so {r=wet} ran to the {x=room}.", lambda w, v: w.run(v)),
)
END = (
    shape(2, " In the end, the {t=known} was {t.where}."),
    shape(2, " That evening, {r=anyone} was {r.at}."),
    shape(1, " Finally, {h=held} had the {h.thing.text}."),
    shape(3, " At last, {c=counted} had {c.heap.text}."),
)
# fmt: on
SHAPES = BEGIN + FIRST + ACTS + BOTH + WORLD + END

# %% ../../nbs/easy/ch03a_grammar.ipynb #d21c51c6
@dataclass(frozen=True)
class Grammar:
    "The words that stories use and how long they get."

    girls: tuple = GIRLS
    boys: tuple = BOYS
    food: tuple = FOOD
    fragile: tuple = FRAGILE
    toys: tuple = TOYS
    rooms: tuple = ROOMS
    outside: tuple = OUTSIDE
    spots: tuple = SPOTS
    shortest: int = 6  # sentences
    longest: int = 14  # sentences

    @cached_property
    def names(self) -> list[Named]:
        return [Named(n, True) for n in self.girls] + [Named(n, False) for n in self.boys]

    @cached_property
    def nouns(self) -> list[Named]:
        kinds = (
            (kind, noun) for kind in ("food", "fragile", "toys") for noun in getattr(self, kind)
        )
        return [
            Named(f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}", (noun, kind))
            for kind, noun in kinds
        ]

    @cached_property
    def heaps(self) -> list[Heap]:
        return [Heap(n, f) for n in (2, 3, 4, 5) for f in self.food]

    @cached_property
    def places(self) -> tuple[str, ...]:
        return self.rooms + self.outside

    @cached_property
    def wheres(self) -> list[Named]:
        return [Named(at(x), x) for x in self.places]
