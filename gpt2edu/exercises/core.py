"""A decorator makes a check a patient teacher: it names the likely mistake, then gives a hint."""

# Made by tools/book.py from ../../book/exercises/core.md: edit that, then `make book`.

# %% auto #0
__all__ = ['Verdict', 'Wrong', 'fail', 'close', 'plain', 'fresh', 'names_in', 'has_loop',
           'watch_write', 'exercise']

# %% ../../nbs/exercises/core.ipynb #a9849c71
import dis
import functools
import inspect
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# %% ../../nbs/exercises/core.ipynb #f5bf32b3
@dataclass(frozen=True)
class Verdict:
    "What a check says of an answer."

    passed: bool
    message: str  # one or two sentences
    hint: str = ""  # shown from the second failure on

    def __repr__(self):
        text = f"{'Passed' if self.passed else 'Not yet'}: {self.message}"
        return f"{text}\nHint: {self.hint}" if self.hint else text


class Wrong(Exception):
    "Raised by `fail` inside a check."


def fail(
    message: str,  # names the likely mistake, or says what was expected and what came
):
    "End a check with this message."
    raise Wrong(message)


def close(
    got,  # the learner's value: number, list, array or tensor
    want,  # the reference value
    tol: float = 1e-5,  # largest absolute or relative difference
) -> bool:  # whether shapes and values agree
    "Compare two values without raising."
    try:
        got = np.asarray(got, dtype=float)
        want = np.asarray(want, dtype=float)
    except (TypeError, ValueError, RuntimeError):
        return False
    return got.shape == want.shape and np.allclose(got, want, rtol=tol, atol=tol)

# %% ../../nbs/exercises/core.ipynb #2ae5b97f
def plain(value):
    "Turn tuples, arrays, tensors and iterators into lists, and their numbers into Python's."
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (list, tuple, range)) or hasattr(value, "__next__"):
        return [plain(v) for v in value]
    return value


def fresh(value):
    "Copy arrays, tensors and the containers that hold them; models, files and functions stay."
    if isinstance(value, np.ndarray):
        return value.copy()
    if hasattr(value, "clone"):
        return value.clone()
    if type(value) is dict:
        return {key: fresh(v) for key, v in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(map(fresh, value))
    return value

# %% ../../nbs/exercises/core.ipynb #02b7dd62
def _codes(answer):
    todo = [getattr(inspect.unwrap(answer), "__code__", None)]
    while todo:
        if (code := todo.pop()) is not None:
            yield code
            todo += [c for c in code.co_consts if inspect.iscode(c)]


def names_in(answer) -> set[str]:
    "List the globals, modules and methods that a function names."
    return {name for code in _codes(answer) for name in code.co_names}


def has_loop(answer) -> bool:
    "Say whether a function goes through something one by one in Python."
    ops = {i.opname for code in _codes(answer) for i in dis.get_instructions(code)}
    return any(op == "FOR_ITER" or op.startswith("JUMP_BACKWARD") for op in ops)

# %% ../../nbs/exercises/core.ipynb #3591e2a8
class _Watch:
    "What a file looked like at each moment of a write."

    in_place = (
        "you wrote into the file itself: a reader, or a power cut, finds a part of it; "
        "write to another name first"
    )

    def __init__(self, path, old, new):
        self.path, self.old, self.new = path, old, new
        self.inode = path.stat().st_ino if path.exists() else None
        self.wrong = ""  # what was unsafe first
        self.synced = self.beside = self.done = False
        self.swallowed = False  # fsync came while Python still held the bytes

    def look(self, frame, event, call):
        there = self.path.read_bytes() if self.path.exists() else None
        if self.done or self.wrong:
            return
        if there == self.new != self.old:
            self.finish()
        elif there != self.old:
            self.wrong = (
                "the old file is gone for a moment: a power cut then leaves nothing to resume "
                "from; do not delete or move it, os.replace puts the new one in its place"
                if there is None
                else f"you wrote into the file itself: a reader, or a power cut, finds {there!r}; "
                "write to another name first"
                if len(there) < 20
                else self.in_place
            )
        files = [p.read_bytes() for p in self.path.parent.iterdir() if p.is_file()]
        self.beside = self.beside or self.new in files
        if event == "c_call" and call in (os.fsync, getattr(os, "fdatasync", None)):
            self.synced = self.new in files
            self.swallowed = not self.synced

    def finish(self):
        self.done = True
        if self.path.stat().st_ino == self.inode:
            self.wrong = self.in_place
        elif not self.beside:
            self.wrong = (
                "the temporary file is in another folder, perhaps on another disk: "
                "keep it in the same folder, a rename is atomic on one disk only"
            )
        elif self.swallowed:
            self.wrong = (
                "fsync came while Python still held the bytes in its own buffer: "
                "call f.flush() before it"
            )
        elif not self.synced:
            self.wrong = (
                "rename without fsync before: "
                "after a power cut the new name may stand over empty data"
            )


def watch_write(
    write,  # calls the learner's function, without arguments
    path: Path,
    old: bytes | None,  # what is there before
    new: bytes,  # what should be there afterwards
):
    "Fail if at any moment of `write` the file was neither the old one nor the new one."
    watch = _Watch(path, old, new)
    before = sys.getprofile()
    sys.setprofile(watch.look)
    try:
        write()
    finally:
        sys.setprofile(before)
        watch.look(None, "end", None)
        if watch.wrong:
            fail(watch.wrong)

# %% ../../nbs/exercises/core.ipynb #ca8b8f38
class _Given:
    "The learner's function, called with copies; it notes where an error comes from."

    def __init__(self, answer):
        functools.update_wrapper(self, answer, updated=())
        self.answer = answer
        self.inside, self.last = False, ...

    def __call__(self, *args, **kw):
        self.inside = True
        kw = {key: fresh(v) for key, v in kw.items()}
        self.last = self.answer(*map(fresh, args), **kw)
        self.inside = False
        return self.last

    def blame(self, e: Exception) -> str:
        "Say where an error came from: out of the learner's code, or out of what it returned."
        if self.inside:
            return f"your code raised {type(e).__name__}: {e}"
        if self.last is None:
            return "your function returned None: is the `return` missing?"
        return f"your function returned {self.last!r:.60}, which is not what was asked for ({e})"


def exercise(
    hint: str,  # what to try; shown from the second failure on
):
    "Make a check of a function that calls `fail`: its docstring is what a passed answer does."

    def wrap(check):
        failures = 0

        @functools.wraps(check)
        def run(answer) -> Verdict:
            nonlocal failures
            given = _Given(answer)
            try:
                check(given)
            except Wrong as e:
                message = str(e)
            except NotImplementedError as e:
                message = f"the stub is still there ({e})" if str(e) else "the stub is still there"
            # any error in the learner's code is an answer, not a crash
            except Exception as e:  # noqa: BLE001
                message = given.blame(e)
            else:
                return Verdict(True, check.__doc__)
            failures += 1
            return Verdict(False, message, hint if failures > 1 else "")

        run.hint = hint
        return run

    return wrap
