"""Shards cut from one stream, and notes after each of them from which a killed run goes on to the same bytes."""

# Made by tools/book.py from ../../book/tough/ch19d_writer.md: edit that file, then `make book`.

# %% auto #0
__all__ = ['OURS', 'to_json', 'ShardWriter', 'read_state', 'check_same', 'may_grow', 'whole_shards',
           'parts_stream', 'after']

# %% ../../nbs/tough/ch19d_writer.ipynb #b76966b8
import heapq
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gpt2edu.data.shards import (
    MANIFEST,
    SHARD_NAME,
    UNFINISHED,
    read_shard,
    scan,
    write_atomically,
    write_shard,
)
from ..text.tokenizer import Tokenizer

# %% ../../nbs/tough/ch19d_writer.ipynb #3c6ebe91
def to_json(manifest: dict) -> bytes:
    "Lay out a manifest: one shard in one line."
    lines = ",\n".join(f"  {json.dumps(entry)}" for entry in manifest["shards"])
    text = json.dumps(manifest | {"shards": []}, indent=1)
    return (text.removesuffix("[]\n}") + f"[\n{lines}\n ]\n}}\n").encode()


class ShardWriter:
    "Cuts one stream of tokens into shards, and notes after each shard where in the source it ended."

    def __init__(
        self,
        folder: Path,
        header: dict,  # of the manifest: tokenizer, source, arguments
        tokenizer: Tokenizer,
        shards: list[dict],  # entries of whole shards that are there from an earlier start
    ):
        self.folder, self.header, self.eot, self.shards = (
            Path(folder),
            header,
            tokenizer.eot,
            list(shards),
        )
        a = header["arguments"]
        self.name, self.shard_size, self.val_tokens = a["name"], a["shard_size"], a["val_tokens"]
        self.limit = a["max_tokens"] if a["max_tokens"] and "part" not in a else 2**62
        lengths = [len(tokenizer.decode_bytes([i])) for i in range(tokenizer.eot)]
        self.lengths = np.array(
            [*lengths, 0], dtype=np.int32
        )  # (V,) bytes of each token; <|endoftext|> stands for none
        self.buffer, self.used, self.units = np.empty(self.shard_size, dtype="<u2"), 0, []
        self.documents = self.bytes = 0  # of the shard at hand
        self.total = sum(s["tokens"] for s in shards)  # tokens in whole shards
        self.split = "part" if "part" in a else shards[-1]["split"] if shards else "val"
        *key, passed, since = shards[-1]["end"] if shards else (0, 0, 0, 0)
        self.key = tuple(key)
        self.begun, self.since = (passed + 1, since) if since else (0, 0)

    @property
    def position(self) -> tuple[tuple[int, int], int, int]:
        "Where the next token comes from: unit, documents of it to pass over, tokens of the next document to drop."
        return self.key, max(0, self.begun - 1), self.since

    def add(
        self,
        key: tuple[int, int],  # the unit that the tokens are from
        ids: np.ndarray,  # (N,) uint16, the next tokens of the stream
    ) -> bool:  # whether more are wanted
        "Take tokens; write a shard whenever one is full. Raises OSError."
        while len(ids) and self.total + self.used < self.limit:
            stop = min(len(ids), self.shard_size - self.used, self.limit - self.total - self.used)
            if self.split == "val":  # training begins with the first document behind val_tokens
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
        "Put tokens into the shard at hand and keep the books."
        self.buffer[self.used : self.used + len(ids)] = ids
        self.used += len(ids)
        if key != self.key:
            self.key, self.begun, self.since = key, 0, 0
        if not self.units or self.units[-1][:2] != [*key]:
            self.units.append([*key, 0])
        self.units[-1][2] += len(ids)
        starts = np.flatnonzero(ids == self.eot)
        self.documents += len(starts)
        self.bytes += int(self.lengths[ids].sum())
        self.begun += len(starts)
        self.since = len(ids) - int(starts[-1]) if len(starts) else self.since + len(ids)

    def flush(self):
        "Write the shard at hand, then the manifest so far. Raises OSError."
        if not self.used:
            return
        tokens, file = (
            self.buffer[: self.used],
            f"{self.name}_{self.split}_{len(self.shards):06d}.bin",
        )
        entry = {
            "file": file,
            "split": self.split,
            "tokens": self.used,
            "sha256": write_shard(self.folder / file, tokens),
        }
        entry |= {"documents": self.documents, "bytes": self.bytes}
        passed = self.position
        self.shards.append(entry | {"units": self.units, "end": [*passed[0], *passed[1:]]})
        self.total, self.used, self.units, self.documents, self.bytes = (
            self.total + self.used,
            0,
            [],
            0,
            0,
        )
        write_atomically(self.folder / UNFINISHED, to_json(self.header | {"shards": self.shards}))

    def finish(self, complete: bool) -> dict:  # the manifest
        "Write what is left, then the manifest. Raises ValueError, OSError."
        self.flush()
        totals = {s: {"documents": 0, "tokens": 0, "bytes": 0} for s in ("val", "train")}
        for entry in self.shards:
            for what, n in totals.setdefault(
                entry["split"], dict.fromkeys(totals["val"], 0)
            ).items():
                totals[entry["split"]][what] = n + entry[what]
        if self.split != "part" and not totals["train"]["tokens"]:
            got = f"got {totals['val']['tokens']:,} tokens in all, expected more than val_tokens={self.val_tokens:,}"
            raise ValueError(
                f"{self.folder}: no document is left for training, {got}; give more text or lower --val_tokens"
            )
        manifest = self.header | {"totals": totals, "complete": complete, "shards": self.shards}
        write_atomically(self.folder / MANIFEST, to_json(manifest))
        (self.folder / UNFINISHED).unlink(missing_ok=True)
        return manifest

