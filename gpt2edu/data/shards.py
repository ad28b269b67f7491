"""Documents become files of uint16 ids with a manifest, and no half-written file is ever read."""

# Made by tools/book.py from ../../book/easy/ch05_shards.md: edit that, then `make book`.

# %% auto #0
__all__ = ['MAGIC', 'VERSION', 'HEADER_BYTES', 'MAX_VOCAB', 'NOT_NPY', 'MANIFEST', 'UNFINISHED',
           'SHARD_NAME', 'OURS', 'SCANNED', 'FRESH', 'check_ids', 'encode_documents', 'write_shard',
           'read_shard', 'describe', 'to_json', 'MadeBy', 'Shard', 'Total', 'Made', 'Arguments',
           'Manifest', 'check_shard', 'check_sums', 'parse_manifest', 'refuse_strangers',
           'claim_folder', 'check_train', 'finish_folder', 'leave_some', 'write_shards', 'ShardSet',
           'scan', 'read_manifest', 'Scanned', 'scan_all', 'open_shards']

# %% ../../nbs/easy/ch05_shards.ipynb #291c2ad7
import glob
import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from tokenize import TokenError
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import numpy as np

from gpt2edu.machine.atomic import write_atomically
from gpt2edu.machine.state import Count, Hash, check, loads, read_json

# %% ../../nbs/easy/ch05_shards.ipynb #655817c1
MAGIC, VERSION = 20240520, 1  # the first two numbers of a shard of llm.c and modded-nanogpt
HEADER_BYTES = 256 * 4  # 256 int32: magic, version, token count, then zeros
MAX_VOCAB = 2**16  # a uint16 holds the ids 0 … 65,535

# %% ../../nbs/easy/ch05_shards.ipynb #fea60ca1
def check_ids(
    ids,  # (N,) integers of any width
    n_vocab: int = MAX_VOCAB,  # ids at or above it are refused
    where: str = "tokens",  # what to name in the error
) -> np.ndarray:  # (N,) uint16, little-endian
    "Turn ids into uint16, or say which one does not fit. Raises ValueError."
    ids = np.asarray(ids)
    if ids.ndim != 1 or ids.size == 0 or ids.dtype.kind not in "iu":
        raise ValueError(
            f"{where}: got shape {ids.shape} of {ids.dtype}, "
            "expected a list of token ids, at least one"
        )
    top = min(n_vocab, MAX_VOCAB) - 1
    if ids.min() < 0 or ids.max() > top:
        i = np.flatnonzero((ids < 0) | (ids > top))[0]
        raise ValueError(
            f"{where}: got id {ids[i]} at token {i}, expected 0 to {top}; use the right tokenizer"
        )
    return ids.astype("<u2", copy=False)

# %% ../../nbs/easy/ch05_shards.ipynb #fdb34bbf
def encode_documents(
    documents: Iterable[str],
    tokenizer,  # has encode_batch, eot and n_vocab
    batch_size: int = 512,  # documents in memory at once
) -> Iterator[tuple[np.ndarray, int]]:  # (N,) uint16, <|endoftext|> first, and the text's bytes
    "Encode documents, a batch at a time to keep the tokenizer's threads busy. Raises ValueError."
    documents = iter(documents)
    n = 0  # documents encoded
    while batch := list(islice(documents, batch_size)):
        for i, ids in enumerate(tokenizer.encode_batch(batch)):
            ids = check_ids([tokenizer.eot, *ids], tokenizer.n_vocab, where=f"document {n + i}")
            yield ids, len(batch[i].encode("utf-8", errors="replace"))
        n += len(batch)

# %% ../../nbs/easy/ch05_shards.ipynb #f9e2b729
def write_shard(
    path: Path,  # ends with .bin
    tokens,  # (N,) ids below 65,536
) -> str:  # SHA-256 of the file, hex
    """Write one shard: header, then uint16 tokens. Raises ValueError, OSError.

    Format: llm.c, dev/data/data_common.py.
    """
    tokens = np.ascontiguousarray(check_ids(tokens, where=str(path)))
    header = np.array([MAGIC, VERSION, len(tokens)] + [0] * 253, dtype="<i4")
    return write_atomically(path, header, tokens)

