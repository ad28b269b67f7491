"""Read flags from a dataclass with tyro, and answer a mistake with one line and exit code 2."""

# Made by tools/book.py from ../../book/tough/ch21a_flags.md: edit that, then `make book`.

# %% auto #0
__all__ = ['SHELLS', 'Switch', 'WRONG_WORD', 'NO_NUMBER', 'NUMBERS', 'PLACES', 'CONTROL', 'General',
           'Report', 'versions', 'take_flag', 'is_rule', 'one_line', 'whole_number', 'at_home',
           'with_file', 'colours', 'check_shell', 'side_by_side', 'parse_both', 'parse', 'strict',
           'answer', 'prepare_output', 'visible', 'complain', 'in_one_line', 'check_folder',
           'run_and_flush', 'settle_output', 'is_out_of_memory', 'verdict', 'command']

# %% ../../nbs/tough/ch21a_flags.ipynb #b1561f72
import contextlib
import functools
import io
import itertools
import json
import math
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass
from decimal import Decimal
from importlib import metadata
from typing import Annotated, Any

import tyro

from gpt2edu.choices import refusal
from gpt2edu.cli.settings import as_flags, read_settings
from gpt2edu.machine.signals import (
    Stopped,
    ignore_from_now_on,
    leave,
    raised_before,
    undisturbed,
    why,
)
from gpt2edu.machine.state import without_secrets

# %% ../../nbs/tough/ch21a_flags.ipynb #dbcc31fd
SHELLS = (["bash"], ["zsh"], ["fish"], ["tcsh"])  # for which tyro writes a completion
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]  # --json, without a --no_json


@dataclass(frozen=True)
class General:
    "For the command itself."

    # flags from a .toml or .json file; those typed here win
    config: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    version: Switch = False  # say the versions of gpt2edu, Python and torch, and stop


@dataclass(frozen=True)
class Report(General):
    "For the command itself."

    json: Switch = False  # print one JSON object and nothing else; messages go to standard error


def versions() -> str:
    "Name the versions in use, in one line, without loading PyTorch."
    import gpt2edu

    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch = "not installed"
    return f"gpt2edu {gpt2edu.__version__}, Python {platform.python_version()}, torch {torch}"


def take_flag(
    args: list[str], name: str, bare: str
) -> tuple[str | None, list[str]]:  # its value; the other arguments
    "Take one flag out of the arguments, all of its uses; without a value it means `bare`."
    found = None
    rest = []
    i = 0
    while i < len(args):
        key, eq, value = args[i].partition("=")
        i += 1
        if key.replace("-", "_") != f"__{name}":
            rest.append(args[i - 1])
        elif eq or i == len(args) or args[i].startswith("--"):
            found = (value or bare) if eq else bare
        else:
            found = args[i]
            i += 1
    return found, rest  # of several, the last counts

# %% ../../nbs/tough/ch21a_flags.ipynb #04d20752
# two of tyro's messages
WRONG_WORD = re.compile(r"invalid choice '(.*)' for argument '--(\w+)'\. Expected one of (\(.*\))")
NO_NUMBER = re.compile(r"no type matching INT could be instantiated from \['(.*?)'\]")


def is_rule(line: str) -> bool:
    "Whether a line is one long dash (tyro writes plain dashes if the output is not UTF-8)."
    return len(line) > 5 and not line.strip("─-")


def one_line(
    box: str,  # what tyro prints: text in a frame, then a rule, then hints
) -> str:
    "Take the message out of tyro's frame."
    box = re.sub(r"\x1b\[[\d;]*m", "", box)
    lines = [line.strip("│╭╮╰╯+| ") for line in box.splitlines()[1:]]  # the first line is a title
    lines = list(itertools.dropwhile(is_rule, lines))
    text = " ".join(itertools.takewhile(lambda line: not is_rule(line), lines))
    text = re.sub(r"^Error parsing (\w+: )?", "", text).replace("{None}|", "")
    if choice := WRONG_WORD.match(text):
        words = tuple(word for word in re.findall(r"'(.*?)'", choice[3]) if word != "None")
        return refusal(choice[2], choice[1], words)
    text = NO_NUMBER.sub(r"expected a whole number, got '\1'", text)
    if "Perhaps you meant:" in lines:
        text += f"; did you mean {lines[lines.index('Perhaps you meant:') + 1].split()[0]}?"
    return text.split(" Got errors:")[0].rstrip(" .") or box.strip()


NUMBERS = tyro.constructors.ConstructorRegistry()


