"""Three sources of text: stories whose probability we know, Python's own manual, and your files."""

# Made by tools/book.py from ../../book/easy/ch03_corpus.md: edit that, then `make book`.

# %% auto #0
__all__ = ['FULL', 'SHAKESPEARE', 'SHAKESPEARE_SHA256', 'EMBEDDED', 'SUFFIXES', 'LONG', 'Story',
           'story', 'stories', 'read_back', 'story_items', 'reachable', 'download', 'is_hub_name',
           'files_below', 'files_like', 'find_files', 'long_lines', 'without_repeats', 'documents']

# %% ../../nbs/easy/ch03_corpus.ipynb #441eeb81
import glob
import hashlib
import http.client
import os
import random
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from gpt2edu.machine.atomic import write_atomically
from gpt2edu.text.files import EOT, read_strings, unheard
from gpt2edu.text.grammar import END, NUMBERS, Grammar, amount, at
from gpt2edu.text.stories import Reader, World, Writer, tell

# %% ../../nbs/easy/ch03_corpus.ipynb #91dbb4ce
FULL = Grammar()


class Story(NamedTuple):
    "A document and its exact probability."

    text: str
    logprob: float  # nats, below zero


def story(
    index: int,  # which story; any whole number
    seed: int = 0,  # another seed gives other stories
    grammar: Grammar = FULL,  # words and lengths
) -> Story:  # the same on every platform and Python version
    "Write one story of the grammar."
    pen = Writer(f"{seed}:{index}")
    tell(World(pen, grammar))
    return Story(pen.text, pen.logprob)


def stories(
    n: int,  # how many
    seed: int = 0,  # another seed gives other stories
    start: int = 0,  # index of the first
) -> Iterator[Story]:
    "Write n stories, one after the other."
    return (story(i, seed) for i in range(start, start + n))

# %% ../../nbs/easy/ch03_corpus.ipynb #d472ef71
def read_back(
    text: str,  # one whole story
    grammar: Grammar = FULL,  # the grammar that may have written it
) -> float:  # nats, the log-probability that the grammar writes this very text
    "Recover the choices behind a story. ValueError where the text is not a story."
    reader = Reader(text)
    tell(World(reader, grammar))
    if reader.at < len(text):
        raise ValueError(
            f"not a story: {text[reader.at :][:30]!r} comes after its end, at character {reader.at}"
        )
    return reader.logprob

# %% ../../nbs/easy/ch03_corpus.ipynb #7092c960
def _shuffled(endings, rng) -> list[str]:
    "Put endings in random order, each once."
    endings = sorted(set(endings))
    return rng.sample(endings, len(endings))


def _twisted(shape, world, v, rng) -> tuple[list[str], list[str]]:
    "List endings that contradict the story: those made of the story's own words, and others."
    names = [p.text for p in world.people]
    g = world.grammar
    strangers = rng.sample([n.text for n in g.names if n.text not in names], 2)
    visited = (
        {p.place for p in world.people}
        | {p.before for p in world.people}
        | {t.place for t in world.things}
    )
    near = visited - {None}
    far = rng.sample([x for x in g.places if x not in visited], 3)
    kind = END.index(shape)
    if kind == 0:  # the thing was ...
        home = v.t.holder.place if v.t.holder else v.t.place  # true as well, so no wrong ending
        own = (
            [f"with {n}" for n in names]
            + [t.spot for t in world.things if t.spot]
            + [at(x) for x in near - {home}]
        )
        other = [at(far[0]), rng.choice(g.spots), f"with {strangers[0]}", at(far[1])]
        own, other = ([f"the {v.t.text} was {x}." for x in xs] for xs in (own, other))
    elif kind == 1:  # somebody was ...
        own, other = ([f"{v.r.text} was {at(x)}." for x in xs] for xs in (near - {v.r.place}, far))
    elif kind == 2:  # somebody had the thing
        own, other = ([f"{n} had the {v.h.thing.text}." for n in ns] for ns in (names, strangers))
    else:  # somebody had a number of things to eat
        n, food = v.c.heap.n, v.c.heap.food
        counts = range(1, len(NUMBERS))
        own = [k for k in counts if abs(k - n) == 1]
        other = [k for k in counts if abs(k - n) != 1]
        own, other = ([f"{v.c.text} had {amount(k, food)}." for k in ks] for ks in (own, other))
    return _shuffled(own, rng), _shuffled(other, rng)


