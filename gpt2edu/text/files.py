"""Documents out of files, one at a time, whatever their size, and one line for a broken file."""

# Made by tools/book.py from ../../book/easy/ch03c_files.md: edit that, then `make book`.

# %% auto #0
__all__ = ['LARGE', 'BOM', 'BUFFER', 'cut_text', 'arrow', 'column_texts', 'not_utf8', 'row_of',
           'text_of', 'long_text_of', 'read_jsonl', 'Table', 'broken', 'text_column', 'open_table',
           'read_group', 'read_parquet', 'read_file', 'read_strings']

# %% ../../nbs/easy/ch03c_files.ipynb #4b761a3d
import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

# %% ../../nbs/easy/ch03c_files.ipynb #5fb80a32
def cut_text(
    lines: Iterable[str],  # of one file
    at_least: int = 2000,  # characters
) -> Iterator[str]:
    "Cut a long text at blank lines; where there are none for long, at the end of a line."
    held, size = [], 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= (at_least if not line.strip() else 10 * at_least):
            yield "".join(held).strip("\n")
            held, size = [], 0
    if "".join(held).strip():
        yield "".join(held).strip("\n")

# %% ../../nbs/easy/ch03c_files.ipynb #902c8e89
LARGE = 64 << 20  # bytes of text; a larger document is not turned into a string


def arrow():  # the module pyarrow
    "Load pyarrow with the system's memory, which is given back after a very long document."
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    import pyarrow  # it takes long to load and most runs do without
    import pyarrow.json
    import pyarrow.parquet

    return pyarrow


def column_texts(texts) -> Iterator[memoryview]:
    "Give the texts of an Arrow column without copying them; empty ones are left out."
    pa = arrow()
    texts = texts.dictionary_decode() if isinstance(texts, pa.DictionaryArray) else texts
    texts = texts.cast(pa.large_binary())
    _, ends, data = texts.buffers()
    ends = memoryview(ends).cast("q")[texts.offset :][: len(texts) + 1].tolist()  # int64
    data = memoryview(data) if data else memoryview(b"")
    return (data[a:b] for a, b in pairwise(ends) if b > a)


def not_utf8(where: str, e: UnicodeDecodeError) -> ValueError:
    "One line for text in another encoding."
    return ValueError(f"{where}: not UTF-8 at byte {e.start}; convert it first")


BOM = b"\xef\xbb\xbf"  # a byte order mark, which some editors put first


def row_of(line: bytes, where: str):
    "Parse one line of a .jsonl file. ValueError, one line."
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as e:
        raise not_utf8(where, e) from None
    except RecursionError:
        raise ValueError(
            f"{where}: not JSON (nested too deeply); expected one object a line"
        ) from None
    except ValueError as e:  # a JSONDecodeError, or a number of too many digits
        why = getattr(e, "msg", "a number too long")
        raise ValueError(f"{where}: not JSON ({why}); expected one object a line") from None


def text_of(line: bytes, text_key: str, where: str) -> str:
    "Take the text out of one line. ValueError, one line."
    row = row_of(line, where)
    if not isinstance(row, dict) or not isinstance(row.get(text_key), str):
        keys = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise ValueError(
            f"{where}: no text under {text_key!r}, got {keys}; name it with --text_key"
        )
    return row[text_key]


def long_text_of(line: bytes, text_key: str, where: str) -> memoryview:
    "Take the text out of a very long line. ValueError, one line."
    pa = arrow()
    size = pa.json.ReadOptions(use_threads=False, block_size=len(line) + 1)
    schema = pa.schema([(text_key, pa.string())])
    only = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        texts = pa.json.read_json(pa.BufferReader(line), size, only)[text_key]
    except pa.ArrowException as e:
        why = str(e).splitlines()[0]
        raise ValueError(f"{where}: no JSON with text under {text_key!r} ({why})") from None
    if texts.null_count:
        raise ValueError(f"{where}: no text under {text_key!r}; name it with --text_key")
    return next(column_texts(texts.chunk(0)), memoryview(b""))


def read_jsonl(path: Path, text_key: str) -> Iterator[str | memoryview]:
    "Give the texts of a .jsonl file, a very long one in UTF-8. ValueError with the line's number."
    n = 0
    with open(path, "rb") as f:
        for line in f:
            n += 1
            if n == 1:
                line = line.removeprefix(BOM)
            if not line.strip():
                continue
            take = text_of if len(line) < LARGE else long_text_of
            text = take(line, text_key, f"{path}, line {n}")
            del line  # before the next stage needs memory
            yield text
            del text

