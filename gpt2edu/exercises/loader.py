"""The checks of chapter 6: windows, ranks, a Feistel round and a position; and its quiz."""

# Made by tools/book.py from ../../book/exercises/loader.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_split_window', 'check_count_windows', 'check_positions_of',
           'check_undo_round', 'check_where_is_it']

# %% ../../nbs/exercises/loader.ipynb #4efeb58a
import numpy as np

from gpt2edu.exercises.core import close, exercise, fail, plain
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/loader.ipynb #84a47a33
quiz = Quiz(
    Question(
        "Two processes train together, and by mistake both loaders have `rank=0, world_size=2`. "
        "What do they read?",
        right=(
            "both the same half of the text, never the other half",
            "Each takes the share of rank 0, and the position moves on by two shares.",
        ),
        wrong=(
            (
                "both all of the text, each window twice in a step",
                "The position moves on by the shares of two ranks, so that of rank 1 is skipped.",
            ),
            (
                "nothing, as each waits for the rank that is missing",
                "A loader computes its share alone; it knows nothing of other processes.",
            ),
        ),
    ),
    Question(
        "A training loss rises and falls with the same rhythm in every epoch. "
        "Which cause fits best?",
        right=(
            "the text is read as it lies on the disk",
            "Each epoch comes to the same change of subject at the same step. Shuffle the windows.",
        ),
        wrong=(
            (
                "the learning rate is too large for this model",
                "Then the loss would jump at any step, not at the same place of each epoch.",
            ),
            (
                "the model has begun to learn the text by heart",
                "Then the training loss would only fall, and the validation loss would rise.",
            ),
        ),
    ),
    Question(
        "A run on four GPUs is stopped and resumed on three. "
        "What must it save about its data, beside the settings, so that no window comes twice?",
        right=(
            "one number: how many windows all of them have read",
            "The order follows from the seed, so a place in it is enough for any number of ranks.",
        ),
        wrong=(
            (
                "four numbers: how far each of the GPUs has come",
                "Four places could not be shared out among three. All ranks follow one position.",
            ),
            (
                "the list of all windows in their shuffled order",
                "The order is a function of seed and epoch, and is computed where it is needed.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/loader.ipynb #e8818aee
@exercise(hint="window[:-1] leaves out the last token, window[1:] the first.")
def check_split_window(answer):
    "Inputs and targets are one token apart."
    rng = np.random.default_rng()
    window = rng.permutation(1000)[: rng.integers(5, 12)]
    x, y = map(plain, answer(window))
    if len(x) == len(window) or len(y) == len(window):
        fail(
            f"a window of {len(window)} tokens has {len(window) - 1} inputs and as many targets; "
            "yours has all tokens"
        )
    if close(x, window[:-2]) and close(y, window[2:]):
        fail("y is two tokens on; the target of an input is the very next token")
    if len(x) != len(y):
        fail(f"every input has one target: yours are {len(x)} inputs and {len(y)} targets")
    if close(x, y):
        fail("x and y are the same, so the model would only learn to copy; y is shifted by one")
    if close(x, window[1:]) and close(y, window[:-1]):
        fail("x and y are the wrong way round: the model would predict the token before")
    if not close(x, window[:-1]) or not close(y, window[1:]):
        fail(
            f"for the window {window[:4].tolist()} … "
            f"x should start with {window[0]} and y with {window[1]}"
        )
    if plain(answer(window[:2])) != [[window[0]], [window[1]]]:
        fail("the smallest window has two tokens: one input and its target")

# %% ../../nbs/exercises/loader.ipynb #7f6bb67f
@exercise(
    hint="Ten tokens and T = 3: windows start at 0, 3 and 6. "
    "Nine tokens and T = 3: only at 0 and 3."
)
def check_count_windows(answer):
    "The count is right for every length."
    T = int(np.random.default_rng().integers(3, 20))
    lengths = range(1, 6 * T)
    got = [plain(answer(n, T)) for n in lengths]
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
    if got == [-(-(n - 1) // T) for n in lengths]:
        fail(f"you rounded up: with {T + 2} tokens the second window of T={T} is not full")
    if got == [(n - 1) // T + 1 for n in lengths]:
        fail(f"one too many: {T} tokens make no window of T={T}, as its last target is missing")
    if got == [(n - 1) / T for n in lengths]:
        fail("a part of a window is not a window: round down with //")
    if got in ([n - T for n in lengths], [max(0, n - T) for n in lengths]):
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
    got = plain(answer(position, B, rank))
    if isinstance(got, int):
        fail(f"that is one position; a rank reads B={B} of them, so return a list")
    first = position + rank * B
    if len(got) != B:
        fail(f"a rank reads B={B} windows in a step, yours reads {len(got)}")
    if got == list(range(position, position + B)):
        fail("every rank reads the same windows; skip those of the lower ranks")
    if got == list(range(rank * B, rank * B + B)):
        fail("you start at 0 in every step; start at position")
    if got == list(range(position - rank * B, position - rank * B + B)):
        fail("you go backwards: the lower ranks read before this one, so add their windows")
    if got == list(range(first + B, first + 2 * B)):
        fail("rank 0 skips nobody: ranks are counted from 0")
    if got == list(range(position + rank, position + rank + B)):
        fail("you skip one window per lower rank; each of them reads B")
    if got != list(range(first, first + B)):
        fail(
            f"at position {position} with B={B}, rank {rank} reads {first} to {first + B - 1}; "
            f"yours reads {got}"
        )
    if plain(answer(position, B, 0)) != list(range(position, position + B)):
        fail(f"rank 0 begins at the position itself, {position}")
    if plain(answer(0, B, rank)) != list(range(rank * B, rank * B + B)):
        fail("position 0 is a position like any other")

# %% ../../nbs/exercises/loader.ipynb #ed2dd115
@exercise(hint="f(new_left) is f(right). What is new_right ^ f(right)?")
def check_undo_round(answer):
    "A round is undone, although f cannot be."
    rng = np.random.default_rng()
    table = rng.integers(1, 256, 256)  # never 0: it would change nothing

    def f(half):
        return int(table[half])

    rounds = []
    while len(rounds) < 8:
        left, right = (int(v) for v in rng.integers(1, 256, 2))
        new = left ^ f(right)
        mask = f(right)
        wrong = {new - mask, new + mask, new | mask, new & ~mask, new & mask, new, new ^ f(new)}
        if right not in (left, new) and len(wrong | {left}) == 8:  # each tells its mistake
            rounds.append((left, right))
    for left, right in rounds:
        new_left, new_right = right, left ^ f(right)
        got = tuple(plain(answer(new_left, new_right, f)))
        if got != (left, right):
            _name_round(got, left, right, f)


def _name_round(got, left, right, f):
    new_left, new_right = right, left ^ f(right)
    mask = f(new_left)
    if got in ((new_right - mask, right), (new_right + mask, right)):
        fail("^ is undone by ^ itself: minus or plus carries from one bit into the next")
    if got in ((new_right | mask, right), (new_right & ~mask, right), (new_right & mask, right)):
        fail("`|` and `&` lose bits: only ^ gives back what it was given")
    if got in ((left, left), (left, new_left ^ f(left)), (left, new_right)):
        fail("left is right; the old right half was passed on as it was, it is new_left")
    if got == (new_right ^ f(new_right), right):
        fail("you scrambled new_right; the round called f with the old right half, new_left")
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
    while position % n_windows in (
        0,
        steps * B,
        n_windows - 1,
    ):  # else two mistakes give one answer
        n_windows += 1
    got = tuple(plain(answer(steps, B, world_size, n_windows)))
    if got == (position, position // n_windows):
        return _borders(answer, steps, B, world_size)
    if got == (position // n_windows, position):
        fail("the two are swapped: the position first, then the epoch")
    if got == (position * n_windows, position) or got[0] == position * n_windows:
        fail("n_windows says how long an epoch is; it has no part in the position")
    if got[0] == steps * B:
        fail("you counted the windows of one rank; the position counts those of all ranks")
    if got[0] == position % n_windows:
        fail("the position goes on over all epochs; do not start again at 0")
    if got == (position, -(-position // n_windows)):
        fail("epochs are counted from 0: in the first one, the number is 0")
    if close(got, (position, position / n_windows)):
        fail("an epoch is a whole number: round down")
    want = (position, position // n_windows)
    fail(
        f"{steps} steps, B={B}, world_size={world_size}, n_windows={n_windows}: "
        f"expected {want}, got {got}"
    )


def _borders(answer, steps, B, world_size):
    position = steps * B * world_size
    got = tuple(plain(answer(steps, B, world_size, position)))
    if got != (position, 1):
        fail(
            f"after exactly one epoch of {position} windows the next window is in epoch 1, "
            f"the second one; you answered {got}"
        )
    got = tuple(plain(answer(steps, B, world_size, position + 1)))
    if got != (position, 0):
        fail(f"one window of epoch 0 is still to come: expected {(position, 0)}, got {got}")
    if (got := tuple(plain(answer(0, B, world_size, 10)))) != (0, 0):
        fail(f"before the first step the position is 0 and the epoch 0; you answered {got}")
