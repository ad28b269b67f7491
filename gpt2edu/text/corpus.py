"""Documents to learn from: stories whose probability is known exactly, Python's own prose, your files, and what a web corpus is."""

# Made by tools/book.py from ../../book/easy/ch03_corpus.md: edit that file, then `make book`.

# %% auto #0
__all__ = ['FULL', 'SHAKESPEARE', 'SHAKESPEARE_SHA256', 'EMBEDDED', 'SUFFIXES', 'Story', 'story',
           'stories', 'read_back', 'story_items', 'reachable', 'download', 'cut_text', 'read_jsonl',
           'read_parquet', 'find_files', 'documents']

# %% ../../nbs/easy/ch03_corpus.ipynb #441eeb81
import glob
import hashlib
import http.client
import json
import os
import random
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from .grammar import END, NUMBERS, Grammar, amount, at
from .stories import Reader, World, Writer, tell

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
    "Find the choices behind a story. ValueError where the text is no story."
    reader = Reader(text)
    tell(World(reader, grammar))
    if reader.at < len(text):
        raise ValueError(
            f"not a story: {text[reader.at :][:30]!r} comes after its end, at character {reader.at}"
        )
    return reader.logprob

# %% ../../nbs/easy/ch03_corpus.ipynb #7092c960
def _twisted(shape, world, v, rng) -> tuple[list[str], list[str]]:
    "List endings that contradict the story: those made of the story's own words, and others."
    names, g = [p.text for p in world.people], world.grammar
    strangers = rng.sample([n.text for n in g.names if n.text not in names], 2)
    visited = (
        {p.place for p in world.people}
        | {p.before for p in world.people}
        | {t.place for t in world.things}
    )
    near, far = visited - {None}, rng.sample([x for x in g.places if x not in visited], 3)
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
    else:  # somebody had so many
        n, food = v.c.heap.n, v.c.heap.food
        own, other = (
            [
                f"{v.c.text} had {amount(k, food)}."
                for k in range(1, len(NUMBERS))
                if (abs(k - n) == 1) == close
            ]
            for close in (True, False)
        )
    return rng.sample(sorted(set(own)), len(set(own))), rng.sample(
        sorted(set(other)), len(set(other))
    )


def story_items(
    n: int,  # how many
    seed: int = 1,  # apart from the seeds of the training stories
) -> list[
    dict
]:  # HellaSwag's fields: ind, activity_label, ctx_a, ctx_b, ctx, endings, label ("0" to "3"), split
    "Write multiple-choice items: a story, its true ending, and three endings of the same shape that contradict it."
    items = []
    for ind in range(n):
        pen, rng = Writer(f"item {seed}:{ind}"), random.Random(f"endings {seed}:{ind}")
        world = World(pen, FULL)
        shape, v = tell(world)
        lead = shape.head[: shape.head.index(", ") + 2]  # " In the end, "
        ctx_a, _, right = pen.text.rpartition(lead)
        own, other = ([e for e in found if e != right] for found in _twisted(shape, world, v, rng))
        wrong = (own[:1] + other + own[1:])[:3]
        endings = rng.sample([right, *wrong], 4)
        ctx = {"ctx_a": ctx_a, "ctx_b": lead.strip(), "ctx": f"{ctx_a} {lead.strip()}"}
        label = str(endings.index(right))
        items.append(
            {
                "ind": ind,
                "activity_label": "Story",
                **ctx,
                "endings": endings,
                "label": label,
                "split": "val",
            }
        )
    return items

# %% ../../nbs/easy/ch03_corpus.ipynb #9c79daa2
SHAKESPEARE = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def reachable(
    url: str,
) -> bool:
    "Whether a server's name is known here. Without a network it is not, and to try again would not help."
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
    "Get a file once. ValueError, one line, when it cannot be had or is not the one that was expected."
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
            f"{url}: got SHA-256 {got[:12]}, expected {sha256[:12]}; the file has changed or was cut short"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    part.write_bytes(data)
    os.replace(part, path)
    return path


def cut_text(
    lines: Iterable[str],  # of one file
    at_least: int = 2000,  # characters
) -> Iterator[str]:
    "Cut a long text into documents: at blank lines; where there are none for long, at the end of a line."
    held, size = [], 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= (at_least if not line.strip() else 10 * at_least):
            yield "".join(held).strip("\n")
            held, size = [], 0
    if "".join(held).strip():
        yield "".join(held).strip("\n")


