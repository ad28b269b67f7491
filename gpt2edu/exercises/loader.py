"""The checks of chapter 6: windows, ranks, a Feistel round and a position."""

# Made by tools/book.py from ../../book/exercises/loader.md: edit that, then `make book`.

# %% auto #0
__all__ = ['check_split_window', 'check_count_windows', 'check_positions_of', 'check_undo_round',
           'check_where_is_it']

# %% ../../nbs/exercises/loader.ipynb #4efeb58a
import numpy as np

from gpt2edu.exercises.core import close, exercise, fail

# %% ../../nbs/exercises/loader.ipynb #84a47a33
@exercise(hint="window[:-1] leaves out the last token, window[1:] the first.")
def check_split_window(answer):
    "Inputs and targets are one token apart."
    rng = np.random.default_rng()
    window = rng.permutation(1000)[: rng.integers(5, 12)]
    x, y = answer(window)
    if len(x) == len(window) or len(y) == len(window):
        fail(
            f"a window of {len(window)} tokens has {len(window) - 1} inputs and as many targets; "
            "yours has all tokens"
        )
    if close(x, y):
        fail("x and y are the same, so the model would only learn to copy; y is moved on by one")
    if close(x, window[1:]) and close(y, window[:-1]):
        fail("x and y are the wrong way round: the model would predict the token before")
    if not close(x, window[:-1]) or not close(y, window[1:]):
        fail(
            f"for the window {window[:4].tolist()} … "
            f"x should start with {window[0]} and y with {window[1]}"
        )

# %% ../../nbs/exercises/loader.ipynb #e8818aee
@exercise(
    hint="Ten tokens and T = 3: windows start at 0, 3 and 6. "
    "Nine tokens and T = 3: only at 0 and 3."
)
def check_count_windows(answer):
    "The count is right for every length."
    T = int(np.random.default_rng().integers(3, 20))
    lengths = range(T + 1, 6 * T)
    got = [answer(n, T) for n in lengths]
    want = [(n - 1) // T for n in lengths]
    if got == want:
        return
    if got == [n // T for n in lengths]:
        fail(
            f"with {2 * T} tokens and T={T} there is one window: "
            "of a second one the last target would be missing"
        )
    if got == [n // (T + 1) for n in lengths]:
        fail(
            "you gave each window T + 1 tokens of its own; "
            "neighbours share one: a target, then an input"
        )
    if got == [n - T for n in lengths]:
        fail("you counted a window at every token; windows start T tokens apart")
    n, g, w = next(t for t in zip(lengths, got, want, strict=True) if t[1] != t[2])
    fail(f"with {n} tokens and T={T} there are {w} windows; yours says {g}")

# %% ../../nbs/exercises/loader.ipynb #5b5799f9
@exercise(hint="Rank 0 reads position … position + B - 1, rank 1 the B after these.")
def check_positions_of(answer):
    "Every rank reads its own positions."
    rng = np.random.default_rng()
    position = int(rng.integers(100, 1000))
    B = int(rng.integers(3, 8))
    rank = int(rng.integers(1, 8))
    got = [int(p) for p in answer(position, B, rank)]
    first = position + rank * B
    if len(got) != B:
        fail(f"a rank reads B={B} windows in a step, yours reads {len(got)}")
    if got == list(range(position, position + B)):
        fail("every rank reads the same windows; skip those of the lower ranks")
    if got == list(range(rank * B, rank * B + B)):
        fail("you start at 0 in every step; start at position")
    if got == list(range(position + rank, position + rank + B)):
        fail("you skip one window per lower rank; each of them reads B")
    if got != list(range(first, first + B)):
        fail(
            f"at position {position} with B={B}, rank {rank} reads {first} to {first + B - 1}; "
            f"yours reads {got}"
        )

# %% ../../nbs/exercises/loader.ipynb #ed2dd115
@exercise(hint="f(new_left) is f(right). What is new_right ^ f(right)?")
def check_undo_round(answer):
    "A round is undone, although f cannot be."
    rng = np.random.default_rng()
    table = rng.integers(1, 256, 256)  # never 0: it would change nothing
    left, right = int(rng.integers(1, 256)), int(rng.integers(1, 256))
    while right in (left, left ^ int(table[right])):
        right = (right + 1) % 256

    def f(half):
        return int(table[half])

    new_left, new_right = right, left ^ f(right)
    got = tuple(int(v) for v in answer(new_left, new_right, f))
    if got == (left, right):
        return
    if got == (right, left):
        fail("the halves are right, in the wrong order: left comes first")
    if got == (new_right, new_left ^ f(new_right)):
        fail(
            "you did another round forwards; "
            "to go back, scramble the half that was not changed: new_left"
        )
    if got == (new_right, new_left):
        fail("you only swapped the halves; the scramble f(new_left) must be taken off")
    fail(f"({left}, {right}) became ({new_left}, {new_right}); yours says it was {got}")

# %% ../../nbs/exercises/loader.ipynb #dce8b009
@exercise(
    hint="In one step all ranks together read B * world_size windows. "
    "An epoch is n_windows of them."
)
def check_where_is_it(answer):
    "Position and epoch are right."
    rng = np.random.default_rng()
    steps, B, world_size = (int(v) for v in rng.integers(5, 50, 3))
    n_windows = int(rng.integers(5, 40)) * 2 + 1  # fewer than the position
    position = steps * B * world_size
    while position % n_windows in (0, steps * B):  # else two mistakes give one answer
        n_windows += 1
    got = tuple(answer(steps, B, world_size, n_windows))
    if got[0] == steps * B:
        fail("you counted the windows of one rank; the position counts those of all ranks")
    if got[0] == position % n_windows:
        fail("the position goes on over all epochs; do not start again at 0")
    if got == (position, -(-position // n_windows)):
        fail("epochs are counted from 0: in the first one, the number is 0")
    if got != (position, position // n_windows):
        want = (position, position // n_windows)
        fail(
            f"{steps} steps, B={B}, world_size={world_size}, n_windows={n_windows}: "
            f"expected {want}, got {got}"
        )