# %% ../../nbs/easy/ch05_shards.ipynb #09253cae
_FIX = "delete its folder, then download or prepare it again"  # what to do with a broken shard
# what NumPy says of a header that was altered, such as a shape that overflows
NOT_NPY = (ValueError, EOFError, OverflowError, TypeError, SyntaxError, RecursionError, TokenError)


def _read_npy(path: Path) -> np.memmap:  # (N,) uint16
    "Map a shard of build-nanogpt into memory. Raises ValueError."
    try:
        with open(path, "rb") as f:
            if not f.read(6) == b"\x93NUMPY":  # np.load would open a zip or a pickle too
                raise ValueError("no magic word")
        with np.errstate(over="ignore"):
            tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except NOT_NPY as e:
        raise ValueError(f"{path}: not a whole .npy file ({str(e).splitlines()[0]}); {_FIX}") from e
    if tokens.dtype != np.uint16 or tokens.ndim != 1 or tokens.size == 0:
        raise ValueError(
            f"{path}: got shape {tokens.shape} of {tokens.dtype}, expected (N,) of uint16; {_FIX}"
        )
    return tokens


def read_shard(
    path: Path,  # .bin of llm.c or .npy of build-nanogpt
) -> np.memmap:  # (N,) uint16; pages are read when they are used
    "Map a shard into memory; its header and length are checked. Raises OSError, ValueError."
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such shard; "
            "check the path, or delete the folder and prepare the data again"
        )
    if path.suffix == ".npy":
        return _read_npy(path)
    size = path.stat().st_size
    if size < HEADER_BYTES:
        raise ValueError(
            f"{path}: cut short, got {size:,} bytes, expected a header of {HEADER_BYTES:,}; {_FIX}"
        )
    magic, version, n = (int(v) for v in np.fromfile(path, dtype="<i4", count=3))
    if magic != MAGIC:
        raise ValueError(
            f"{path}: wrong magic number, got {magic}, expected {MAGIC}; "
            "is it a GPT-2 shard of llm.c?"
        )
    if version != VERSION:
        raise ValueError(f"{path}: got shard version {version}, expected {VERSION}; {_FIX}")
    want = HEADER_BYTES + 2 * n
    if n < 1 or size != want:
        what = "cut short" if size < want else "too long"
        raise ValueError(
            f"{path}: {what}, got {size:,} bytes, expected {want:,} for {n:,} tokens; {_FIX}"
        )
    return np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES, shape=(n,))

# %% ../../nbs/easy/ch05_shards.ipynb #38cd7e44
MANIFEST = "manifest.json"
UNFINISHED = "manifest.unfinished"  # in the folder while shards are being written
SHARD_NAME = re.compile(r".+_(train|val)_\d+\.(bin|npy)$")


def describe(tokenizer) -> dict:
    "Say for a manifest which tokenizer made the ids."
    return {k: getattr(tokenizer, k) for k in ("name", "hash", "n_vocab", "eot")}


def to_json(manifest: dict) -> bytes:
    "Lay out a manifest: one shard in one line."
    lines = ",\n".join(f"  {json.dumps(entry)}" for entry in manifest["shards"])
    text = json.dumps(manifest | {"shards": []}, indent=1)
    return (text.removesuffix("[]\n}") + f"[\n{lines}\n ]\n}}\n").encode()

# %% ../../nbs/easy/ch05_shards.ipynb #a49cd321
class MadeBy(TypedDict):
    "The tokenizer, as `describe` has it."

    name: str
    hash: Hash
    n_vocab: Annotated[int, 1, MAX_VOCAB]
    eot: Annotated[int, 0, MAX_VOCAB - 1]


class Shard(TypedDict):
    "One shard; what is not required is noted by the writer of appendix 20d."

    file: str  # in this folder
    split: Literal["train", "val", "part"]
    tokens: Annotated[int, 1, 2**31 - 1]
    sha256: Hash
    documents: NotRequired[Count]
    bytes: NotRequired[Count]  # of text
    units: NotRequired[list[tuple[Count, Count, Count]]]  # file, group, tokens
    end: NotRequired[tuple[Count, Count, Count, Count]]  # unit, documents passed, tokens since


class Total(TypedDict):
    "What a split holds."

    documents: Count
    tokens: Count
    bytes: Count  # of text