# %% ../../nbs/tough/ch19d_writer.ipynb #3db227fb
OURS = re.compile(
    r"tokenizer\.json(\..*\.tmp)?$|\..*\.tmp$"
)  # what a start leaves that was killed before the first shard


def read_state(folder: Path) -> dict:  # {} for a folder without shards
    "Read what an earlier start has noted. ValueError, one line, for shards of unknown origin."
    for name in (MANIFEST, UNFINISHED):
        if (folder / name).exists():
            try:
                state = json.loads((folder / name).read_bytes() or b"{}")
                return state | {"finished": name == MANIFEST} if state else {}
            except (ValueError, TypeError):
                raise ValueError(
                    f"{folder / name}: not a manifest; remove the folder, or choose another with --out"
                ) from None
    if folder.is_dir() and (
        strange := sorted(p.name for p in folder.iterdir() if SHARD_NAME.match(p.name))
    ):
        raise ValueError(
            f"{folder}: holds shards of unknown origin ({strange[0]}); choose another folder with --out"
        )
    if folder.is_dir() and (
        strange := sorted(p.name for p in folder.iterdir() if not OURS.match(p.name))
    ):
        raise ValueError(
            f"{folder}: holds other things ({strange[0]}); choose a folder of its own with --out"
        )
    return {}


def check_same(
    folder: Path,
    state: dict,  # what the folder says that it holds
    wanted: dict,  # parts of a header; what is not known yet is left out
    grow: bool = True,  # whether more tokens may be asked for than before
):
    "Refuse to mix. ValueError, one line, that names the first difference."
    for part in wanted:
        for key, want in wanted[part].items():
            got = state.get(part, {}).get(key)
            if got != want and not (grow and key == "max_tokens" and may_grow(got, want)):
                got, want = (
                    f"{x:,}" if isinstance(x, int) else "everything" if x is None else x
                    for x in (got, want)
                )
                what = f"{part} {key}" if part != "arguments" else key
                raise ValueError(
                    f"{folder}: holds other shards, of {what} {got}, expected {want}; choose another folder with --out"
                )


def may_grow(old: int | None, new: int | None) -> bool:
    "Whether more tokens are asked for than before; None is everything."
    return old is not None and (new is None or new > old)


def whole_shards(folder: Path, state: dict, header: dict) -> list[dict]:  # entries
    "Keep the shards that are as the manifest says, in order up to the first that is not; remove the rest."
    kept, a = [], header["arguments"]
    for entry in state.get("shards", []):
        path = folder / entry["file"]
        try:
            sound = (
                "end" in entry
                and len(read_shard(path)) == entry["tokens"]
                and scan(path, 1024)[0] == entry["sha256"]
            )
        except (ValueError, OSError):
            sound = False
        if not sound:
            break
        kept.append(entry)
    if kept and kept[-1]["split"] != "val" and kept[-1]["tokens"] < a["shard_size"]:
        kept.pop()  # the last one was short, because there was no more, or not more wanted
    if kept or state:
        write_atomically(folder / UNFINISHED, to_json(header | {"shards": kept}))
        (folder / MANIFEST).unlink(missing_ok=True)
    names = {entry["file"] for entry in kept}
    for path in [*folder.glob(f"{a['name']}_*_??????.bin"), *folder.glob(".*.tmp")]:
        if path.name not in names:
            path.unlink()
    return kept

# %% ../../nbs/tough/ch19d_writer.ipynb #a93a830c
def parts_stream(
    folders: list[Path], manifests: list[dict]
) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    "Put the units of all parts in order, up to the first that a part has not got to. Raises ValueError."

    def one(folder, manifest):
        for entry in manifest["shards"]:
            tokens, at = read_shard(folder / entry["file"]), 0
            if scan(folder / entry["file"], 1024)[0] != entry["sha256"]:
                raise ValueError(
                    f"{folder / entry['file']}: altered since it was written; prepare that part again"
                )
            for f, g, n in entry["units"]:
                yield (f, g), tokens[at : at + n]
                at += n

    last = [
        tuple(m["shards"][-1]["end"][:2]) if m["shards"] else (0, 0)
        for m in manifests
        if not m["complete"]
    ]
    for key, ids in heapq.merge(*map(one, folders, manifests), key=lambda item: item[0]):
        if last and key > min(last):
            return
        yield key, ids


def after(drop: int, stream: Iterator) -> Iterator:
    "Pass over the first tokens of a stream."
    for key, ids in stream:
        yield key, ids[drop:]
        drop = max(0, drop - len(ids))
