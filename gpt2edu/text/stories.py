"""Write stories of the grammar, and recover the probability of each from its text."""

# Made by tools/book.py from ../../book/easy/ch03b_stories.md: edit that, then `make book`.

# %% auto #0
__all__ = ['CANDIDATES', 'QUICK', 'LOOKS', 'NEEDS', 'World', 'needs_of', 'spell', 'tell', 'Writer',
           'log_chance', 'Reader', 'Walker', 'every_story']

# %% ../../nbs/easy/ch03b_stories.ipynb #0eebf6c2
import math
import random
from collections.abc import Iterator
from types import SimpleNamespace

from gpt2edu.text.grammar import ACTS, BEGIN, BOTH, END, FIRST, NUMBERS, WORLD
from gpt2edu.text.grammar import Asked, Counted, Grammar, Heap, Owned, Person, Shape, Swap, Thing

# %% ../../nbs/easy/ch03b_stories.ipynb #b7065a41
def _here(w, v):
    return [t for t in w.things if t.place == v.p.place]


def _theirs(w, v):
    return [t for t in w.things if t.holder not in (None, v.p) and t.holder.place == v.p.place]


def _mine(w, v, kind=""):
    return [t for t in w.things if t.holder is v.p and t.kind.startswith(kind)]


def _heap(w, v, steps):
    heaps = [w.heap] if w.heap and w.heap.person is v.p else []
    return [
        Heap(k, h.food, left) for h in heaps for k, left in steps(h.n) if 0 < left < len(NUMBERS)
    ]


CANDIDATES = {
    "name": lambda w, v: w.strangers(v),
    "third": lambda w, v: w.strangers(v),
    "girl": lambda w, v: [n for n in w.grammar.names if n.value],
    "boy": lambda w, v: [n for n in w.grammar.names if not n.value],
    "at": lambda w, v: w.grammar.wheres,
    "place": lambda w, v: [x for x in w.grammar.places if x != v.p.place],
    "room": lambda w, v: w.grammar.rooms,
    "shared": lambda w, v: list(dict.fromkeys(p.place for p in w.people)),
    "before": lambda w, v: [v.p.before] if v.p.before not in (None, v.p.place) else [],
    "spot": lambda w, v: w.grammar.spots,
    "anyone": lambda w, v: w.people,
    "near": lambda w, v: [q for q in w.people if q is not v.p and q.place == v.p.place],
    "far": lambda w, v: [q for q in w.people if q.place != v.p.place],
    "wet": lambda w, v: [q for q in w.people if q.place in w.grammar.outside],
    "new": lambda w, v: w.unseen(),
    "known": lambda w, v: [t for t in w.things if not t.loser],
    "askable": lambda w, v: [t for t in w.things if not t.loser and w.together],
    "asker": lambda w, v: [Asked(*w.people[:2], v.t), Asked(*w.people[1::-1], v.t)],
    "mine": _mine,
    "food": lambda w, v: _mine(w, v, "food"),
    "fragile": lambda w, v: _mine(w, v, "fragile"),
    "toy": lambda w, v: [t for t in w.things if t.holder in w.people[:2] and t.kind == "toys"],
    "held": lambda w, v: [Owned(t, t.holder) for t in w.things if t.holder],
    "wanted": _theirs,
    "theirs": lambda w, v: [Owned(t, t.holder) for t in _theirs(w, v)],
    "spotted": lambda w, v: [t for t in _here(w, v) if t.spot],
    "lost_here": lambda w, v: [t for t in _here(w, v) if t.loser],
    "lost_far": lambda w, v: [t for t in w.things if t.loser and t.place != v.p.place],
    "my_loss": lambda w, v: [t for t in w.things if t.loser is v.p],
    "gift": lambda w, v: [v.p.gift] if v.p.gift else [],
    "counted": lambda w, v: [Counted(w.heap)] if w.heap else [],
    "some": lambda w, v: [h for h in w.grammar.heaps if all(t.text != h.food for t in w.things)],
    "more": lambda w, v: _heap(w, v, lambda n: [(k, n + k) for k in (1, 2, 3)]),
    "one": lambda w, v: _heap(w, v, lambda n: [(1, n - 1)]),
    "part": lambda w, v: _heap(w, v, lambda n: [(k, n - k) for k in range(1, n)]),
    "exchange": lambda w, v: [
        Swap(x, y, y.holder) for x in _mine(w, v) for y in w.things if y.holder is w.people[1]
    ][:1],
}
# whether there are any candidates, where listing them takes long
QUICK = {
    "new": lambda w, v: len(w.things) < min(3, len(w.grammar.nouns) - 1),
    "third": lambda w, v: len(w.people) < min(3, len(w.grammar.names)),
    "some": lambda w, v: not w.heap and len(w.things) < len(w.grammar.food),
}
# there always are: every grammar has at least two names and two places
QUICK |= dict.fromkeys(("name", "at", "place", "room", "spot", "asker"), lambda w, v: True)

