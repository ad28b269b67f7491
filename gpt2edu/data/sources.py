"""A dataset as a list of units, each of which can be read alone, from any document on."""

# Made by tools/book.py from ../../book/tough/ch19b_sources.md: edit that file, then `make book`.

# %% auto #0
__all__ = ['BUFFER', 'LARGE', 'AHEAD', 'PACKED', 'Unit', 'Source', 'chosen_column', 'broken',
           'arrow', 'column_texts', 'read_group', 'read_text', 'max_line', 'units_of', 'hub_source',
           'local_source', 'read_ahead']

# %% ../../nbs/tough/ch19b_sources.ipynb #b68065ca
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice, pairwise
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import numpy as np

from ..text.corpus import EMBEDDED, documents, find_files
from .hub import HubError, HubFile, Listing
from .cache import N_STORIES
from ..text.tokenizer import utf8

# %% ../../nbs/tough/ch19b_sources.ipynb #95953850
BUFFER = 8 << 20  # bytes that one request asks for, at most
LARGE = 64 << 20  # bytes of text; a larger unit is never in memory as a whole
AHEAD = 4  # units that are read before it is their turn
PACKED = 1.7  # bytes of text in a byte of parquet, about; only for estimates


class Unit(NamedTuple):
    "A part of a source that can be read alone."

    key: tuple[int, int]  # file, row group
    size: int  # bytes of text, about
    read: Callable[
        [int], Iterator[bytes | memoryview]
    ]  # documents in UTF-8, after so many that are passed over


class Source(NamedTuple):
    "Where documents come from."

    made_of: dict  # says what it is; equal means equal documents. Goes into the manifest
    size: int  # bytes of text, about
    units: Callable[[tuple[int, int]], Iterator[Unit]]  # those from a key on, in order


def chosen_column(meta, text_key: str, where: str) -> int:  # its number
    "Find the column of texts in a parquet file's table of contents. ValueError, one line."
    types, schema = arrow().types, meta.schema.to_arrow_schema()
    if text_key not in schema.names:
        raise ValueError(
            f"{where}: no column {text_key!r}, got {', '.join(schema.names)}; name it with --text_key"
        )
    kind = schema.field(text_key).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
        raise ValueError(
            f"{where}: column {text_key!r} holds {kind}, expected text; name it with --text_key"
        )
    return next(i for i in range(meta.num_columns) if meta.schema.column(i).path == text_key)


def broken(where: str, e: Exception) -> ValueError:
    "One line for a file that pyarrow cannot read."
    return ValueError(
        f"{where}: not a whole parquet file ({' '.join(str(e).split())[:100]}); get it again"
    )


def arrow():  # the module pyarrow
    "Load pyarrow, which takes long; with the system's memory, which is given back after a very long document."
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    import pyarrow
    import pyarrow.json
    import pyarrow.parquet

    return pyarrow


def column_texts(texts) -> Iterator[memoryview]:
    "Give the texts of an Arrow column without copying them; empty ones are left out."
    pa = arrow()
    texts = texts.dictionary_decode() if isinstance(texts, pa.DictionaryArray) else texts
    texts = texts.cast(pa.large_binary())
    _, ends, data = texts.buffers()
    ends = np.frombuffer(ends, dtype=np.int64)[texts.offset :][: len(texts) + 1].tolist()
    data = memoryview(data) if data else memoryview(b"")
    return (data[a:b] for a, b in pairwise(ends) if b > a)