class Made(TypedDict, total=False):
    "Where the text came from; a caller may note more."

    dataset: str | list[str]
    sha256: Hash
    revision: str  # a commit of the hub
    config: str
    split: str
    text_key: str
    separator: str


class Arguments(TypedDict, total=False):
    "How the text was cut."

    name: str
    shard_size: Annotated[int, 1]  # tokens
    val_tokens: Count
    max_tokens: Annotated[int, 1] | None
    part: list[Count]  # i, n


class Manifest(TypedDict):
    "What manifest.json holds, and manifest.unfinished as far as it has come."

    tokenizer: MadeBy
    shards: list[Shard]
    source: NotRequired[dict[str, Any]]
    arguments: NotRequired[Arguments]
    totals: NotRequired[dict[str, Total]]  # by split
    complete: NotRequired[bool]  # whether the end of the source was reached


def check_shard(entry: dict, key: str):
    "Refuse an entry that contradicts itself. ValueError: key, got, expected."
    name = entry["file"]
    wrong = re.search(r"[/\\:\0-\x1f]", name) or len(name.encode()) > 255
    if wrong or name in ("", ".", ".."):
        raise ValueError(f"{key}.file: {name[:60]!r} is not the name of a file in this folder")
    units = entry.get("units", [])
    if units and (n := sum(u[2] for u in units)) != entry["tokens"]:
        raise ValueError(f"{key}.units hold {n} tokens, expected {entry['tokens']}")
    if units and "end" in entry and entry["end"][:2] != units[-1][:2]:
        raise ValueError(f"{key}.end is in unit {entry['end'][:2]}, expected {units[-1][:2]}")


def check_sums(manifest: dict):
    "Refuse totals that are not those of the shards. ValueError: key, got, expected."
    shards = manifest["shards"]
    names = [entry["file"] for entry in shards]
    for i, entry in enumerate(shards):
        check_shard(entry, f"shards[{i}]")
        if entry["file"] in names[:i]:
            raise ValueError(f"shards[{i}].file is {names[i]!r}, expected each file once")
    for split, total in manifest.get("totals", {}).items():
        mine = [entry for entry in shards if entry["split"] == split]
        for key, got in total.items():
            if all(key in entry for entry in mine):
                want = sum(entry[key] for entry in mine)
                if got != want:
                    what = f"totals.{split[:20]}.{key} is {got}, expected {want}"
                    raise ValueError(f"{what}, the sum of the shards")


def parse_manifest(raw: bytes, path: Path, fix: str) -> dict:
    "Read a manifest, finished or not. ValueError, one line: file, key, got, expected, fix."
    try:
        manifest = check(loads(raw), Manifest)
        check(manifest.get("source", {}), Made, "source", others=True)
        check_sums(manifest)
    except ValueError as e:
        raise ValueError(f"{path}: not a manifest of shards ({e}); {fix}") from None
    return manifest

# %% ../../nbs/easy/ch05_shards.ipynb #686b14d8
# what a start leaves that was killed before the first shard; hidden files are nobody's data
OURS = re.compile(r"tokenizer\.json(\..*\.tmp)?$|\..*$")


def refuse_strangers(folder: Path, how: str = ""):  # with which flag to choose another folder
    "Refuse a folder that holds what no preparation has written. ValueError, one line."
    if not folder.is_dir() or (folder / UNFINISHED).exists():
        return
    names = sorted(p.name for p in folder.iterdir())
    if shards := [name for name in names if SHARD_NAME.match(name)]:
        raise ValueError(
            f"{folder}: holds shards of unknown origin ({shards[0]}); choose another folder{how}"
        )
    if others := [name for name in names if not OURS.match(name)]:
        raise ValueError(
            f"{folder}: holds other things ({others[0]}); choose a folder of its own{how}"
        )


def claim_folder(
    folder: Path,
    name: str,  # shards of this name that a stopped writer left are removed
):
    "Make a folder ready for a writer; refuse one that holds other shards. Raises ValueError."
    if (folder / MANIFEST).exists():
        raise ValueError(
            f"{folder}: {MANIFEST} is there already; open these shards, or choose another folder"
        )
    refuse_strangers(folder)
    begin = glob.escape(name)
    old = sorted(p for split in ("train", "val") for p in folder.glob(f"{begin}_{split}_*.bin"))
    write_atomically(folder / UNFINISHED)
    for leftover in [*old, *folder.glob(".*.tmp")]:
        leftover.unlink()