# %% ../../nbs/easy/ch03b_stories.ipynb #a515ed75
class World:
    "The state of a story while it is written, and everything that can change it."

    def __init__(
        self,
        pen,  # chooses: a `Writer` at random, a `Reader` by what a text says
        grammar: Grammar,
    ):
        self.pen = pen
        self.grammar = grammar
        self.people = []
        self.things = []
        self.heap = None
        self.last = None  # whom "she" or "he" means

    # what happens
    def meet(self, v):
        self.people = [Person(*v.m, v.x.value), Person(*v.n, v.x.value)]

    def arrive(self, v):
        self.people.append(Person(*v.n, v.y))
        self.turn_to(self.people[-1])

    def turn_to(self, person):
        self.last = person

    def run(self, v):
        self.move(v.x, v.r)
        self.turn_to(v.r)

    def add(self, noun, **where):
        self.things.append(Thing(*noun.value, **where))

    def move(self, place, *people):
        for p in people:
            p.before, p.place = p.place, place

    def drop(self, thing, place=None, spot=None, loser=None):
        thing.holder, thing.place, thing.spot, thing.loser = None, place, spot, loser
        for p in self.people:
            if p.gift and p.gift.thing is thing:
                p.gift = None

    def hold(self, thing, person, giver=None):
        self.drop(thing)
        thing.holder = person
        if giver:
            person.gift = Owned(thing, giver)

    def remove(self, thing):
        self.drop(thing)
        self.things.remove(thing)

    def swap(self, person, swap):
        self.hold(swap.theirs, person)
        self.hold(swap.mine, swap.other)

    def count(self, person, n, food):
        self.heap = Heap(n, food, person=person)

    # what is so
    @property
    def together(self):
        return self.people[0].place == self.people[1].place

    def strangers(self, v):
        known = {p.text for p in self.people} | {v.m.text if v.m else ""}
        return [n for n in self.grammar.names if n.text not in known]

    def unseen(self):
        known = {t.text for t in self.things} | {self.heap.food if self.heap else ""}
        return [n for n in self.grammar.nouns if n.value[0] not in known]

# %% ../../nbs/easy/ch03b_stories.ipynb #70afc031
def needs_of(
    shapes: tuple[Shape, ...],
) -> tuple[set[str], list[tuple[Shape, set[str]]]]:  # every kind of slot, and those of each shape
    "List what the slots of shapes ask for; done once, since a story needs it at every sentence."
    needs = [(s, {kind for _, kind, _ in s.slots}) for s in shapes]
    return set().union(*(need for _, need in needs)), needs


LOOKS = CANDIDATES | QUICK  # kind of slot: how to look whether there is a candidate
NEEDS = {id(shapes): needs_of(shapes) for shapes in (BEGIN, FIRST, ACTS, BOTH, WORLD, END)}


def spell(value, name: str, rest: str, v: SimpleNamespace) -> str:
    "Write a candidate and the text that follows from it."
    setattr(v, name, value)
    return getattr(value, "text", value) + rest.format_map(vars(v))


