"""Read the documents of a file one at a time, and report a broken file in one line."""

# Made by tools/book.py from ../../book/easy/ch03c_files.md: edit that, then `make book`.

# %% auto #0
__all__ = ['EOT', 'LARGE', 'LONGEST', 'BOM', 'BUFFER', 'PACKED_PAGE', 'PACKED_GROUP', 'unheard',
           'typed', 'encoding_of', 'not_utf8', 'whole_lines', 'first_wrong_byte', 'short_lines',
           'cut_text', 'read_txt', 'arrow', 'left_out', 'column_texts', 'row_of', 'rows_of',
           'text_of', 'long_text_of', 'read_jsonl', 'Table', 'broken', 'text_column', 'Sealed',
           'check_contents', 'open_table', 'check_column', 'read_group', 'read_rows',
           'read_parquet', 'read_file', 'read_strings']

# %% ../../nbs/easy/ch03c_files.ipynb #4b761a3d
import io
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, count, pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

from gpt2edu.machine.state import loads

# %% ../../nbs/easy/ch03c_files.ipynb #5fb80a32
EOT = "<|endoftext|>"  # on a line of its own, it separates the documents of a .txt file
LARGE = 64 << 20  # bytes of text; a larger document is not turned into a string
LONGEST = 512 << 20  # bytes of a line of JSON; a longer one is refused
BOM = b"\xef\xbb\xbf"  # a byte order mark, which some editors put first


def unheard(line: str):
    "Take a note, and keep it from the reader."


def typed(argument: str | Path) -> str:
    "Write a path, or another argument, as one types it in a shell."
    text = str(argument)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def encoding_of(path: Path) -> str:
    "Tell the encoding of a text file by its byte order mark. ValueError, one line."
    with open(path, "rb") as f:
        head = f.read(4096)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if head.count(0) > len(head) // 4:
        raise ValueError(
            f"{path}: a zero byte at {head.index(0)}, as in a binary file or UTF-16 without "
            "a mark; convert it to UTF-8 first"
        )
    return "utf-8-sig"


def not_utf8(
    where: str,  # file, and line or row
    e: UnicodeDecodeError,
    at: int = 0,  # bytes of the file before what was decoded
) -> ValueError:
    "One line for text in another encoding."
    return ValueError(f"{where}: not UTF-8 at byte {at + e.start}; convert it first")


def whole_lines(
    file: BinaryIO,
    where: str | Path,  # names it in messages
) -> Iterator[bytes]:
    "Give the lines of a file. ValueError, one line, for one that is too long to hold."
    for n in count(1):
        parts, size = [], 0
        while part := file.readline(LARGE):
            parts.append(part)
            size += len(part)
            if part.endswith(b"\n"):
                break
            if size > LONGEST:
                raise ValueError(
                    f"{where}, line {n}: longer than {LONGEST >> 20} MiB, which is the most for "
                    "one line; cut it into documents"
                )
        if not parts:
            return
        yield parts[0] if len(parts) == 1 else b"".join(parts)


def first_wrong_byte(path: Path) -> ValueError:
    "Say where a text file stops being UTF-8."
    at = 0
    with open(path, "rb") as f:
        for n, line in enumerate(whole_lines(f, path), start=1):
            try:
                line.decode()
            except UnicodeDecodeError as e:
                return not_utf8(f"{path}, line {n}", e, at)
            at += len(line)
    return ValueError(f"{path}: not whole UTF-16; convert it to UTF-8 first")

# %% ../../nbs/easy/ch03c_files.ipynb #87d29a27
def short_lines(
    file: TextIO,
    most: int = 20_000,  # characters
) -> Iterator[str]:
    "Give the lines of a text; a longer one is cut at a space, or where it must be."
    rest = ""
    while part := file.readline(most):
        line = rest + part
        end = len(line)
        if len(part) == most and not part.endswith("\n"):
            end = line.rfind(" ") + 1 or end
        yield line[:end]
        rest = line[end:]
    if rest:
        yield rest


def cut_text(
    lines: Iterable[str],  # of one file
    at_least: int = 2000,  # characters
    separator: str = EOT,  # a line that ends a document; "": there is none
) -> Iterator[str]:
    "Cut a long text at separators, else at blank lines; where there are none for long, at a line."
    held, size = [], 0
    for line in chain(lines, [None]):
        ends = line is None or (separator and line.strip() == separator)
        if not ends:
            held.append(line)
            size += len(line)
        if ends or size >= (at_least if not line.strip() else 10 * at_least):
            text = "".join(held).strip("\n")
            text = text if ends or line.endswith("\n") else text.removesuffix(" ")
            if text.strip():
                yield text
            held, size = [], 0