# %% ../../nbs/easy/ch05_shards.ipynb #8281a609
def check_train(
    folder: Path,
    totals: dict,  # split → documents, tokens, bytes
    val_tokens: int,
    flag: str = "val_tokens",  # how the caller names it
):
    "Refuse to finish when validation has taken all documents. Raises ValueError."
    if not totals["train"]["tokens"]:
        tokens, documents = (totals["val"][key] for key in ("tokens", "documents"))
        got = f"got {tokens:,} tokens in all"
        if tokens > val_tokens:
            raise ValueError(
                f"{folder}: no document is left for training, {got} in {documents:,} documents, "
                f"and validation takes whole ones until {flag}={val_tokens:,}; give more documents"
            )
        raise ValueError(
            f"{folder}: no document is left for training, {got}, "
            f"expected more than val_tokens={val_tokens:,}; give more text or lower {flag}"
        )


def finish_folder(
    folder: Path,
    header: dict,  # tokenizer, source, arguments
    totals: dict,  # split → documents, tokens, bytes
    shards: list[dict],  # file, split, tokens and SHA-256 of each
    **more,  # what else the manifest says
) -> dict:  # the manifest
    "Write the manifest, which makes the folder a finished one. Raises OSError."
    manifest = header | {"totals": totals} | more | {"shards": shards}
    write_atomically(folder / MANIFEST, to_json(manifest))
    (folder / UNFINISHED).unlink(missing_ok=True)
    return manifest

# %% ../../nbs/easy/ch05_shards.ipynb #bd06cd94
def leave_some(
    encoded: Iterable[tuple[np.ndarray, int]],  # what `encode_documents` gives
    val_tokens: int,
    tokenizer,  # has decode_bytes
) -> Iterator[tuple[np.ndarray, int]]:
    "Cut the last document in two where validation would leave nothing for training."
    before, held = 0, None  # tokens before the document that is held back
    for item in encoded:
        if held:
            yield held
            before += len(held[0])
        held = item
    cut = val_tokens - before
    if held and 0 < cut < len(held[0]):
        ids, n_bytes = held
        first = len(tokenizer.decode_bytes(ids[1:cut]))
        yield ids[:cut], first
        held = np.concatenate([ids[:1], ids[cut:]]), n_bytes - first
    if held:
        yield held

# %% ../../nbs/easy/ch05_shards.ipynb #6bd8de5c
def write_shards(
    documents: Iterable[str],
    tokenizer,  # a Tokenizer of chapter 4
    folder: Path,  # made if it is not there
    name: str,  # files are <name>_val_000000.bin, <name>_train_000001.bin, …
    shard_size: int = 100_000_000,  # tokens; the last shard of a split is shorter
    val_tokens: int = 1_000_000,  # the first documents, until this many tokens, are for validation
    source: dict | None = None,  # where the text came from; goes into the manifest
) -> dict:  # the manifest
    "Stream documents into shards; the manifest comes last. Raises ValueError, OSError."
    if tokenizer.n_vocab > MAX_VOCAB:
        raise ValueError(
            f"n_vocab={tokenizer.n_vocab} does not fit in uint16, expected {MAX_VOCAB} at most"
        )
    if not 0 < shard_size < 2**31 or val_tokens < 0:
        raise ValueError(
            f"got {shard_size=}, {val_tokens=}; expected 1 to 2^31 - 1 tokens, and 0 or more"
        )
    folder = Path(folder)
    claim_folder(folder, name)
    buffer = np.empty(shard_size, dtype="<u2")
    used = 0  # tokens in the buffer
    shards = []
    split = "val"
    totals = {split: {"documents": 0, "tokens": 0, "bytes": 0} for split in ("val", "train")}

    def flush(split):
        nonlocal used
        if used:
            file = f"{name}_{split}_{len(shards):06d}.bin"
            sha = write_shard(folder / file, buffer[:used])
            shards.append({"file": file, "split": split, "tokens": used, "sha256": sha})
            used = 0

    encoded = encode_documents(documents, tokenizer)
    for ids, n_bytes in leave_some(encoded, val_tokens, tokenizer):
        if split == "val" and totals["val"]["tokens"] >= val_tokens:
            flush("val")
            split = "train"
        for key, amount in (("documents", 1), ("tokens", len(ids)), ("bytes", n_bytes)):
            totals[split][key] += amount
        while len(ids):  # a document may end in the next shard of its own split
            part, ids = ids[: shard_size - used], ids[shard_size - used :]
            buffer[used : used + len(part)] = part
            used += len(part)
            if used == shard_size:
                flush(split)
    flush(split)
    check_train(folder, totals, val_tokens)
    arguments = {"name": name, "shard_size": shard_size, "val_tokens": val_tokens}
    header = {"tokenizer": describe(tokenizer), "source": source or {}, "arguments": arguments}
    return finish_folder(folder, header, totals, shards)