def story_items(
    n: int,  # how many
    seed: int = 1,  # not a seed of the training stories
) -> list[dict]:  # HellaSwag's: ind, activity_label, ctx_a, ctx_b, ctx, endings, label, split
    "Write multiple-choice items: a story, its true ending, and three like it that contradict it."
    items = []
    for ind in range(n):
        pen = Writer(f"item {seed}:{ind}")
        rng = random.Random(f"endings {seed}:{ind}")
        world = World(pen, FULL)
        shape, v = tell(world)
        lead = shape.head[: shape.head.index(", ") + 2]  # " In the end, "
        ctx_a, _, right = pen.text.rpartition(lead)
        own, other = ([e for e in found if e != right] for found in _twisted(shape, world, v, rng))
        wrong = (own[:1] + other + own[1:])[:3]
        endings = rng.sample([right, *wrong], 4)
        ctx = {"ctx_a": ctx_a, "ctx_b": lead.strip(), "ctx": f"{ctx_a} {lead.strip()}"}
        label = str(endings.index(right))  # "0" to "3"
        item = {"ind": ind, "activity_label": "Story", **ctx}
        items.append(item | {"endings": endings, "label": label, "split": "val"})
    return items

# %% ../../nbs/easy/ch03_corpus.ipynb #9c79daa2
SHAKESPEARE = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def reachable(url: str) -> bool:
    "Whether a server's name is known here; without a network it is not, and no retry would help."
    if urllib.request.getproxies():
        return True  # the proxy looks the name up
    try:
        return bool(socket.getaddrinfo(urllib.parse.urlsplit(url).hostname, None))
    except OSError:
        return False


def download(
    url: str,
    sha256: str,  # of the file, hex
    folder: Path,  # where it is kept
) -> Path:  # the file
    "Get a file once. ValueError, one line, if it cannot be had or is not the one expected."
    path = Path(folder) / url.rsplit("/", 1)[-1]
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
        return path
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            data = response.read()
    except (OSError, http.client.HTTPException) as e:
        raise ValueError(
            f"could not download {url} ({e}); get it by other means and put it at {path}"
        ) from None
    if (got := hashlib.sha256(data).hexdigest()) != sha256:
        raise ValueError(
            f"{url}: got SHA-256 {got[:12]}, expected {sha256[:12]}; "
            "the file has changed or was cut short"
        )
    write_atomically(path, data)
    return path

# %% ../../nbs/easy/ch03_corpus.ipynb #61d286fe
EMBEDDED = ("stories", "pydocs", "tinyshakespeare")
SUFFIXES = (".txt", ".jsonl", ".parquet")


def is_hub_name(name: str) -> bool:
    "Whether this is owner/name, perhaps with @revision, and not a path on this machine."
    if Path(name).exists() or Path(name).suffix.lower() in (*SUFFIXES, ".json"):
        return False
    return re.fullmatch(r"\w[\w.-]*/[\w.-]+(@.+)?", name) is not None

# %% ../../nbs/easy/ch03_corpus.ipynb #907d582f
def files_below(folder: Path) -> Iterator[Path]:
    "List the files of a folder and of those in it; follow links, skip hidden files."
    seen = set()  # a link may lead back into a folder above it
    for here, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        shown = (Path(here, f) for f in files if not f.startswith("."))
        yield from (path for path in shown if path.is_file())  # a link may lead nowhere