@NUMBERS.primitive_rule
def whole_number(info):
    "Let a whole number be written as 1e9 or 10_000 too."

    def read(words: list[str]) -> int:
        try:
            if abs(value := Decimal(words[0])) >= 2**63:
                raise ValueError(f"{words[0]} is too large, expected less than 2^63")
            if value == int(value):
                return int(value)
        except ArithmeticError:  # not a number at all
            pass
        raise ValueError(f"expected a whole number, got {words[0]!r}")

    if info.type is int:
        spec = tyro.constructors.PrimitiveConstructorSpec
        return spec(1, "INT", read, lambda x: type(x) is int, lambda x: [str(x)])

# %% ../../nbs/tough/ch21a_flags.ipynb #f3dd82d6
# flags that name a file or a folder, or may name one
PLACES = frozenset(
    """config resume run model out_dir data_dir out init_from questions reward hellaswag
    data""".split()
)


def at_home(
    args: list[str],
) -> list[str]:  # --out_dir=~/runs becomes --out_dir=/home/mia/runs
    "Write the home directory for a ~ that the shell has left in a place."
    found, is_place = [], False
    for arg in args:
        if arg.startswith("--"):
            flag, eq, value = arg.partition("=")
            is_place = flag[2:].replace("-", "_") in PLACES
            arg = f"{flag}={os.path.expanduser(value)}" if eq and is_place else arg
        elif is_place:
            arg = os.path.expanduser(arg)
        found.append(arg)
    return found


def with_file(
    kind: type,  # a dataclass
    args: list[str],
    prog: str,
) -> tuple[dict[str, Any], list[str]]:  # what the file of --config sets; the other arguments
    "Take --config out of the arguments and read its file. ValueError, OSError: one line."
    path, args = take_flag(at_home(args), "config", "")
    if path == "":
        raise ValueError(
            "--config got no file; "
            "name a .toml or .json file of flags, for example --config run.toml"
        )
    values = {} if path is None else read_settings(path, kind, prog)
    there = {k: v for k, v in values.items() if k in PLACES and isinstance(v, str)}
    return values | {k: os.path.expanduser(v) for k, v in there.items()}, args


@contextlib.contextmanager
def colours():
    "Let tyro write in colour, unless NO_COLOR (no-color.org) is set, and in 40 columns or more."
    tyro._experimental_options["ansi_codes"] = not os.environ.get("NO_COLOR")
    before = os.environ.get("COLUMNS")
    # with very few columns tyro loops for ever
    os.environ["COLUMNS"] = str(max(40, shutil.get_terminal_size().columns))
    try:
        yield
    finally:
        tyro._experimental_options["ansi_codes"] = True
        os.environ.pop("COLUMNS")
        os.environ.update({} if before is None else {"COLUMNS": before})


def check_shell(args: list[str]):
    "Refuse a request for completion that names no shell. ValueError, one line."
    asks = args[:1] in (["--tyro-print-completion"], ["--tyro-write-completion"])
    if asks and args[1:2] not in SHELLS:
        raise ValueError(
            f"{args[0]} needs the name of a shell: bash, zsh, fish or tcsh; "
            f"for example {args[0]} bash"
        )


def side_by_side(kind: type, general: type, default) -> type:
    "Put two dataclasses into one, without prefixes before their flags."
    # the docstring of `kind` appears above all flags, so its own group needs none
    own = Annotated[tyro.conf.OmitArgPrefixes[kind], tyro.conf.arg(help="")]
    command = ("command", own, field(default_factory=lambda: default or kind()))
    others = ("general", tyro.conf.OmitArgPrefixes[general], general())
    return make_dataclass("Flags", [command, others], frozen=True)


def parse_both(
    kind: type,  # a dataclass; each field is a flag
    general: type,  # `General`, or a dataclass that adds flags to it
    args: list[str],  # without the program's name
    prog: str,
    default=None,  # an instance of `kind`: values of the flags that are not given
) -> tuple[Any, General]:  # an instance of each
    "Read flags, and the file of --config. ValueError, OSError: one line."
    check_shell(args)
    if "--version" in args:
        sys.stdout.write(f"{versions()}\n")
        sys.exit(0)
    values, args = with_file(kind, args, prog)
    typed = [*as_flags(values), *args]
    both = side_by_side(kind, general, default)
    options = {"prog": prog, "description": kind.__doc__, "use_underscores": True}
    caught = io.StringIO()

    def read():
        with contextlib.redirect_stderr(caught), NUMBERS, colours():
            return tyro.cli(both, args=typed, **options)

    try:
        found = undisturbed(read)  # a signal halfway into `with` would leave stderr redirected
        return found.command, found.general
    except SystemExit as e:
        if e.code:
            raise ValueError(f"{one_line(caught.getvalue())}; see {prog} --help") from None
        raise