def read_jsonl(path: Path, text_key: str) -> Iterator[str]:
    "Read the texts of a .jsonl file. ValueError with file and line number."
    with open(path, encoding="utf-8-sig") as f:  # with or without a byte order mark
        for n, line in enumerate(f, start=1):
            if line.strip():
                try:
                    row = json.loads(line)
                except (
                    ValueError,
                    RecursionError,
                ) as e:  # JSONDecodeError is a ValueError, and so is a number too long
                    why = getattr(
                        e,
                        "msg",
                        "nested too deeply"
                        if isinstance(e, RecursionError)
                        else "a number too long",
                    )
                    raise ValueError(
                        f"{path}, line {n}: not JSON ({why}); expected one object a line"
                    ) from None
                if not isinstance(row, dict) or not isinstance(row.get(text_key), str):
                    keys = ", ".join(row) if isinstance(row, dict) else type(row).__name__
                    raise ValueError(
                        f"{path}, line {n}: no text under {text_key!r}, got {keys}; name it with --text_key"
                    )
                yield row[text_key]


def read_parquet(path: Path, text_key: str) -> Iterator[str]:
    "Read the texts of a .parquet file, a batch at a time. ValueError for a broken file or a missing column."
    import pyarrow  # it takes long to load and most runs do without
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        if text_key not in file.schema_arrow.names:
            columns = ", ".join(file.schema_arrow.names)
            raise ValueError(
                f"{path}: no column {text_key!r}, got {columns}; name it with --text_key"
            )
        for batch in file.iter_batches(batch_size=1000, columns=[text_key]):
            texts = [text for text in batch.column(0).to_pylist() if text]
            if not all(isinstance(text, str) for text in texts):
                kind = batch.schema.field(0).type
                raise ValueError(
                    f"{path}: column {text_key!r} holds {kind}, expected text; name it with --text_key"
                )
            yield from texts
    except (pyarrow.ArrowInvalid, OSError) as e:
        raise ValueError(
            f"{path}: not a whole parquet file ({str(e).splitlines()[0]}); get it again"
        ) from None

# %% ../../nbs/easy/ch03_corpus.ipynb #61d286fe
EMBEDDED = ("stories", "pydocs", "tinyshakespeare")
SUFFIXES = (".txt", ".jsonl", ".parquet")


def find_files(
    names: Iterable[str],  # files, folders, patterns with *
) -> list[Path]:  # sorted, each once
    "Find files of text. FileNotFoundError or ValueError, one line, where there are none."
    found = set()
    for name in names:
        if Path(name).is_dir():
            paths = [p for p in Path(name).rglob("*") if p.suffix in SUFFIXES and p.is_file()]
        else:
            paths = [
                Path(p)
                for p in ([name] if Path(name).is_file() else glob.glob(name, recursive=True))
            ]
        if not paths:
            expected = f"expected {', '.join(EMBEDDED)}, or a file, folder or pattern of {', '.join(SUFFIXES)}"
            raise FileNotFoundError(f"no dataset {name!r}: {expected}")
        found.update(paths)
    for path in sorted(found):
        if path.suffix not in SUFFIXES:
            raise ValueError(
                f"{path}: cannot read {path.suffix or 'a file without suffix'}; expected {', '.join(SUFFIXES)}"
            )
        if path.stat().st_size == 0:
            raise ValueError(f"{path}: the file is empty; expected text")
    return sorted(found)


def documents(
    dataset: str
    | Iterable[str],  # stories, pydocs, tinyshakespeare, or files, folders and patterns
    text_key: str = "text",  # field of .jsonl, column of .parquet
    n_stories: int = 30_000,  # how many stories
    data_dir: str | Path = "data",  # where downloads are kept
) -> Iterator[str]:
    "Give the documents of a dataset, always in the same order. FileNotFoundError, ValueError: one line."
    names = [dataset] if isinstance(dataset, str) else list(dataset)
    if names == ["stories"]:
        yield from (s.text for s in stories(n_stories))
    elif names == ["pydocs"]:
        from pydoc_data.topics import topics  # in every CPython

        yield from random.Random(0).sample([topics[k] for k in sorted(topics)], len(topics))
    elif names == ["tinyshakespeare"]:
        with open(
            download(SHAKESPEARE, SHAKESPEARE_SHA256, Path(data_dir) / "downloads"),
            encoding="utf-8",
        ) as f:
            yield from cut_text(f)
    else:
        for path in find_files(names):
            try:
                if path.suffix == ".txt":
                    with open(path, encoding="utf-8") as f:
                        yield from cut_text(f)
                else:
                    yield from (read_jsonl if path.suffix == ".jsonl" else read_parquet)(
                        path, text_key
                    )
            except UnicodeDecodeError as e:
                raise ValueError(f"{path}: not UTF-8 at byte {e.start}; convert it first") from None