# %% ../../nbs/easy/ch05_shards.ipynb #558f7df0
class ShardSet:
    "Shards read as one long array of tokens."

    def __init__(
        self,
        paths: Iterable[Path],  # in order
        manifest: dict | None = None,  # of the folder they are from
    ):
        self.paths = [Path(p) for p in paths]
        self.manifest = manifest
        if not self.paths:
            raise ValueError("got no shards, expected at least one path; prepare the data first")
        self.shards = [read_shard(p) for p in self.paths]
        self.sha256 = [None] * len(self.paths)  # of each file, where `open_shards` knows it
        # of each shard, and the end; tokens
        self.starts = np.cumsum([0] + [len(s) for s in self.shards])

    def __len__(self) -> int:  # tokens
        return int(self.starts[-1])

    def __getitem__(
        self,
        span: slice,  # a:b, without a step
    ) -> np.ndarray:  # (b - a,) uint16, a copy
        "Read tokens, across the border of two shards if need be."
        a, b, step = span.indices(len(self))
        assert step == 1, "a span has no step"
        parts = []
        while a < b:
            # the shard that holds token a
            k = int(np.searchsorted(self.starts, a, side="right")) - 1
            parts.append(self.shards[k][a - self.starts[k] : b - self.starts[k]])
            a += len(parts[-1])
        return np.concatenate([np.empty(0, dtype="<u2"), *parts])

# %% ../../nbs/easy/ch05_shards.ipynb #f65e5b74
def scan(
    path: Path,
    offset: int,  # bytes before the first token
) -> tuple[str, int]:  # SHA-256 of the file, hex; the largest id
    "Read a shard once, a few megabytes at a time."
    sha = hashlib.sha256()
    largest = 0
    with open(path, "rb") as f:
        sha.update(f.read(offset))
        while chunk := f.read(1 << 22):
            sha.update(chunk)
            largest = max(largest, int(np.frombuffer(chunk, dtype="<u2").max()))
    return sha.hexdigest(), largest

# %% ../../nbs/easy/ch05_shards.ipynb #4bffef58
_AGAIN = "delete the folder and prepare the data again"


def read_manifest(
    folder: Path,
) -> dict | None:  # None if the shards came without one
    "Read what is known of the shards in a folder. Raises FileNotFoundError, ValueError."
    folder = Path(folder)
    path = folder / MANIFEST
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; check the path, or prepare the data first"
        )
    if not path.exists():
        if (folder / UNFINISHED).exists():
            raise ValueError(
                f"{folder}: the writer was stopped before {MANIFEST} was written; "
                "prepare the data again"
            )
        return None
    return parse_manifest(path.read_bytes(), path, _AGAIN)

# %% ../../nbs/easy/ch05_shards.ipynb #68c1af04
def _listed(
    folder: Path,
    split: str,
    manifest: dict | None,
) -> list[tuple[Path, int | None, str | None]]:  # file, its tokens and SHA-256; None: not known
    "List the shards of a split: what the manifest names, or else what has a shard's name."
    if manifest:
        shards = [s for s in manifest["shards"] if s["split"] == split]
        return [(folder / s["file"], s["tokens"], s["sha256"]) for s in shards]
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))  # no hidden one
    found = [n for n in names if (m := SHARD_NAME.match(n)) and m[1] == split]
    return [(folder / n, None, None) for n in found]