def parse(
    kind: type,  # a dataclass; each field is a flag
    args: list[str],  # without the program's name
    prog: str,
):  # an instance of `kind`
    "Read the flags of one dataclass. ValueError, OSError: one line."
    return parse_both(kind, General, args, prog)[0]

# %% ../../nbs/tough/ch21a_flags.ipynb #cf5e3761
def strict(value: Any) -> Any:
    "Replace NaN and infinite numbers by None, at any depth: they are not JSON."
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def answer(
    work: Callable,  # prints lines, returns the result; None: this rank prints nothing
    as_json: bool,
) -> None:
    "Do a command's work; with `as_json`, only its result goes to standard output."
    if not as_json:
        work()
        return
    with contextlib.redirect_stdout(sys.stderr):
        found = work()
    if found is not None:
        sys.stdout.write(json.dumps(strict(found), indent=2, allow_nan=False) + "\n")

# %% ../../nbs/tough/ch21a_flags.ipynb #5334b605
def prepare_output():
    "Make the streams safe: one may be closed (`>&-`), or a terminal lack a character."
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w", encoding="utf-8")
        setattr(sys, name, stream)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    "Replace control characters, which a terminal would obey, and access tokens."
    return CONTROL.sub("\ufffd", without_secrets(text))


def complain(line: str):
    "Write a line to standard error, if it can be written."
    try:
        sys.stderr.write(f"{visible(line)}\n")
        sys.stderr.flush()
    except OSError:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")


def in_one_line(e: ValueError | OSError) -> str:
    "Word a user's error for standard error; an error of the system names its file."
    text = e.args[1] if isinstance(e, OSError) and len(e.args) > 1 else e
    text = " ".join(str(text).split())
    return f"{e.filename}: {text}" if isinstance(e, OSError) and e.filename else text


def check_folder():
    "Refuse to work in a folder that somebody has removed. FileNotFoundError, one line."
    try:
        os.getcwd()
    except FileNotFoundError:
        raise FileNotFoundError("the current folder is no longer there; cd to another") from None


def run_and_flush(run: Callable, args: list[str]):
    "Do a command's work, all of its output included."
    try:
        run(args)
    except SystemExit as e:
        if not e.code:  # of --help
            sys.stdout.flush()
        raise
    sys.stdout.flush()


def settle_output():
    "Flush standard output, or discard what cannot be written."
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def is_out_of_memory(e: MemoryError | RuntimeError) -> bool:
    "Whether Python, PyTorch on a CPU or a GPU ran out of memory."
    if isinstance(e, MemoryError) or type(e).__name__ == "OutOfMemoryError":
        return True
    return "allocate memory" in str(e)


def verdict(
    e: BaseException,
) -> tuple[str | None, int] | None:  # a line for standard error; exit code. None: a bug of ours
    "Say how a command ends after an exception."
    # Python 3.11 wraps one that leaves `__set_name__`, and libraries make their own error of one
    for stopped in (e, e.__cause__, raised_before(e)):
        if isinstance(stopped, KeyboardInterrupt | Stopped):
            return why(stopped)
    if isinstance(e, BrokenPipeError):  # the reader has left, as `head` does
        return None, 0
    # an error of the system's without a file
    if isinstance(e, OSError) and e.errno and not e.filename:
        if e.strerror == os.strerror(e.errno):
            return f"cannot write the output ({e.strerror}); send it to another place", 2
    if isinstance(e, MemoryError | RuntimeError):
        if not is_out_of_memory(e):
            return None
        return "out of memory; take a smaller model, context or batch", 2
    return (in_one_line(e), 2) if isinstance(e, ValueError | OSError) else None


def command(
    run: Callable,  # takes the list of arguments
    prog: str | None = None,  # how errors call it; by default gpt2edu_ and the function's name
) -> Callable:
    "Make a console script: a mistake of the user ends it with one line and exit code 2."
    prog = prog or f"gpt2edu_{run.__name__.strip('_')}"

    @functools.wraps(run)
    def script(args: list[str] | None = None):
        undisturbed(prepare_output)  # a signal halfway into `reconfigure` would leave no encoder
        code = 0
        try:
            check_folder()
            run_and_flush(run, sys.argv[1:] if args is None else args)
        except BaseException as e:  # after a signal it may be anything
            if (found := verdict(e)) is None:
                raise
            line, code = found
            settle_output()
            if line:
                complain(f"{prog}: {line}")
        finally:
            if args is None:  # a console script has finished; only Python's own end remains
                ignore_from_now_on()
        if args is None:
            leave(code)
        if code:
            sys.exit(code)

    return script