def read_group(
    open_file: Callable, meta, group: int, column: int, text_key: str, where: str, skip: int
) -> Iterator[memoryview]:
    "Give the documents of one row group. ValueError, HubError: one line."
    pa, info = arrow(), meta.row_group(group)
    size = info.column(column).total_uncompressed_size
    rows = 1 if size > 2 * LARGE else max(1, info.num_rows * (BUFFER // 4) // max(1, size))
    again = True
    while again:
        again = False
        try:
            file = pa.parquet.ParquetFile(
                open_file(), metadata=meta, buffer_size=BUFFER, pre_buffer=False
            )
            seen = rows_seen = 0
            for batch in file.iter_batches(
                min(rows, info.num_rows or 1), [group], [text_key], use_threads=False
            ):
                rows_seen += batch.num_rows
                for text in column_texts(batch.column(0)):
                    seen += 1
                    if seen > skip:
                        if len(text) > LARGE:
                            break
                        yield text
                else:
                    continue
                skip, again = seen, True  # a very long one, which the reader holds three times
                break
        except HubError:
            raise
        except (pa.ArrowException, OSError) as e:
            raise broken(where, e) from None
        if again:  # let the reader go, and come back for what follows
            again = rows_seen < info.num_rows or batch.num_rows > 1
            del file, batch
            yield text
            del text


def read_text(path: Path, text_key: str, skip: int) -> Iterator[bytes | memoryview]:
    "Give the documents of a .txt or .jsonl file. ValueError: one line."
    if path.suffix != ".jsonl" or max_line(path) < LARGE:
        for text in islice(documents([str(path)], text_key), skip, None):
            yield utf8(text)
        return
    pa, seen = arrow(), 0
    with open(path, "rb") as f:  # Python's own strings may take four bytes a character
        for line in f:
            if not line.strip():
                continue
            try:
                options = pa.json.ReadOptions(use_threads=False, block_size=len(line) + 1)
                only = pa.json.ParseOptions(
                    explicit_schema=pa.schema([(text_key, pa.string())]),
                    unexpected_field_behavior="ignore",
                )
                texts = pa.json.read_json(pa.BufferReader(line), options, only)[text_key]
            except pa.ArrowException as e:
                raise ValueError(
                    f"{path}: a line is no JSON with text under {text_key!r} ({str(e).splitlines()[0]})"
                ) from None
            del line
            if texts.null_count:
                raise ValueError(
                    f"{path}: a line has no text under {text_key!r}; name it with --text_key"
                )
            seen += 1
            if seen > skip:
                yield next(column_texts(texts.chunk(0)), b"")


def max_line(path: Path) -> int:
    "Say how long the longest line of a file is, in bytes, about: exact to a megabyte."
    longest = at = 0
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            if b"\n" in block:
                longest, at = max(longest, at + block.index(b"\n")), 0
            at += len(block)
    return max(longest, at)


def units_of(
    files: list[tuple[str, int, Callable]],  # name, bytes, a function that opens it
    text_key: str,
    start: tuple[int, int],
) -> Iterator[Unit]:
    "List the units of files, from a key on."
    pa = arrow()

    def unit(f, g, *where):
        size = where[1].row_group(g).column(where[2]).total_uncompressed_size
        return Unit(
            (f, g),
            size,
            lambda skip: read_group(where[0], where[1], g, where[2], text_key, where[3], skip),
        )

    for f, (name, size, open_file) in list(enumerate(files))[start[0] :]:
        if not name.endswith(".parquet"):
            yield Unit((f, 0), size, lambda skip, name=name: read_text(Path(name), text_key, skip))
            continue
        try:
            meta = pa.parquet.read_metadata(open_file())
        except HubError:
            raise
        except (pa.ArrowException, OSError) as e:
            raise broken(name, e) from None
        column = chosen_column(meta, text_key, name)
        for g in range(start[1] if f == start[0] else 0, meta.num_row_groups):
            yield unit(f, g, open_file, meta, column, name)


def hub_source(
    listing: Listing,
    text_key: str = "text",
    note: Callable = lambda line: None,  # told of long pauses
) -> Source:
    "A split of a dataset on the hub."
    files = [
        (path, size, lambda p=path, s=size: HubFile(listing.url(p), s, note))
        for path, size in listing.files
    ]
    made_of = {"dataset": listing.repo, "config": listing.config, "split": listing.split}
    made_of |= {"revision": listing.revision, "text_key": text_key, "files": len(files)}
    return Source(
        made_of,
        int(PACKED * sum(size for _, size in listing.files)),
        lambda start: units_of(files, text_key, start),
    )


def local_source(
    dataset: tuple[str, ...],  # stories, pydocs, tinyshakespeare, or files
    made_of: dict,  # goes into the manifest
    size: int,  # bytes of text, about
    text_key: str = "text",
    data_dir: str = "data",  # where downloads are kept
) -> Source:
    "What is on this machine, or made by it."
    if dataset[0] in EMBEDDED:

        def read(skip):
            return (
                utf8(t)
                for t in islice(
                    documents(dataset, n_stories=N_STORIES, data_dir=data_dir), skip, None
                )
            )

        return Source(
            made_of, size, lambda start: iter([Unit((0, 0), size, read)] if start == (0, 0) else [])
        )
    files = [(str(p), p.stat().st_size, lambda p=p: open(p, "rb")) for p in find_files(dataset)]
    size = int(sum(n * (PACKED if path.endswith(".parquet") else 1) for path, n, _ in files))
    return Source(made_of, size, lambda start: units_of(files, text_key, start))

# %% ../../nbs/tough/ch19b_sources.ipynb #6b5d1cad
def read_ahead(
    units: Iterable[Unit],
    skip: int = 0,  # documents of the first unit to pass over
    n: int = AHEAD,  # units read at the same time
) -> Iterator[tuple[tuple[int, int], Iterable[bytes | memoryview]]]:  # key, documents
    "Read units, a few at a time, and give them in order."

    def load(future, unit, skip):
        try:
            future.set_result(list(unit.read(skip)))
        except BaseException as e:  # noqa: BLE001  whoever asks for the result gets it
            future.set_exception(e)

    waiting, units = deque(), iter(units)
    while True:
        while len(waiting) <= n and (unit := next(units, None)):
            future = Future() if unit.size <= LARGE else None
            if future:  # a daemon: Ctrl-C does not wait for a slow network
                Thread(target=load, args=(future, unit, skip), daemon=True).start()
            waiting.append((unit, skip, future))
            skip = 0
        if not waiting:
            return
        unit, passed, future = waiting.popleft()
        yield unit.key, future.result() if future else unit.read(passed)