def _check_bytes(
    path: Path,
    found: tuple[str, int],  # SHA-256 of the file, hex; its largest id
    want: str | None,  # the manifest's SHA-256; None: not known
    n_vocab: int | None,  # ids at or above it are refused; None: any
) -> str:  # SHA-256 of the file, hex
    "Compare what a shard holds with what it should. Raises ValueError."
    sha, largest = found
    if want and sha != want:
        what = f"got SHA-256 {sha[:12]}, expected {want[:12]}"
        raise ValueError(f"{path}: altered since it was written, {what}; {_AGAIN}")
    if n_vocab and largest >= n_vocab:
        raise ValueError(
            f"{path}: got id {largest}, expected 0 to {n_vocab - 1}; use the right tokenizer"
        )
    return sha

# %% ../../nbs/easy/ch05_shards.ipynb #e08392e5
SCANNED = ".scanned.json"  # hidden, beside the shards
FRESH = 2 * 10**9  # nanoseconds


class Scanned(TypedDict):
    "What a scan found in a shard, and the file's state at that time."

    state: list[int]  # size in bytes, time of the last change in nanoseconds
    sha256: Hash
    largest: Count


def _state(path: Path) -> list[int]:
    "Size, and the time of the last change."
    at = path.stat()
    return [at.st_size, at.st_mtime_ns]


def scan_all(
    folder: Path,
    files: dict[Path, int],  # shard: bytes before its first token
) -> list[tuple[str, int]]:  # SHA-256 and largest id of each
    "Scan those shards that have changed since their last scan, several side by side."
    try:
        known = read_json(folder / SCANNED, dict[str, Scanned], "")
    except (OSError, ValueError):
        known = {}
    before = {path: _state(path) for path in files}
    new = [p for p in files if known.get(p.name, {}).get("state") != before[p]]
    with ThreadPoolExecutor(8) as pool:  # neither hashlib nor the disk waits for Python's lock
        found = dict(zip(new, pool.map(scan, new, [files[p] for p in new]), strict=True))
    seen = {p: (known[p.name]["sha256"], known[p.name]["largest"]) for p in files if p not in found}
    old = time.time_ns() - FRESH
    sure = [p for p in new if before[p] == _state(p) and before[p][1] < old]
    for p in sure:
        known[p.name] = {"state": before[p], "sha256": found[p][0], "largest": found[p][1]}
    if sure:
        with suppress(OSError):  # shards that one may only read
            write_atomically(folder / SCANNED, json.dumps(known, indent=0).encode())
    return [(found | seen)[p] for p in files]

# %% ../../nbs/easy/ch05_shards.ipynb #7cdbe8ec
def open_shards(
    folder: Path,
    split: str,  # "train" or "val"
    tokenizer_hash: str | None = None,  # refuse shards of another tokenizer
    verify: bool = True,  # read every byte once: SHA-256 and the largest id
    n_vocab: int | None = None,  # ids at or above it are refused; None takes the manifest's
) -> ShardSet:
    "Open one split of a folder of shards. Raises FileNotFoundError, ValueError."
    folder = Path(folder).expanduser()
    manifest = read_manifest(folder)
    if manifest:
        made_by = manifest["tokenizer"]
        if tokenizer_hash and made_by["hash"] != tokenizer_hash:
            got = f"got {made_by['name']} ({made_by['hash'][:12]})"
            raise ValueError(
                f"{folder}: shards of another tokenizer, {got}, expected {tokenizer_hash[:12]}; "
                "prepare the data again, or load that one"
            )
        n_vocab = n_vocab or made_by["n_vocab"]
    entries = _listed(folder, split, manifest)
    if not entries:
        raise FileNotFoundError(
            f"{folder}: no {split} shards, expected *_{split}_*.bin or .npy; prepare the data"
        )
    shards = ShardSet([path for path, _, _ in entries], manifest)
    shards.sha256 = [want for _, _, want in entries]
    for (path, n, _), tokens in zip(entries, shards.shards, strict=True):
        if n is not None and n != len(tokens):
            raise ValueError(
                f"{path}: got {len(tokens):,} tokens, {MANIFEST} expected {n:,}; {_AGAIN}"
            )
    if verify:
        offsets = (tokens.offset for tokens in shards.shards)
        found = scan_all(folder, dict(zip(shards.paths, offsets, strict=True)))
        rows = zip(entries, found, strict=True)
        shards.sha256 = [_check_bytes(path, seen, want, n_vocab) for (path, _, want), seen in rows]
    return shards
