"""Checks for the exercises of ch21."""

# Made by tools/book.py from ../../book/exercises/commands.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_read_flags', 'check_ending', 'check_auto']

# %% ../../nbs/exercises/commands.ipynb #5a2f64b2
import random
from dataclasses import make_dataclass

from gpt2edu.exercises.core import exercise, fail
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/commands.ipynb #a32e0b31
quiz = Quiz(
    Question(
        "A launcher starts the same line again after every crash. Which flag must the line have, "
        "and why?",
        right=(
            "`--resume auto`, which also works when there is no run yet",
            "The first start must begin a run and the later ones must resume it; `auto` does both.",
        ),
        wrong=(
            (
                "`--resume`, which takes the run that was written last",
                "The first start finds no run and ends with an error; later ones may take another.",
            ),
            (
                "`--name`, which makes the later starts find the old folder",
                "A name alone begins a run, and a second run of that name is refused.",
            ),
        ),
    ),
    Question(
        "A command catches every exception, prints one friendly line and exits with 2. "
        "What does its user lose?",
        right=(
            "the traceback of a bug in the program",
            "A mistake of the program then looks like one of the user, and nobody can find it.",
        ),
        wrong=(
            (
                "nothing, as a traceback helps no user of it",
                "It helps the one who repairs the program, so a user can report it.",
            ),
            (
                "the exit code, since an exception always ends with 1",
                "An exit code can be chosen: the command here does exit, with 2.",
            ),
        ),
    ),
    Question(
        "`wide.toml` says `max_tokens = 1e6`, and you add `--max_steps 10` to "
        "`--config wide.toml`. How long does the run last?",
        right=(
            "10 steps: the typed horizon replaces the other",
            "Exactly one horizon holds, and what you type wins over the file.",
        ),
        wrong=(
            (
                "a million tokens: a file is read after the flags",
                "The file becomes flags in front of yours, so what you type comes last and wins.",
            ),
            (
                "until the earlier of the two ends is reached",
                "Two horizons never hold together: one replaces the other.",
            ),
            (
                "not at all: two horizons are refused",
                "Two typed ones are refused; one that is typed replaces that of the file.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/commands.ipynb #c65bb7b8
@exercise(
    hint="Walk through args with an index. "
    "Split at '=', take off the dashes in front, turn '-' into '_', then call the field's type."
)
def check_read_flags(answer):
    "Reads flags in all four spellings, gives each its type, and names what it does not know."
    n = random.randint(2, 99)
    rate = random.choice([0.25, 0.5, 1.5])
    word = random.choice(["tiny", "small"])
    fields = [("num_loaves", int, 1), ("rate", float, 1.0), ("name", str, "rye")]
    Bread = make_dataclass("Bread", fields, frozen=True)
    want = Bread(n, rate, word)
    for args in (
        ["--num_loaves", str(n), "--rate", str(rate), "--name", word],
        [f"--num_loaves={n}", f"--rate={rate}", f"--name={word}"],
        ["--num-loaves", str(n), f"--rate={rate}", "--name", word],
        [f"--name={word}", f"--num-loaves={n}", "--rate", str(rate)],
    ):
        got = answer(Bread, args)
        numbers = (getattr(got, "num_loaves", n), getattr(got, "rate", rate))
        if any(isinstance(number, str) for number in numbers):
            fail(f"{args}: values are text when they arrive; give each the type of its field")
        if got != want:
            fail(f"{args}: expected {want}, got {got}")
    for args, want, message in (
        ([], Bread(), "no flags at all: expected the defaults"),
        (["--name=a=b"], Bread(name="a=b"), "only the first '=' parts the flag from its value"),
        (["--name=dark-rye"], Bread(name="dark-rye"), "a dash in the value stays"),
        (["--rate", "-1.5"], Bread(rate=-1.5), "a value may begin with a dash"),
        (["--name="], Bread(name=""), "nothing behind the '=' is the empty text"),
    ):
        if (got := answer(Bread, args)) != want:
            fail(f"{args}: {message}; got {got}")
    for args, part in (
        (["--num_loafs", "3"], "num_loafs"),
        (["--num_loaves", "many"], "num_loaves"),
    ):
        try:
            got = answer(Bread, args)
        except ValueError as e:
            if part not in str(e):
                fail(f"{args}: the message should name {part}; it says {str(e)!r}")
        except Exception as e:  # noqa: BLE001
            fail(f"{args}: a user's mistake is a ValueError, not {type(e).__name__}")
        else:
            fail(f"{args}: you returned {got}; a flag that is wrong must not be passed over")

# %% ../../nbs/exercises/commands.ipynb #afc5b9b3
@exercise(
    hint="isinstance(e, (ValueError, OSError)) means the user; "
    '" ".join(text.split()) makes one line; everything else: raise e.'
)
def check_ending(answer):
    "The user's mistakes are one line and 2, Ctrl-C is 130, and our own bugs stay visible."
    n = random.randint(2, 99)
    code, line = answer("bake", ValueError(f"eggs={n} is\n  too many"))
    if code != 2:
        fail(f"a ValueError is the user's mistake: exit code 2, got {code!r}")
    if "\n" in line.rstrip("\n"):
        fail("two lines: a message may hold line breaks, and a log is read line by line")
    if line.strip() != f"bake: eggs={n} is too many":
        fail(f"expected 'bake: eggs={n} is too many', got {line!r}")
    code, line = answer("bake", FileNotFoundError(2, "No such file or directory", f"flour{n}.txt"))
    if "Errno" in line:
        fail(f"{line!r}: a user does not know error numbers; use e.filename and e.strerror")
    if code != 2 or line.strip() != f"bake: flour{n}.txt: No such file or directory":
        fail(
            f"a missing file: expected code 2 and 'bake: flour{n}.txt: "
            f"No such file or directory', got {code!r} and {line!r}"
        )
    denied = PermissionError(13, "Permission denied", f"oven{n}")
    if tuple(answer("bake", denied)) != (2, f"bake: oven{n}: Permission denied"):
        fail("every OSError is the user's, not only a missing file: code 2 and one line")
    code, line = answer("bake", FileNotFoundError(f"no oven {n}; buy one"))
    if (code, line.strip()) != (2, f"bake: no oven {n}; buy one"):
        fail(
            "an OSError with a text of ours has neither filename nor strerror; "
            f"got {code!r} and {line!r}"
        )
    try:
        got = answer("bake", KeyboardInterrupt())
    except KeyboardInterrupt:
        fail("Ctrl-C came through as a traceback; the user has asked for the end: code 130")
    if got[0] != 130:
        fail(f"Ctrl-C ends a program with 128 + 2 = 130, got {got[0]!r}")
    bug = TypeError("unsupported operand")
    try:
        got = answer("bake", bug)
    except TypeError:
        return
    fail(
        f"a TypeError is a bug of ours, and you hid it behind {got!r}: "
        "raise it, so that it can be found"
    )

# %% ../../nbs/exercises/commands.ipynb #c83fbfc4
@exercise(
    hint=r"re.fullmatch(rf'{re.escape(name)}(-\d+)?', run) says whether a folder "
    r"belongs to the name; then max by time."
)
def check_auto(answer):
    "Finds the run that a launcher should resume, or returns None before the first."
    t = random.randint(1000, 9000)
    runs = {
        "tiny": t,
        "tiny-2": t + 50,
        "tiny-10": t + 20,
        "tiny-big": t + 900,
        "tinyx": t + 950,
        "small": t + 990,
    }
    got = answer(runs, "tiny")
    if got in ("tiny-big", "tinyx"):
        fail(
            f"{got!r} only begins like 'tiny'; a run of that name is 'tiny', or 'tiny-' and digits"
        )
    if got == "small":
        fail("the newest run of all may be another experiment; look at the name first")
    if got == "tiny-10":
        fail(
            "the highest number is not the newest: "
            "an older run can have been resumed since; compare times"
        )
    if got == "tiny":
        fail("'tiny-2' was written to later than 'tiny'")
    if got != "tiny-2":
        fail(f"of {runs}: expected 'tiny-2', got {got!r}")
    if (got := answer({"a.b": t, "axb": t + 5}, "a.b")) != "a.b":
        fail(
            "a name is text, not a pattern: "
            f"the dot in 'a.b' does not mean any character; got {got!r}"
        )
    if (got := answer({"small": t}, "tiny")) is not None:
        fail(f"no run of that name yet: return None, so that one is begun; got {got!r}")
    if (got := answer({}, "tiny")) is not None:
        fail(f"no runs at all: return None; got {got!r}")
