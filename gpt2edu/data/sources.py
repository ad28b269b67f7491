"""Read a dataset as a list of units, each of them alone and from any document on."""

# Made by tools/book.py from ../../book/tough/ch20b_sources.md: edit that, then `make book`.

# %% auto #0
__all__ = ['AHEAD', 'PACKED', 'Unit', 'Source', 'File', 'read_text', 'units_of', 'hub_source',
           'embedded_source', 'local_source', 'read_ahead']

# %% ../../nbs/tough/ch20b_sources.ipynb #b68065ca
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import NamedTuple

from gpt2edu.data.cache import N_STORIES
from gpt2edu.data.hub import HubError, HubFile, Listing
from gpt2edu.machine.signals import READER
from gpt2edu.text.corpus import EMBEDDED, documents, find_files
from gpt2edu.text.files import EOT, LARGE, open_table, read_file, read_rows, unheard
from gpt2edu.text.tokenizer import utf8

# %% ../../nbs/tough/ch20b_sources.ipynb #4eedb3c8
AHEAD = 4  # units that are read before it is their turn
PACKED = 1.7  # bytes of text in a byte of parquet, about; only for estimates


class Unit(NamedTuple):
    "A part of a source that can be read alone."

    key: tuple[int, int]  # file, row group
    size: int  # bytes of text, about
    # skips this many documents, and gives the others in UTF-8
    read: Callable[[int], Iterator[bytes | memoryview]]


class Source(NamedTuple):
    "Where documents come from."

    made_of: dict  # identifies it: equal means equal documents. Goes into the manifest
    size: int  # bytes of text, about
    units: Callable[[tuple[int, int]], Iterator[Unit]]  # those from a key on, in order

# %% ../../nbs/tough/ch20b_sources.ipynb #95953850
class File(NamedTuple):
    "A file of a source, here or on a server."

    name: str
    size: int  # bytes
    open: Callable  # opens it


def read_text(
    path: Path,
    text_key: str,
    skip: int,  # documents
    separator: str = EOT,  # a line that ends a document of a .txt file
    note: Callable = unheard,  # gets a line for what is left out
) -> Iterator[bytes | memoryview]:
    "Give the documents of a .txt or .jsonl file. ValueError: one line."
    for text in islice(read_file(path, text_key, separator, note), skip, None):
        yield utf8(text) if isinstance(text, str) else text
        del text  # it may be a very long one


def units_of(
    files: list[File],
    text_key: str,
    start: tuple[int, int],
    separator: str = EOT,  # for `read_text`
    note: Callable = unheard,  # gets a line for what is left out
) -> Iterator[Unit]:
    "List the units of files, from a key on. ValueError, HubError: one line."
    lost = Counter()
    for f in range(start[0], len(files)):
        file = files[f]
        if not file.name.lower().endswith(".parquet"):
            more = {"separator": separator, "note": note}
            read = partial(read_text, Path(file.name), text_key, **more)
            yield Unit((f, 0), file.size, read)
            continue
        table = open_table(file.open, file.name, text_key, own=(HubError,))
        for g in range(start[1] if f == start[0] else 0, table.meta.num_row_groups):
            yield Unit((f, g), table.size(g), partial(read_rows, table, g, lost, note))

# %% ../../nbs/tough/ch20b_sources.ipynb #98300dbd
def hub_source(
    listing: Listing,
    text_key: str = "text",
    note: Callable = lambda line: None,  # gets a line for each long pause, and for what is left out
) -> Source:
    "A split of a dataset on the hub."
    files = [
        File(path, size, partial(HubFile, listing.url(path), size, note))
        for path, size in listing.files
    ]
    made_of = {"dataset": listing.repo, "config": listing.config, "split": listing.split}
    made_of |= {"revision": listing.revision, "text_key": text_key, "files": len(files)}
    size = int(PACKED * sum(file.size for file in files))
    return Source(made_of, size, partial(units_of, files, text_key, note=note))


def embedded_source(dataset: tuple[str, ...], made_of: dict, size: int, data_dir: str) -> Source:
    "One of the corpora that are written or downloaded by the library: one unit."

    def read(skip):
        texts = documents(dataset, n_stories=N_STORIES, data_dir=data_dir)
        return (utf8(text) for text in islice(texts, skip, None))

    unit = Unit((0, 0), size, read)
    return Source(made_of, size, lambda start: iter([unit] if start == unit.key else []))


def local_source(
    dataset: tuple[str, ...],  # stories, pydocs, tinyshakespeare, or files
    made_of: dict,  # goes into the manifest
    size: int,  # bytes of text, about
    text_key: str = "text",
    data_dir: str = "data",  # where downloads are kept
    separator: str = EOT,  # a line that ends a document of a .txt file
    note: Callable = unheard,  # gets a line for what is left out
) -> Source:
    "Files on this machine, or an embedded corpus."
    if dataset[0] in EMBEDDED:
        return embedded_source(dataset, made_of, size, data_dir)
    paths = find_files(dataset, note)
    files = [File(str(p), p.stat().st_size, partial(open, p, "rb")) for p in paths]
    size = int(sum(f.size * (PACKED if f.name.lower().endswith(".parquet") else 1) for f in files))
    units = partial(units_of, files, text_key, separator=separator, note=note)
    return Source(made_of, size, units)

# %% ../../nbs/tough/ch20b_sources.ipynb #6b5d1cad
def read_ahead(
    units: Iterable[Unit],
    skip: int = 0,  # documents of the first unit
    n: int = AHEAD,  # units read at the same time
) -> Iterator[tuple[tuple[int, int], Iterable[bytes | memoryview]]]:  # key, documents
    "Read units, a few at a time, and give them in order."

    def load(future, unit, skip):
        held, size = [], 0
        try:
            for document in unit.read(skip):
                held.append(document)
                size += len(document) + 200  # about what Python adds to it
                if size > 2 * LARGE:  # more than its table of contents said
                    held = None
                    break
            future.set_result(held)
        except BaseException as e:  # noqa: BLE001  raised where the result is read
            future.set_exception(e)

    units = iter(units)
    waiting = deque()  # (unit, documents to skip, its documents in the future)
    while True:
        while len(waiting) <= n and (unit := next(units, None)):
            future = Future() if unit.size <= LARGE else None
            if future:  # a daemon: Ctrl-C does not wait for a slow network
                work = (future, unit, skip)
                Thread(target=load, args=work, name=READER, daemon=True).start()
            waiting.append((unit, skip, future))
            skip = 0
        if not waiting:
            return
        unit, passed, future = waiting.popleft()
        documents = future.result() if future else None
        yield unit.key, unit.read(passed) if documents is None else documents
