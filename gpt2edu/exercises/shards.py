"""The checks of chapter 5: bytes, headers, splits, places and power cuts."""

# Made by tools/book.py from ../../book/exercises/shards.md: edit that, then `make book`.

# %% auto #0
__all__ = ['check_pack', 'shard_bytes', 'check_is_whole', 'check_split_documents',
           'check_find_token', 'PowerCut', 'cut_parts', 'check_write_safely']

# %% ../../nbs/exercises/shards.ipynb #e2778d82
import tempfile
from pathlib import Path

import numpy as np

from gpt2edu.exercises.core import exercise, fail

# %% ../../nbs/exercises/shards.ipynb #14707a5f
@exercise(
    hint="300 is 1 * 256 + 44, and its bytes are 44, 1. `bytes([44, 1])` makes bytes of a list."
)
def check_pack(answer):
    "Ids become two bytes each, low byte first."
    ids = [300, 7, *np.random.default_rng().integers(0, 2**16, 5).tolist(), 65535]
    got = answer(ids)
    want = np.array(ids, dtype="<u2").tobytes()
    if not isinstance(got, bytes | bytearray):
        fail(f"expected bytes, got {type(got).__name__}")
    if got == np.array(ids, dtype=">u2").tobytes():
        fail("the high byte comes first in yours; little-endian means low byte first")
    if got == np.array(ids, dtype="<i4").tobytes():
        fail("you used four bytes per id; two are enough for 65,535")
    if len(got) == len(ids):
        fail("you used one byte per id, so every id above 255 is lost")
    if got != want:
        fail(f"the id 300 should be the bytes 44, 1; yours start with {list(got[:2])}")

# %% ../../nbs/exercises/shards.ipynb #5f63a370
def shard_bytes(n, magic=20240520, count=None):
    "A shard of n tokens, or something that looks like one."
    header = np.array([magic, 1, n if count is None else count] + [0] * 253, dtype="<i4")
    return header.tobytes() + np.random.default_rng().integers(0, 50257, n).astype("<u2").tobytes()


@exercise(
    hint="int.from_bytes(raw[8:12], 'little') is the count; "
    "the file must have 1024 + 2 * count bytes."
)
def check_is_whole(answer):
    "Whole shards are told from the others."
    n = int(np.random.default_rng().integers(10, 100))
    if not answer(shard_bytes(n)):
        fail(
            "a whole shard was refused; the length is 1,024 bytes of header and two bytes per token"
        )
    if answer(shard_bytes(n, magic=20240801)):
        fail("a file with another magic number passed")
    if answer(shard_bytes(n)[:-2]):
        fail("a shard that is cut short passed; compare the count in the header with the length")
    if answer(shard_bytes(n) + b"ab"):
        fail("a shard that is too long passed; the length must be equal, not only sufficient")
    for length in (0, 11, 500):
        if answer(shard_bytes(n)[:length]):
            fail(f"a file of {length} bytes passed; it does not even hold a header")

# %% ../../nbs/exercises/shards.ipynb #27a7df87
@exercise(hint="Go through the documents and stop as soon as the tokens so far reach val_tokens.")
def check_split_documents(answer):
    "Each document is on one side, whole."
    rng = np.random.default_rng()
    docs = [[int(k)] * int(rng.integers(2, 9)) for k in range(20)]
    n = int(rng.integers(3, 10))
    val_tokens = sum(map(len, docs[:n])) + 1  # one token into document n
    val, train = (list(part) for part in answer(docs, val_tokens))
    ids = [{d[0] for d in part if isinstance(d, list) and d} for part in (val, train)]
    if any(not isinstance(d, list) for d in val + train):
        fail("return lists of documents; yours hold single tokens")
    if ids[0] & ids[1]:
        fail(f"document {min(ids[0] & ids[1])} is in both splits; cut between documents")
    if val == docs[:n]:
        fail(
            "validation has fewer than val_tokens tokens; "
            "the document that reaches val_tokens belongs to it"
        )
    if val and val[-1] == docs[-1]:
        fail("you took the last documents for validation; take the first")
    if val != docs[: n + 1] or train != docs[n + 1 :]:
        fail(
            f"expected {n + 1} documents for validation and {19 - n} for training, "
            f"got {len(val)} and {len(train)}"
        )
    val, train = answer(docs, sum(map(len, docs[:n])))
    if list(val) != docs[:n]:
        fail(
            "when a document reaches val_tokens exactly, validation is complete; "
            "yours took one more"
        )

# %% ../../nbs/exercises/shards.ipynb #fe3bac4e
@exercise(hint="Subtract the length of a shard for as long as i is not smaller than it.")
def check_find_token(answer):
    "Every token is found."
    lengths = [int(n) for n in np.random.default_rng().integers(2, 9, 4)]
    place = 0
    for shard, n in enumerate(lengths):
        for k in range(n):
            got = tuple(answer(lengths, place))
            if got == (shard, k):
                place += 1
                continue
            if k == 0 and shard and got[0] == shard - 1:
                fail(
                    f"the first token of shard {shard} was looked for in shard {shard - 1}: "
                    "use >= at the border"
                )
            if got == (shard, place):
                fail("the place is counted from the start of the shard, not of the stream")
            fail(
                f"with lengths {lengths}, token {place} is in shard {shard} at place {k}; "
                f"yours says {got}"
            )

# %% ../../nbs/exercises/shards.ipynb #974e4bca
class PowerCut(Exception):
    "Raised by the parts, in the middle of a file."


def cut_parts():
    yield b"new, "
    raise PowerCut


@exercise(hint="Write to path + '.tmp', then os.replace(temporary, path) as the very last step.")
def check_write_safely(answer):
    "The final name holds a whole file at any moment."
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"shard{np.random.default_rng().integers(1000)}.bin"
        answer(path, iter([b"old, ", b"whole"]))
        if not path.exists():
            fail("nothing is under the final name; rename the temporary file as the last step")
        if path.read_bytes() != b"old, whole":
            fail(f"expected the parts one after the other, got {path.read_bytes()!r}")
        try:
            answer(path, cut_parts())
        except PowerCut:
            pass
        if not path.exists():
            fail(
                "the old file is gone after a power cut; "
                "do not delete it, os.replace puts the new one in its place"
            )
        if path.read_bytes() == b"new, ":
            fail("half a file stands under the final name; write to another name first")
        if path.read_bytes() != b"old, whole":
            fail(f"after the power cut the old file should be there, got {path.read_bytes()!r}")
        if any(p.parent != path.parent for p in Path(folder).rglob("*") if p.is_file()):
            fail("keep the temporary file in the same folder: a rename works within one disk only")