def read_txt(path: Path, separator: str = EOT, note: Callable = unheard) -> Iterator[str]:
    "Give the documents of a .txt file. ValueError, one line."
    encoding = encoding_of(path)
    try:
        with open(path, encoding=encoding) as f:
            at_least = 2000
            own_line = rf"(?m)^[ \t]*{re.escape(separator)}[ \t]*$"
            if separator and re.search(own_line, f.read(1 << 20)):
                at_least = LARGE
                note(f"{path}: documents end at lines of {separator}")
            f.seek(0)
            yield from cut_text(short_lines(f), at_least, separator)
    except UnicodeError:
        raise first_wrong_byte(path) from None

# %% ../../nbs/easy/ch03c_files.ipynb #08725c44
def arrow():  # the module pyarrow
    "Load pyarrow with the system's memory, which is given back after a very long document."
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    import pyarrow  # it takes long to load and most runs do without
    import pyarrow.json
    import pyarrow.parquet

    return pyarrow


def left_out(path: str | Path, n: int, text_key: str, note: Callable):
    "Say how many rows of a file had no text."
    if n:
        note(f"{path}: left out {n:,} rows whose {text_key!r} is empty or null")


def column_texts(texts) -> Iterator[memoryview]:
    "Give the texts of an Arrow column without copying them; empty ones are left out."
    pa = arrow()
    rows = texts.indices.to_pylist() if isinstance(texts, pa.DictionaryArray) else range(len(texts))
    words = texts.dictionary if isinstance(texts, pa.DictionaryArray) else texts
    words = words.cast(pa.large_binary())
    _, ends, data = words.buffers()
    ends = memoryview(ends).cast("q")[words.offset :][: len(words) + 1].tolist()  # int64
    data = memoryview(data) if data else memoryview(b"")
    places = list(pairwise(ends))
    return (data[a:b] for a, b in (places[i] for i in rows if i is not None) if b > a)


def row_of(
    line: bytes,
    where: str,  # file and line
    at: int = 0,  # bytes of the file before the line
    strict: bool = False,  # True: a file of ours, where a key that is there twice is a mistake
):
    "Parse one line of a .jsonl file. ValueError, one line."
    try:
        return loads(line.decode(), nan=True, strict=strict)
    except UnicodeDecodeError as e:
        raise not_utf8(where, e, at) from None
    except ValueError as e:
        why = getattr(e, "msg", e)  # a JSONDecodeError also names a place
        raise ValueError(f"{where}: not JSON ({why}); expected one object a line") from None


def rows_of(
    path: str | Path,  # .jsonl, of a few megabytes
    strict: bool = False,  # as for `row_of`
) -> Iterator[tuple[str, Any]]:  # file and line, for messages; what the line holds
    "Parse the lines of a .jsonl file, blank ones left out. ValueError, one line."
    if encoding_of(Path(path)) == "utf-16":
        raise ValueError(f"{path}: is UTF-16; convert it to UTF-8 first")
    at = 0
    with open(path, "rb") as f:
        for n, line in enumerate(whole_lines(f, path), start=1):
            rest = line.removeprefix(BOM).lstrip()
            if rest:
                where = f"{path}, line {n}"
                yield where, row_of(rest.rstrip(), where, at + len(line) - len(rest), strict)
            at += len(line)


def text_of(line: bytes, text_key: str, where: str, at: int = 0) -> str:
    "Take the text out of one line; null is an empty text. ValueError, one line."
    row = row_of(line, where, at)
    if isinstance(row, dict) and row.get(text_key, "") is None:
        return ""
    if not isinstance(row, dict) or not isinstance(row.get(text_key), str):
        keys = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise ValueError(
            f"{where}: no text under {text_key!r}, got {keys}; name it with --text_key"
        )
    text = row[text_key]
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise ValueError(
            f"{where}: half a character, the lone surrogate {text[e.start]!r}, "
            f"at character {e.start} of the text; remove it"
        ) from None
    return text


def long_text_of(line: bytes, text_key: str, where: str, at: int = 0) -> memoryview:
    "Take the text out of a very long line; null is an empty text. ValueError, one line."
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
        there = pa.json.read_json(pa.BufferReader(line), size).column_names
    if texts.null_count and text_key not in there:
        raise ValueError(f"{where}: no text under {text_key!r}; name it with --text_key")
    return next(column_texts(texts.chunk(0)), memoryview(b""))