# %% ../../nbs/easy/ch03c_files.ipynb #3504c84c
BUFFER = 8 << 20  # bytes that are asked for at a time, at most


class Table(NamedTuple):
    "The table of contents of a parquet file."

    open_file: Callable  # opens the file
    where: str  # names it in messages
    text_key: str  # the column of texts
    column: int  # its number
    meta: Any  # pyarrow's FileMetaData
    own: tuple[type, ...]  # errors of `open_file` that say themselves what is wrong

    def size(self, group: int) -> int:
        "Bytes of text in a row group."
        return self.meta.row_group(group).column(self.column).total_uncompressed_size


def broken(where: str, e: Exception) -> ValueError:
    "One line for a file that pyarrow cannot read."
    why = " ".join(str(e).split())[:100]
    return ValueError(f"{where}: not a whole parquet file ({why}); get it again")


def text_column(meta, text_key: str, where: str) -> int:
    "Find the column of texts. ValueError, one line, if it is not there or holds something else."
    types = arrow().types
    schema = meta.schema.to_arrow_schema()
    if text_key not in schema.names:
        got = ", ".join(schema.names)
        raise ValueError(f"{where}: no column {text_key!r}, got {got}; name it with --text_key")
    kind = schema.field(text_key).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
        raise ValueError(
            f"{where}: column {text_key!r} holds {kind}, expected text; name it with --text_key"
        )
    return next(i for i in range(meta.num_columns) if meta.schema.column(i).path == text_key)


def open_table(
    open_file: Callable,
    where: str,
    text_key: str,
    own: tuple[type, ...] = (),
) -> Table:
    "Read the table of contents. ValueError, one line."
    pa = arrow()
    try:
        meta = pa.parquet.read_metadata(open_file())
    except own:
        raise
    except (pa.ArrowException, OSError) as e:
        raise broken(where, e) from None
    return Table(open_file, where, text_key, text_column(meta, text_key, where), meta, own)

# %% ../../nbs/easy/ch03c_files.ipynb #01438aea
def read_group(
    table: Table,
    group: int,
    skip: int = 0,  # documents to pass over
) -> Iterator[memoryview]:  # in UTF-8
    "Give the documents of one row group. ValueError, one line."
    pa = arrow()
    info = table.meta.row_group(group)
    size = max(1, table.size(group))
    rows = 1 if size > 2 * LARGE else max(1, info.num_rows * (BUFFER // 4) // size)
    options = {"metadata": table.meta, "buffer_size": BUFFER, "pre_buffer": False}
    wanted = {"row_groups": [group], "columns": [table.text_key], "use_threads": False}
    again = True
    while again:
        again = False
        try:
            file = pa.parquet.ParquetFile(table.open_file(), **options)
            seen = rows_seen = 0
            for batch in file.iter_batches(min(rows, info.num_rows or 1), **wanted):
                rows_seen += batch.num_rows
                for text in column_texts(batch.column(0)):
                    seen += 1
                    if seen > skip:
                        if len(text) > LARGE:
                            break
                        yield text
                else:
                    continue
                again = True  # a very long one
                skip = seen
                break
        except table.own:
            raise
        except (pa.ArrowException, OSError) as e:
            raise broken(table.where, e) from None
        if again:  # let the reader go, and come back for what follows
            again = rows_seen < info.num_rows or batch.num_rows > 1
            del file, batch
            yield text
            del text


def read_parquet(path: Path, text_key: str) -> Iterator[memoryview]:
    "Give the texts of a .parquet file in UTF-8. ValueError, one line."
    table = open_table(lambda: open(path, "rb"), str(path), text_key)
    for group in range(table.meta.num_row_groups):
        yield from read_group(table, group)

# %% ../../nbs/easy/ch03c_files.ipynb #1a20e77f
def read_file(path: Path, text_key: str) -> Iterator[str | memoryview]:
    "Give the documents of a file, as strings or in UTF-8. ValueError, OSError: one line."
    try:
        if path.suffix == ".txt":
            with open(path, encoding="utf-8") as f:
                yield from cut_text(f)
        else:
            read = read_jsonl if path.suffix == ".jsonl" else read_parquet
            yield from read(path, text_key)
    except UnicodeDecodeError as e:
        raise not_utf8(str(path), e) from None


def read_strings(path: Path, text_key: str) -> Iterator[str]:
    "Give the documents of a file as strings. ValueError, OSError: one line."
    for text in read_file(path, text_key):
        try:
            yield text if isinstance(text, str) else str(text, "utf-8")
        except UnicodeDecodeError as e:
            raise not_utf8(str(path), e) from None
