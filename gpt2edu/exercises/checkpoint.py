"""The checks of the checkpoint chapter's exercises: they read an answer and name the mistake."""

# Made by tools/book.py from ../../book/exercises/checkpoint.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_header', 'check_atomic_write', 'check_newest', 'check_surplus']

# %% ../../nbs/exercises/checkpoint.ipynb #7baf8288
import random
import tempfile
from pathlib import Path

import torch

from gpt2edu.train.checkpoint import pack
from gpt2edu.exercises.core import exercise, fail, plain, watch_write
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/checkpoint.ipynb #77d1a5fb
quiz = Quiz(
    Question(
        "You load the weights of step 30, build a new AdamW, and train on. "
        "What does the loss curve do?",
        right=(
            "it jumps up and takes many steps to come back",
            "AdamW's two averages start at zero again, so its first updates are ill-scaled.",
        ),
        wrong=(
            (
                "it continues as before, since the weights decide the loss",
                "They decide the loss of this step; the next update also uses AdamW's averages.",
            ),
            (
                "it starts again at ln V, as in a run that has learned nothing",
                "The weights still hold all that was learned. Only the optimiser has forgotten.",
            ),
        ),
    ),
    Question(
        "A program writes a temporary file and renames it, without fsync. "
        "What can a reader find after a power cut?",
        right=(
            "the final name with nothing in it",
            "The rename may reach the disk before the data does, so the name is complete and "
            "the content is not.",
        ),
        wrong=(
            (
                "the old content, or else the new",
                "That is what fsync before the rename buys. Without it the order on the disk "
                "is open.",
            ),
            (
                "half of the old content, half of the new",
                "The two are separate files, so their bytes never mix.",
            ),
        ),
    ),
    Question(
        "The seal of a `state.json` from a stranger fits. What does that prove?",
        right=(
            "no byte changed by accident after it was written",
            "A seal is a hash that anybody can compute, so it shows accidents and no more.",
        ),
        wrong=(
            (
                "it comes unchanged from our trainer, and from nobody else",
                "Anyone can edit the file and seal it again: no secret key goes into the hash.",
            ),
            (
                "its values have the right types and fit the model",
                "The seal covers bytes, not meaning; `load` checks the types afterwards.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/checkpoint.ipynb #97d189f2
@exercise(
    hint="int.from_bytes(raw[:8], 'little') is the header's length n; the header is raw[8 : 8 + n]."
)
def check_header(answer):
    "Reads names, types and shapes out of raw bytes."
    tensors = {f"w{i}": torch.randn(random.randint(1, 5), 3) for i in range(3)}
    tensors["n"] = torch.arange(4)
    tensors["one"] = torch.tensor(1.5)  # no dimension
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
    got = {name: plain(t) for name, t in got.items()}
    if any(isinstance(t, dict) for t in got.values()):
        fail("return (dtype, shape) for each name, not the whole entry of the header")
    got = {name: (t[0], list(t[1])) for name, t in got.items()}
    if got == {name: (t[1], t[0]) for name, t in want.items()} or any(
        not isinstance(t[0], str) for t in got.values()
    ):
        fail("dtype first, then shape")
    if want.keys() - got.keys():
        fail(f"{min(want.keys() - got.keys())} is missing: every tensor has its entry")
    if any(got[name][1] != want[name][1] for name in want):
        name = next(name for name in want if got[name][1] != want[name][1])
        fail(f"the shape of {name} is {want[name][1]}, got {got[name][1]}; is it data_offsets?")
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
        path.write_bytes(b"old")
        watch_write(lambda: answer(path, data), path, b"old", data)
        if not path.exists() or path.read_bytes() != data:
            fail("the new content is not there")
        if left := [p.name for p in Path(folder).iterdir() if p != path]:
            fail(f"left behind: {left}")
        path.unlink()
        watch_write(lambda: answer(path, data), path, None, data)
        if not path.exists():
            fail("with no old file there, the new one should be written as well")

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
    if (got := answer(["step_3"], set())) is not None:
        fail(f"no checkpoint is whole: return None, got {got}")
    if (got := answer(["step_3"], {"step_3", "step_4"})) != "step_3":
        fail(f"{got} is not among the names: choose one of them")
    if (got := answer(["step_0"], {"step_0"})) != "step_0":
        fail(f"step 0 is a step like any other, got {got}")

# %% ../../nbs/exercises/checkpoint.ipynb #b5d61aa8
@exercise(hint="keep = the set of sorted(steps)[-n:], best and just_saved.")
def check_surplus(answer):
    "Keeps the newest, the best and the one just saved."
    steps = random.sample(range(10, 100), 8)
    order = sorted(steps)
    steps = [*order[4:], *order[:4]]  # not sorted
    got = plain(answer(steps, 2, order[1], order[3]))
    if isinstance(got, set):
        fail("a set has no order: return a sorted list")
    if got == [order[1], order[3], order[6], order[7]]:
        fail("those are the ones to keep; return the rest")
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
    if plain(answer(order[:3], 5, order[0], order[0])) != []:
        fail("fewer checkpoints than may be kept: nothing is deleted")
    if plain(answer(order, 1, order[7], order[7])) != order[:7]:
        fail("the newest, the best and the one just saved may be the same one")