def tell(
    world: World,
) -> tuple[Shape, SimpleNamespace]:  # the last sentence and what was chosen in it
    "Tell one story, from the first choice to the last."
    w, pen = world, world.pen

    def scope(p=None):
        return SimpleNamespace(p=p, m=None)

    def possible(shapes, v):
        kinds, needs = NEEDS.get(id(shapes)) or needs_of(shapes)
        there = {kind for kind in kinds if LOOKS[kind](w, v)}
        return [s for s, need in needs if need <= there]

    def write(s, v):
        for name, kind, rest in s.slots:
            value = pen.pick(
                CANDIDATES[kind](w, v), None, lambda c, n=name, r=rest: spell(c, n, r, v)
            )
            setattr(v, name, value)
        s.effect(w, v)
        return s, v

    def choose(shapes, v):
        shapes = possible(shapes, v)
        s = pen.pick(shapes, [s.weight for s in shapes], lambda s: s.head.format_map(vars(v)))
        return write(s, v)

    choose(BEGIN, scope())
    w.turn_to(pen.pick(w.people, None, lambda p: f" {p.text} "))
    choose(FIRST, scope(w.last))
    n = 2  # sentences so far
    while True:
        n += 1
        starts = []  # weight, text, shapes, who acts
        if n < w.grammar.longest:
            starts = [(3, f" {p.text} ", ACTS, p) for p in w.people]
            starts.append((4, f" {w.last.they.capitalize()} ", ACTS, w.last))
            if w.together:
                starts.append((2, " They ", BOTH, w.people[0]))
            starts += [(s.weight, s.head, s, None) for s in possible(WORLD, scope())]
        if n >= w.grammar.shortest:
            starts += [(s.weight, s.head, s, None) for s in possible(END, scope())]
        _, _, shapes, person = pen.pick(starts, [s[0] for s in starts], lambda s: s[1])
        if person:
            choose(shapes, scope(person))
            w.turn_to(person)
        else:
            last = write(shapes, scope())
            if shapes in END:
                return last

# %% ../../nbs/easy/ch03b_stories.ipynb #09891334
class Writer:
    "Choose at random."

    def __init__(self, seed: str):
        self.bits = random.Random(seed).getrandbits
        self.pieces = []
        self.logprob = 0.0

    text = property(lambda self: "".join(self.pieces))

    def pick(self, values, weights, write):
        "Choose one of `values` (weights None: all alike), and write it down."
        i, weight = 0, 1
        total = sum(weights) if weights else len(values)
        r = self.bits(total.bit_length())
        while r >= total:
            r = self.bits(total.bit_length())
        if weights:
            while r >= weights[i]:
                r -= weights[i]
                i += 1
            weight = weights[i]
        value = values[i if weights else r]
        self.logprob += math.log(weight / total)
        self.pieces.append(write(value))
        return value


def log_chance(i: int, values, weights) -> float:
    "Say the log-probability, in nats, that a `Writer` chooses number i."
    return math.log(weights[i] / sum(weights) if weights else 1 / len(values))


class Reader:
    "Choose what a text says. ValueError where it is not a story of the grammar."

    def __init__(self, text: str):
        self.text = text
        self.at = 0  # characters read
        self.logprob = 0.0

    def pick(self, values, weights, write):
        "Find the one of `values` with which the text continues."
        fits = [i for i, value in enumerate(values) if self.text.startswith(write(value), self.at)]
        if len(fits) != 1:
            rest = self.text[self.at : self.at + 30]
            raise ValueError(
                f"not a story: {len(fits)} choices of the grammar fit {rest!r} "
                f"at character {self.at}"
            )
        i = fits[0]
        self.at += len(write(values[i]))
        self.logprob += log_chance(i, values, weights)
        return values[i]

# %% ../../nbs/easy/ch03b_stories.ipynb #d70dd4e0
class Walker(Writer):
    "Choose what `path` says, beyond its end the first; note how many choices there were."

    def __init__(self, path: list[int]):
        super().__init__("")
        self.path = path
        self.sizes = []

    def pick(self, values, weights, write):
        "Take the next turn of the path."
        depth = len(self.sizes)
        i = self.path[depth] if depth < len(self.path) else 0
        self.sizes.append(len(values))
        self.logprob += log_chance(i, values, weights)
        self.pieces.append(write(values[i]))
        return values[i]


def every_story(grammar: Grammar) -> Iterator[tuple[str, float]]:  # text, log-probability in nats
    "List all stories of a grammar that is small enough."
    path = []
    while True:
        pen = Walker(path)
        tell(World(pen, grammar))
        yield pen.text, pen.logprob
        path += [0] * (len(pen.sizes) - len(path))
        while path and path[-1] + 1 == pen.sizes[len(path) - 1]:
            path.pop()
        if not path:
            return
        path[-1] += 1
