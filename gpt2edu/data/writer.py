"""Cut one stream of tokens into shards, and record after each the place from which to resume."""

# Made by tools/book.py from ../../book/tough/ch20d_writer.md: edit that, then `make book`.

# %% auto #0
__all__ = ['NOTED', 'totals_of', 'token_lengths', 'ShardWriter', 'read_state', 'check_same',
           'in_words', 'may_grow', 'is_whole', 'whole_shards', 'part_units', 'parts_stream',
           'after']

# %% ../../nbs/tough/ch20d_writer.ipynb #b76966b8
import glob
import heapq
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import numpy as np

from gpt2edu.machine.atomic import write_atomically
from gpt2edu.data.shards import (
    HEADER_BYTES,
    MANIFEST,
    UNFINISHED,
    check_train,
    finish_folder,
    parse_manifest,
    read_shard,
    refuse_strangers,
    scan,
    to_json,
    write_shard,
)
from gpt2edu.text.tokenizer import Tokenizer

# %% ../../nbs/tough/ch20d_writer.ipynb #3c6ebe91
def totals_of(shards: list[dict]) -> dict[str, dict[str, int]]:
    "Add up documents, tokens and bytes of text of each split."
    nothing = {"documents": 0, "tokens": 0, "bytes": 0}
    totals = {"val": dict(nothing), "train": dict(nothing)}
    for entry in shards:
        split = totals.setdefault(entry["split"], dict(nothing))
        for what in nothing:
            split[what] += entry[what]
    return totals

# %% ../../nbs/tough/ch20d_writer.ipynb #d47008de
def token_lengths(tokenizer: Tokenizer) -> np.ndarray:  # (V,) bytes of text
    "Count the bytes of each token; the last one, `<|endoftext|>`, has none."
    lengths = [len(tokenizer.decode_bytes([i])) for i in range(tokenizer.eot)]
    return np.array([*lengths, 0], dtype=np.int32)


class ShardWriter:
    "Cuts a stream of tokens into shards; records after each where in the source it ended."

    def __init__(
        self,
        folder: Path,
        header: dict,  # of the manifest: tokenizer, source, arguments
        tokenizer: Tokenizer,
        shards: list[dict],  # entries of whole shards that are there from an earlier start
    ):
        a = header["arguments"]
        self.folder = Path(folder)
        self.header = header
        self.name = a["name"]
        self.shard_size = a["shard_size"]
        self.val_tokens = a["val_tokens"]
        self.limit = a["max_tokens"] if a["max_tokens"] and "part" not in a else 2**62
        self.eot = tokenizer.eot
        self.lengths = token_lengths(tokenizer)
        # the shards already written
        self.shards = list(shards)
        self.total = sum(s["tokens"] for s in shards)  # tokens in whole shards
        self.split = "part" if "part" in a else shards[-1]["split"] if shards else "val"
        # the shard being filled
        self.buffer = np.empty(self.shard_size, dtype="<u2")
        self.clear()
        # the place in the source
        *key, passed, since = shards[-1]["end"] if shards else (0, 0, 0, 0)
        self.key = tuple(key)
        self.begun = passed + 1 if since else 0  # documents of the unit that have begun
        self.since = since  # tokens since the last of them began

    def clear(self):
        "Begin an empty shard."
        self.used = 0  # tokens
        self.units = []  # [file, group, tokens] of each
        self.documents = 0
        self.bytes = 0  # of text

    @property
    def position(self) -> tuple[tuple[int, int], int, int]:
        "Where the next token comes from: unit, documents of it to skip, tokens then to drop."
        return self.key, max(0, self.begun - 1), self.since

    def add(
        self,
        key: tuple[int, int],  # the unit that the tokens are from
        ids: np.ndarray,  # (N,) uint16, the next tokens of the stream
    ) -> bool:  # whether more are wanted
        "Take tokens; write a shard whenever one is full. Raises OSError."
        while len(ids) and self.total + self.used < self.limit:
            stop = min(len(ids), self.shard_size - self.used, self.limit - self.total - self.used)
            if self.split == "val":  # training begins with the first document after val_tokens
                starts = np.flatnonzero(ids[:stop] == self.eot)
                late = starts[self.total + self.used + starts >= self.val_tokens]
                stop = int(late[0]) if len(late) else stop
                if stop == 0:
                    self.flush()
                    self.split = "train"
                    continue
            self.take(key, ids[:stop])
            ids = ids[stop:]
            if self.used == self.shard_size:
                self.flush()
        return self.total + self.used < self.limit

    def take(self, key: tuple[int, int], ids: np.ndarray):
        "Put tokens into the shard being filled; count them, and advance the place in the source."
        self.buffer[self.used : self.used + len(ids)] = ids
        self.used += len(ids)
        if key != self.key:
            self.key = key
            self.begun = 0
            self.since = 0
        if not self.units or self.units[-1][:2] != [*key]:
            self.units.append([*key, 0])
        self.units[-1][2] += len(ids)
        starts = np.flatnonzero(ids == self.eot)
        self.documents += len(starts)
        self.bytes += int(self.lengths[ids].sum())
        self.begun += len(starts)
        self.since = len(ids) - int(starts[-1]) if len(starts) else self.since + len(ids)

    def flush(self):
        "Write the shard being filled, then the manifest so far. Raises OSError."
        if not self.used:
            return
        file = f"{self.name}_{self.split}_{len(self.shards):06d}.bin"
        sha = write_shard(self.folder / file, self.buffer[: self.used])
        entry = {"file": file, "split": self.split, "tokens": self.used, "sha256": sha}
        entry |= {"documents": self.documents, "bytes": self.bytes, "units": self.units}
        key, passed, since = self.position
        self.shards.append(entry | {"end": [*key, passed, since]})
        self.total += self.used
        self.clear()
        write_atomically(self.folder / UNFINISHED, to_json(self.header | {"shards": self.shards}))

    def finish(self, complete: bool) -> dict:  # the manifest
        "Write the last shard, then the manifest. Raises ValueError, OSError."
        self.flush()
        totals = totals_of(self.shards)
        if self.split != "part":
            check_train(self.folder, totals, self.val_tokens, "--val_tokens")
        return finish_folder(self.folder, self.header, totals, self.shards, complete=complete)

