"""A decorator makes a check a patient teacher: it names the likely mistake, then gives a hint."""

# Made by tools/book.py from ../../book/exercises/core.md: edit that, then `make book`.

# %% auto #0
__all__ = ['Verdict', 'Wrong', 'fail', 'close', 'exercise']

# %% ../../nbs/exercises/core.ipynb #a9849c71
import functools
from dataclasses import dataclass

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


def exercise(
    hint: str,  # what to try; shown from the second failure on
):
    "Make a check of a function that calls `fail`: its docstring is what a passed answer does."

    def wrap(check):
        failures = 0

        @functools.wraps(check)
        def run(answer) -> Verdict:
            nonlocal failures
            try:
                check(answer)
            except Wrong as e:
                message = str(e)
            except NotImplementedError as e:
                message = f"the stub is still there ({e})" if str(e) else "the stub is still there"
            # any error in the learner's code is an answer, not a crash
            except Exception as e:  # noqa: BLE001
                message = f"your code raised {type(e).__name__}: {e}"
            else:
                return Verdict(True, check.__doc__)
            failures += 1
            return Verdict(False, message, hint if failures > 1 else "")

        run.hint = hint
        return run

    return wrap
