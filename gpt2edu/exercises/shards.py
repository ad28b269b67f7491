"""The checks of chapter 5: bytes, headers, splits, places and power cuts; and its quiz."""

# Made by tools/book.py from ../../book/exercises/shards.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_pack', 'shard_bytes', 'refused', 'check_is_whole',
           'check_split_documents', 'check_find_token', 'PowerCut', 'cut_parts',
           'check_write_safely']

# %% ../../nbs/exercises/shards.ipynb #e2778d82
import tempfile
from pathlib import Path

import numpy as np

from gpt2edu.exercises.core import exercise, fail, names_in, plain, watch_write
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/shards.ipynb #81026c5a
quiz = Quiz(
    Question(
        "A program writes a file under a temporary name, flushes it and renames it. "
        "The power fails at some moment. "
        "What can the final name show afterwards?",
        right=(
            "the old file or the new one, each whole",
            "A rename on one disk happens at once or not at all, and the flush came before. "
            "Where no old file was, the name may be missing.",
        ),
        wrong=(
            (
                "the first half of the new file, up to the failure",
                "A half-written file can only have the temporary name; the rename comes last.",
            ),
            (
                "the new file, since the flush finished it",
                "The flush saves the bytes under the temporary name. The rename comes later.",
            ),
        ),
    ),
    Question(
        "A manual is split by whole pages, a quarter of them for validation. "
        "Why may the validation loss still be too low?",
        right=(
            "paragraphs of held-out pages also occur elsewhere",
            "The manual repeats itself, so the model has read parts of the test. "
            "Remove repeats before the split.",
        ),
        wrong=(
            (
                "a quarter is too little to measure a loss on",
                "A small sample makes the loss uncertain in both directions, not too low.",
            ),
            (
                "all the pages were encoded by the same tokenizer",
                "That is needed, and harmless: the tokenizer gives no page's text to the model.",
            ),
        ),
    ),
    Question(
        "Eight processes open the same shard of 200 MB as a memory map, and each reads all of it. "
        "How much memory do they need for its tokens?",
        right=(
            "up to 200 MB, which they share",
            "The system keeps one copy of the pages that were read, for all processes, "
            "and may drop it when memory is short.",
        ),
        wrong=(
            (
                "1.6 GB, as each reads every token",
                "That holds for eight arrays. A map shows all processes the same pages.",
            ),
            (
                "next to none, as a map reads nothing",
                "Opening reads nothing. Each part that is used must be fetched from the disk.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/shards.ipynb #14707a5f
@exercise(
    hint="300 is 1 * 256 + 44, and its bytes are 44, 1. `bytes([44, 1])` makes bytes of a list."
)
def check_pack(answer):
    "Ids become two bytes each, low byte first."
    ids = [300, 7, 255, 256, 0, *np.random.default_rng().integers(0, 2**16, 5).tolist(), 65535]
    if answer([300]) == bytes([300 % 255, 300 // 255]):
        fail("a byte has 256 values, 0 to 255: divide by 256")
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
    if got == want[::-1]:
        fail("the ids are in the wrong order, the last one first")
    if len(got) < len(want):
        fail("a number below 256 has two bytes too, the second is 0: each id takes the same room")
    if got != want:
        fail(f"the id 300 should be the bytes 44, 1; yours start with {list(got[:2])}")
    if answer([]) != b"":
        fail("no ids: no bytes")
    taken = names_in(answer) & {"to_bytes", "tobytes", "np", "numpy", "array", "struct", "pack"}
    if taken:
        fail(f"the bytes are right, but {min(taken)} made them: integer arithmetic only")

# %% ../../nbs/exercises/shards.ipynb #5f63a370
def shard_bytes(n, magic=20240520, count=None, at=2, order="<"):
    "A shard of n tokens, or something that looks like one."
    rest = np.random.default_rng().integers(1, 2**30, 253)  # other uses of a header, never 0
    header = np.array([magic, 1, 7, *rest], dtype=f"{order}u4")
    header[at] = n if count is None else count
    return header.tobytes() + np.random.default_rng().integers(0, 50257, n).astype("<u2").tobytes()


def refused(answer, n):
    "Say why a whole shard may have been refused: where does the answer read the count?"
    if answer(shard_bytes(n, order=">")) or answer(shard_bytes(n, count=n << 24)):
        return "you read the header high byte first; it is little-endian"
    for at in (1, 3):
        if answer(shard_bytes(n, at=at)):
            return f"you read the count at byte {4 * at}; magic, version, count: it is at byte 8"
    if answer(shard_bytes(n, count=2 * n)):
        return "you took the count for bytes; it counts tokens, and each has two bytes"
    return "the length is 1,024 bytes of header and two bytes per token"


@exercise(
    hint="int.from_bytes(raw[8:12], 'little') is the count; "
    "the file must have 1024 + 2 * count bytes."
)
def check_is_whole(answer):
    "Whole shards are accepted, damaged ones refused."
    n = int(np.random.default_rng().integers(10, 100))
    if not answer(shard_bytes(n)):
        fail(f"a whole shard was refused; {refused(answer, n)}")
    for magic in (20240801, 20240520 + 2**16, 20240520 + 2**8):
        if answer(shard_bytes(n, magic=magic)):
            fail(f"a file with another magic number passed, {magic}; compare all four bytes")
    if answer(shard_bytes(n)[:-2]):
        fail("a shard that is cut short passed; compare the count in the header with the length")
    if answer(shard_bytes(n) + b"ab"):
        fail("a shard that is too long passed; the length must be equal, not only sufficient")
    for odd in (shard_bytes(n)[:-1], shard_bytes(n) + b"a"):
        if answer(odd):
            fail("half a token passed: the length may differ by one byte, and // hides it")
    for length in (0, 3, 11, 12, 500, 1023):
        try:
            got = answer(shard_bytes(n)[:length])
        except Exception as e:  # noqa: BLE001
            fail(
                f"a file of {length} bytes raised {type(e).__name__} ({e}): "
                "look at the length before you read the header"
            )
        if got:
            fail(f"a file of {length} bytes passed; it does not even hold a header")
    if not answer(shard_bytes(70_000)):
        fail("a whole shard of 70,000 tokens was refused; the count has four bytes, not two")

# %% ../../nbs/exercises/shards.ipynb #27a7df87
@exercise(hint="Go through the documents and stop as soon as the tokens so far reach val_tokens.")
def check_split_documents(answer):
    "Each document is on one side, whole."
    rng = np.random.default_rng()
    docs = [[int(k)] * int(rng.integers(2, 9)) for k in range(20)]
    n = int(rng.integers(3, 10))
    val_tokens = sum(map(len, docs[:n])) + 1  # one token into document n
    val, train = plain(answer(docs, val_tokens))
    ids = [{d[0] for d in part if isinstance(d, list) and d} for part in (val, train)]
    if any(not isinstance(d, list) for d in val + train):
        fail("return lists of documents; yours hold single tokens")
    if val and val[0] == docs[n + 1]:
        fail("validation and training have changed places: return validation first")
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
    val, train = plain(answer(docs, sum(map(len, docs[:n]))))
    if val != docs[:n]:
        fail(
            "when a document reaches val_tokens exactly, validation is complete; "
            "yours took one more"
        )
    if plain(answer(docs, 0)) != [[], docs]:
        fail("val_tokens=0: no document is for validation")
    if plain(answer(docs, 10**6)) != [docs, []]:
        fail("val_tokens above all tokens: every document is for validation, and no error")

# %% ../../nbs/exercises/shards.ipynb #fe3bac4e
@exercise(hint="Subtract the length of a shard for as long as i is not smaller than it.")
def check_find_token(answer):
    "Every token is found."
    lengths = [int(n) for n in np.random.default_rng().integers(2, 9, 4)]
    place = 0
    for shard, n in enumerate(lengths):
        for k in range(n):
            got = tuple(plain(answer(lengths, place)))
            if got == (shard, k):
                place += 1
                continue
            if k == 0 and shard and got[0] == shard - 1:
                fail(
                    f"the first token of shard {shard} was looked for in shard {shard - 1}: "
                    "use >= at the border"
                )
            if got == (k, shard) and k != shard:
                fail("the two are swapped: the shard first, then the place in it")
            if got in ((shard + 1, k), (shard, k + 1), (shard + 1, k + 1)):
                fail("you count from 1; the first shard is 0, and so is its first place")
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


@exercise(
    hint="Write to path + '.tmp', f.flush(), os.fsync(f.fileno()); "
    "then os.replace(temporary, path) as the very last step."
)
def check_write_safely(answer):
    "The final name holds a whole file at any moment."
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"shard{np.random.default_rng().integers(1000)}.bin"
        whole = [b"old, ", b"whole"]
        watch_write(lambda: answer(path, iter(whole)), path, None, b"".join(whole))
        if not path.exists():
            fail("nothing is under the final name; rename the temporary file as the last step")
        if path.read_bytes() != b"old, whole":
            fail(f"expected the parts one after the other, got {path.read_bytes()!r}")
        try:
            watch_write(lambda: answer(path, cut_parts()), path, b"old, whole", b"new, whole")
        except PowerCut:
            pass
        if path.read_bytes() != b"old, whole":
            fail(f"after the power cut the old file should be there, got {path.read_bytes()!r}")
        parts = [b"another, ", b"whole, ", b"and longer"]
        watch_write(lambda: answer(path, iter(parts)), path, b"old, whole", b"".join(parts))
        if path.read_bytes() != b"".join(parts):
            fail(f"an older file should be replaced by the new parts, got {path.read_bytes()!r}")