def files_like(name: str) -> list[Path]:
    "List the files that a pattern with * means."
    path = Path(name)
    rest = []  # what does not exist is the pattern
    while path.name and not path.exists():
        rest.insert(0, path.name)
        path = path.parent
    found = (path / f for f in glob.glob("/".join(rest), root_dir=path, recursive=True))
    return [p for p in found if p.is_file()]


def find_files(
    names: Iterable[str],  # files, folders, patterns with *
    note: Callable = unheard,  # called with what is left out
) -> list[Path]:  # sorted, each once
    "Find files of text. FileNotFoundError or ValueError, one line, where there are none."
    found = set()
    for name in names:
        place = Path(name).expanduser()
        listed = [place] if place.is_file() else files_like(str(place))
        listed = [*files_below(place)] if place.is_dir() else listed
        paths = [p for p in listed if p.suffix.lower() in SUFFIXES]
        kinds = ", ".join(SUFFIXES)
        if not listed or (place.is_dir() and not paths):
            expected = f"expected {', '.join(EMBEDDED)}, or a file, folder or pattern of {kinds}"
            if name in EMBEDDED:
                expected = "a dataset of that name stands alone, not beside others; name it alone"
            raise FileNotFoundError(f"no dataset {name!r}: {expected}")
        others = sorted({p.suffix or "without suffix" for p in listed} - {p.suffix for p in paths})
        if not paths:
            what = others[0] if listed[0].suffix else "a file without suffix"
            raise ValueError(f"{listed[0]}: cannot read {what}; expected {kinds}")
        if others:
            note(f"{name}: left out {len(listed) - len(paths)} other files ({', '.join(others)})")
        found.update(paths)
    empty = sorted(p for p in found if p.stat().st_size == 0)
    if empty and len(empty) == len(found):
        raise ValueError(f"{empty[0]}: the file is empty; expected text")
    if empty:
        more = f" and {len(empty) - 1} more" if empty[1:] else ""
        note(f"{empty[0]}{more}: left out, the file is empty")
    return sorted(found.difference(empty))

# %% ../../nbs/easy/ch03_corpus.ipynb #759244e9
LONG = 40  # characters of a line that two documents do not share by chance


def long_lines(text: str) -> set[str]:
    "The lines of a text that are long enough to recognise it by, without their indentation."
    return {line.strip() for line in text.split("\n") if len(line.strip()) >= LONG}


def without_repeats(texts: Iterable[str]) -> Iterator[str]:
    "Leave out each paragraph with a long line of an earlier text, and texts with nothing else."
    seen = set()
    for text in texts:
        kept = [part for part in text.split("\n\n") if not long_lines(part) & seen]
        own = long_lines("\n\n".join(kept))
        if own or not long_lines(text):
            yield "\n\n".join(kept)
        seen |= own

# %% ../../nbs/easy/ch03_corpus.ipynb #d75200a5
def documents(
    dataset: str | Iterable[str],  # stories, pydocs, tinyshakespeare; files, folders, patterns
    text_key: str = "text",  # field of .jsonl, column of .parquet
    n_stories: int = 30_000,  # how many stories
    data_dir: str | Path = "data",  # where downloads are kept
    separator: str = EOT,  # a line that ends a document of a .txt file; "": there is none
    note: Callable = unheard,  # called with what is left out, and where documents end
) -> Iterator[str]:
    "Give the documents of a dataset, always in the same order. OSError, ValueError: one line."
    names = [dataset] if isinstance(dataset, str) else list(dataset)
    if names == ["stories"]:
        yield from (s.text for s in stories(n_stories))
    elif names == ["pydocs"]:
        from pydoc_data.topics import topics  # in every CPython

        pages = random.Random(0).sample([topics[k] for k in sorted(topics)], len(topics))
        yield from without_repeats(pages)
    elif names == ["tinyshakespeare"]:
        kept = Path(data_dir) / "downloads"
        yield from read_strings(download(SHAKESPEARE, SHAKESPEARE_SHA256, kept), text_key)
    else:
        for path in find_files(names, note):
            yield from read_strings(path, text_key, separator, note)