# %% ../../nbs/tough/ch20d_writer.ipynb #3db227fb
NOTED = {"documents", "bytes", "units", "end"}  # fields that only `ShardWriter` records


def read_state(folder: Path) -> dict:  # {} for a folder without shards
    "Read the manifest of an earlier start. ValueError, one line, for shards of unknown origin."
    for name in (MANIFEST, UNFINISHED):
        if (folder / name).exists():
            fix = "remove the folder, or choose another with --out"
            raw = (folder / name).read_bytes()
            if not raw and name == UNFINISHED:
                return {}  # `claim_folder` makes it empty
            return parse_manifest(raw, folder / name, fix) | {"finished": name == MANIFEST}
    refuse_strangers(folder, " with --out")
    return {}


def check_same(
    folder: Path,
    state: dict,  # what the folder says that it holds
    wanted: dict,  # parts of a header, without what is not known yet
    grow: bool = True,  # whether more tokens may be asked for than before
):
    "Refuse to mix. ValueError, one line, that names the first difference."
    for part in wanted:
        for key, want in wanted[part].items():
            got = state.get(part, {}).get(key)
            if got != want and not (grow and key == "max_tokens" and may_grow(got, want)):
                what = f"{part} {key}" if part != "arguments" else key
                difference = f"of {what} {in_words(got)}, expected {in_words(want)}"
                raise ValueError(
                    f"{folder}: holds other shards, {difference}; choose another folder with --out"
                )


def in_words(choice) -> str:
    "Write one choice of a manifest for a message."
    if choice is None:
        return "everything"
    if isinstance(choice, int):
        return f"{choice:,}"
    text = "".join(c if c.isprintable() else "?" for c in str(choice)[:81])
    return text if len(text) <= 80 else f"{text[:77]}..."


def may_grow(old: int | None, new: int | None) -> bool:
    "Whether more tokens are asked for than before; None is everything."
    return old is not None and (new is None or new > old)


def is_whole(folder: Path, entry: dict) -> bool:
    "Whether a shard exists and is as its entry says."
    path = folder / entry["file"]
    try:
        if not NOTED <= entry.keys() or len(read_shard(path)) != entry["tokens"]:
            return False
        return scan(path, HEADER_BYTES)[0] == entry["sha256"]
    except (ValueError, OSError):
        return False


def whole_shards(folder: Path, state: dict, header: dict) -> list[dict]:  # entries
    "Keep the shards that are as the manifest says, up to the first that is not; remove the rest."
    a = header["arguments"]
    kept = list(takewhile(lambda entry: is_whole(folder, entry), state.get("shards", [])))
    if kept and kept[-1]["split"] != "val" and kept[-1]["tokens"] < a["shard_size"]:
        kept.pop()  # the last one is short: the source had ended, or max_tokens was reached
    if kept or state:
        write_atomically(folder / UNFINISHED, to_json(header | {"shards": kept}))
        (folder / MANIFEST).unlink(missing_ok=True)
    else:  # before the first shard: if we are stopped, a restart knows whose it is
        write_atomically(folder / UNFINISHED)
    names = {entry["file"] for entry in kept}
    for path in [*folder.glob(f"{glob.escape(a['name'])}_*_??????.bin"), *folder.glob(".*.tmp")]:
        if path.name not in names:
            path.unlink()
    return kept

# %% ../../nbs/tough/ch20d_writer.ipynb #a93a830c
def part_units(
    folder: Path, manifest: dict
) -> Iterator[tuple[tuple[int, int], np.ndarray]]:  # key, ids (N,) uint16
    "Give the units of one part. ValueError, one line, if a shard has been altered."
    for entry in manifest["shards"]:
        path = folder / entry["file"]
        tokens = read_shard(path)
        if scan(path, HEADER_BYTES)[0] != entry["sha256"]:
            raise ValueError(f"{path}: altered since it was written; prepare that part again")
        at = 0
        for f, g, n in entry["units"]:
            yield (f, g), tokens[at : at + n]
            at += n


def parts_stream(
    folders: list[Path], manifests: list[dict]
) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    "Put the units of all parts in order, up to the first that a part has not reached."
    unfinished = [m for m in manifests if not m["complete"]]
    last = [tuple(m["shards"][-1]["end"][:2]) if m["shards"] else (0, 0) for m in unfinished]
    parts = map(part_units, folders, manifests)
    for key, ids in heapq.merge(*parts, key=lambda item: item[0]):
        if last and key > min(last):
            return
        yield key, ids


def after(drop: int, stream: Iterator) -> Iterator:
    "Skip the first tokens of a stream."
    for key, ids in stream:
        yield key, ids[drop:]
        drop = max(0, drop - len(ids))