def read_jsonl(
    path: Path,
    text_key: str,
    note: Callable = unheard,  # called with how many rows were left out
) -> Iterator[str | memoryview]:
    "Give the texts of a .jsonl file, a very long one in UTF-8. ValueError with the line's number."
    if encoding_of(path) == "utf-16":
        raise ValueError(f"{path}: is UTF-16; convert it to UTF-8 first")
    n = at = without = 0
    with open(path, "rb") as f:
        for line in whole_lines(f, path):
            n += 1
            start, at = at, at + len(line)
            if n == 1 and line.startswith(BOM):
                line = line[len(BOM) :]
                start = len(BOM)
            if not line.strip():
                continue
            take = text_of if len(line) < LARGE else long_text_of
            text = take(line, text_key, f"{path}, line {n}", start)
            del line  # before the next stage needs memory
            if text:
                yield text
            else:
                without += 1
            del text
    left_out(path, without, text_key, note)

# %% ../../nbs/easy/ch03c_files.ipynb #3504c84c
BUFFER = 8 << 20  # bytes that are asked for at a time, at most
# how far text may be packed, beyond 128 MiB: a page, and a group whose texts repeat each other
PACKED_PAGE, PACKED_GROUP = 200, 1000


class Table(NamedTuple):
    "The table of contents of a parquet file."

    open_file: Callable  # opens the file
    where: str  # names it in messages
    text_key: str  # the column of texts
    meta: Any  # pyarrow's FileMetaData
    texts: list  # of each row group, what `meta` says of this column
    own: tuple[type, ...]  # errors of `open_file` that say themselves what is wrong

    def size(self, group: int) -> int:
        "Bytes of text in a row group, at least one; a text of its dictionary counts once."
        return max(1, self.texts[group].total_uncompressed_size)

    def delta(self, group: int) -> bool:
        "Whether a text may be stored as its difference from the one before."
        return any("DELTA" in e for e in self.texts[group].encodings)

    def options(self, group: int) -> dict:
        "Say how pyarrow opens the file: a text that many rows repeat is held once, if it can."
        options = {"metadata": self.meta, "buffer_size": BUFFER, "pre_buffer": False}
        return options if self.delta(group) else options | {"read_dictionary": [self.text_key]}

    def rows_at_once(self, group: int) -> int:
        "Say how many rows are read at a time: two megabytes, and never far more than 128."
        info, size = self.meta.row_group(group), self.size(group)
        rows = min(info.num_rows * (BUFFER // 4) // size, 1 << 20)
        if size > 2 * LARGE or self.delta(group):
            rows = min(rows, 2 * LARGE // size, 32)  # each may begin with the longest before it
        return max(1, rows)

    def most(self, group: int, n_bytes: int) -> int:
        "Say how many bytes of text a group of a file of n_bytes may hold. ValueError, one line."
        stored = min(n_bytes, self.texts[group].total_compressed_size)
        if self.size(group) > max(2 * LARGE, PACKED_PAGE * stored):
            raise self.bomb(group, stored)
        return max(2 * LARGE, PACKED_GROUP * stored)

    def bomb(self, group: int, stored: int) -> ValueError:
        "One line for a group that holds far more than it should."
        return ValueError(
            f"{self.where}: row group {group} unfolds from {max(0, stored):,} bytes to more than "
            f"{2 * LARGE >> 20} MiB, far more than text does; it is not read, leave the file out"
        )


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
    if (n := schema.names.count(text_key)) > 1:
        raise ValueError(f"{where}: {n} columns are called {text_key!r}; rename all but one")
    kind = schema.field(text_key).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
        raise ValueError(
            f"{where}: column {text_key!r} holds {kind}, expected text; name it with --text_key"
        )
    return next(i for i in range(meta.num_columns) if meta.schema.column(i).path == text_key)


class Sealed(io.RawIOBase):
    "A file that raises EOFError as soon as a byte of it is asked for."

    at = 0

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        "Move to a byte; the end is farther away than any."
        self.at = offset if whence == io.SEEK_SET else 1 << 60
        return self.at

    def tell(self) -> int:
        return self.at

    def read(self, n: int = -1) -> bytes:
        raise EOFError


def check_contents(meta, text_key: str):
    "Raise pyarrow's complaint about what a table of contents says of a column, if there is one."
    file = arrow().parquet.ParquetFile(Sealed(), metadata=meta)
    for group in range(meta.num_row_groups):
        with suppress(EOFError):  # asks for a page: the rest is in order
            next(file.iter_batches(1, [group], [text_key], use_threads=False), None)


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
        column = text_column(meta, text_key, where)
        check_contents(meta, text_key)
    except own:
        raise
    except (pa.ArrowException, OSError) as e:
        raise broken(where, e) from None
    texts = [meta.row_group(g).column(column) for g in range(meta.num_row_groups)]
    return Table(open_file, where, text_key, meta, texts, own)

# %% ../../nbs/easy/ch03c_files.ipynb #a12fdc6f
def check_column(
    texts,  # a part of an Arrow column
    where: str,
    row: int,  # of its first text, in the file
):
    "Refuse bytes that are not UTF-8. ValueError, one line, with the row."
    pa = arrow()
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        words = texts.dictionary if isinstance(texts, pa.DictionaryArray) else texts
        for n, text in enumerate(words.cast(pa.large_binary()).to_pylist()):
            try:
                (text or b"").decode()
            except UnicodeDecodeError as e:
                n = texts.indices.index(n).as_py() if words is not texts else n
                if n >= 0:  # a later part of the column may be the one that uses it
                    raise not_utf8(f"{where}, row {row + n}", e) from None
        if words is texts:
            raise

# %% ../../nbs/easy/ch03c_files.ipynb #01438aea
def read_group(
    table: Table,
    group: int,
    skip: int = 0,  # documents to pass over
) -> Iterator[memoryview]:  # in UTF-8
    "Give the documents of one row group. ValueError, one line."
    pa = arrow()
    info = table.meta.row_group(group)
    earlier = sum(table.meta.row_group(g).num_rows for g in range(group))
    rows = table.rows_at_once(group)
    wanted = {"row_groups": [group], "columns": [table.text_key], "use_threads": False}
    again = True
    while again:
        again = False
        try:
            opened = table.open_file()
            most = table.most(group, opened.seek(0, os.SEEK_END))
            file = pa.parquet.ParquetFile(opened, **table.options(group))
            seen = rows_seen = 0
            for batch in file.iter_batches(min(rows, info.num_rows or 1), **wanted):
                check_column(batch.column(0), table.where, earlier + rows_seen)
                rows_seen += batch.num_rows
                for text in column_texts(batch.column(0)):
                    seen += 1
                    most -= len(text)
                    if most < 0:
                        raise table.bomb(group, table.texts[group].total_compressed_size)
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


def read_rows(
    table: Table,
    group: int,
    lost: Counter,  # rows of each file without text, so far
    note: Callable,
    skip: int = 0,  # documents to pass over
) -> Iterator[memoryview]:
    "Give the documents of a row group; after the last one say how many rows had no text."
    given = skip
    for text in read_group(table, group, skip):
        given += 1
        yield text
        del text
    lost[table.where] += table.meta.row_group(group).num_rows - given
    if group == table.meta.num_row_groups - 1:
        left_out(table.where, lost[table.where], table.text_key, note)


def read_parquet(path: Path, text_key: str, note: Callable = unheard) -> Iterator[memoryview]:
    "Give the texts of a .parquet file in UTF-8. ValueError, one line."
    table, lost = open_table(lambda: open(path, "rb"), str(path), text_key), Counter()
    for group in range(table.meta.num_row_groups):
        yield from read_rows(table, group, lost, note)

# %% ../../nbs/easy/ch03c_files.ipynb #1a20e77f
def read_file(
    path: Path,
    text_key: str,
    separator: str = EOT,  # a line that ends a document of a .txt file; "": there is none
    note: Callable = unheard,  # called with what is left out, and where documents end
) -> Iterator[str | memoryview]:
    "Give the documents of a file, as strings or in UTF-8. ValueError, OSError: one line."
    suffix = path.suffix.lower()
    if suffix == ".txt":
        yield from read_txt(path, separator, note)
    else:
        read = read_jsonl if suffix == ".jsonl" else read_parquet
        yield from read(path, text_key, note)


def read_strings(
    path: Path,
    text_key: str,
    separator: str = EOT,
    note: Callable = unheard,
) -> Iterator[str]:
    "Give the documents of a file as strings. ValueError, OSError: one line."
    for n, text in enumerate(read_file(path, text_key, separator, note)):
        try:
            yield text if isinstance(text, str) else str(text, "utf-8")
        except UnicodeDecodeError as e:
            raise not_utf8(f"{path}, document {n}", e) from None
