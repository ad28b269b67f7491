"""Checks for the exercises of ch16."""

# Made by tools/book.py from ../../book/exercises/checkpoint.md: edit that, then `make book`.

# %% auto #0
__all__ = ['check_header', 'check_atomic_write', 'check_newest', 'check_surplus']

# %% ../../nbs/exercises/checkpoint.ipynb #7baf8288
import os
import random
import tempfile
from pathlib import Path
from unittest import mock

import torch

from gpt2edu.train.checkpoint import pack
from gpt2edu.exercises.core import exercise, fail

# %% ../../nbs/exercises/checkpoint.ipynb #97d189f2
@exercise(
    hint="int.from_bytes(raw[:8], 'little') is the header's length n; the header is raw[8 : 8 + n]."
)
def check_header(answer):
    "Reads names, types and shapes out of raw bytes."
    tensors = {f"w{i}": torch.randn(random.randint(1, 5), 3) for i in range(3)}
    tensors["n"] = torch.arange(4)
    raw = b"".join(pack(tensors, {"made_by": "check"}))
    want = {name: ("I64" if name == "n" else "F32", list(t.shape)) for name, t in tensors.items()}
    try:
        got = answer(raw)
    except ValueError as e:  # not JSON, or not even text
        fail(
            f"your slice is not JSON ({e}): "
            "the header starts at byte 8, and its length is little-endian"
        )
    if "__metadata__" in got:
        fail("`__metadata__` is not a tensor: leave it out")
    got = {name: (t[0], list(t[1])) for name, t in got.items()}
    if got != want:
        fail(f"expected {want}, got {got}")

# %% ../../nbs/exercises/checkpoint.ipynb #fa5f636c
@exercise(
    hint="with open(temp, 'wb') as f: "
    "write, f.flush(), os.fsync(f.fileno()); then os.replace(temp, path)."
)
def check_atomic_write(answer):
    "Old or new, never a part, and nothing left behind."
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.bin"
        data = random.randbytes(1000)
        events = []
        path.write_bytes(b"old")

        def spy(name, real):
            def call(*args, **kw):
                there = path.exists() and path.read_bytes()
                source = Path(args[0]) if name == "rename" else None
                events.append((name, there, source))
                return real(*args, **kw)

            return call

        patched = {name: spy("rename", getattr(os, name)) for name in ("rename", "replace")}
        patched["fsync"] = spy("fsync", os.fsync)
        with mock.patch.multiple(os, **patched):
            answer(path, data)
        renames = [e for e in events if e[0] == "rename"]
        if not path.exists() or path.read_bytes() != data:
            fail("the new content is not there")
        if not renames:
            fail(
                "you wrote into the file itself: "
                "whoever reads meanwhile, or a crash, finds a part of it"
            )
        if renames[0][1] != b"old":
            fail(
                "the old content was gone before the rename: "
                "between the two there is nothing to resume from"
            )
        if renames[0][2].parent != path.parent:
            fail(
                "the temporary file is in another folder, perhaps on another disk: "
                "rename is atomic on one only"
            )
        if events[0][0] != "fsync":
            fail(
                "rename without fsync before: "
                "after a power cut the new name may stand over empty data"
            )
        if left := [p.name for p in Path(folder).iterdir() if p != path]:
            fail(f"left behind: {left}")

# %% ../../nbs/exercises/checkpoint.ipynb #e1685a85
@exercise(
    hint="Filter first (starts with 'step_', is whole), "
    "then max with key=int of the digits and default=None."
)
def check_newest(answer):
    "Finds the highest step among whole checkpoints."
    n = random.randint(1, 9)
    names = [f"step_{n}", f"step_{n}0", f"step_{n}00", f".tmp-step_{n}000-77", f"step_{n}0000"]
    whole = {f"step_{n}", f"step_{n}0", f"step_{n}00", f".tmp-step_{n}000-77"}
    random.shuffle(names)
    got = answer(names, whole)
    want = f"step_{n}00"
    if got and got.startswith(".tmp"):
        fail("a temporary folder is nobody's checkpoint, even if all files are there")
    if got == f"step_{n}0000":
        fail(f"{got} is not whole: its process died while it wrote")
    if got != want:
        fail(f"expected {want}, got {got}")
    if (got := answer(["step_9", "step_10"], {"step_9", "step_10"})) != "step_10":
        fail(f"{got} is first in the alphabet of steps: compare numbers, not text")
    if answer([], set()) is not None:
        fail("no checkpoint at all: return None")

# %% ../../nbs/exercises/checkpoint.ipynb #b5d61aa8
@exercise(hint="keep = the set of sorted(steps)[-n:], best and just_saved.")
def check_surplus(answer):
    "Keeps the newest, the best and the one just saved."
    steps = random.sample(range(10, 100), 8)
    order = sorted(steps)
    steps = [*order[4:], *order[:4]]  # not sorted
    got = answer(list(steps), 2, order[1], order[3])
    want = [order[i] for i in (0, 2, 4, 5)]
    if order[3] in got:
        fail(f"you delete {order[3]}, which was saved a moment ago")
    if order[1] in got:
        fail(f"you delete {order[1]}, the best one")
    if order[7] in got or order[6] in got:
        fail("you delete one of the newest two: the list is not sorted")
    if sorted(got) != want:
        fail(
            f"of {order}, keeping 2, best {order[1]}, just saved {order[3]}: "
            f"expected {want}, got {list(got)}"
        )
    if list(got) != want:
        fail("right, but not sorted")
