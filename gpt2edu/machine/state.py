"""A file that a program wrote earlier is input like any other, and one reader checks it."""

# Made by tools/book.py from ../../book/easy/ch03e_state.md: edit that, then `make book`.

# %% auto #0
__all__ = ['Count', 'Hash', 'Filled', 'UNFIT', 'WORDS', 'SECRETS', 'TOKENS', 'refuse_word',
           'finite', 'whole', 'unique', 'loads', 'Number', 'in_words', 'shown', 'fits', 'within',
           'misfit', 'check', 'check_union', 'check_members', 'below', 'check_object', 'hints_of',
           'parse', 'read_json', 'without_secrets', 'hide_secrets']

# %% ../../nbs/easy/ch03e_state.ipynb #e8fbfbda
import json
import logging
import math
import os
import re
import sys
from dataclasses import is_dataclass
from functools import lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

# %% ../../nbs/easy/ch03e_state.ipynb #ba2b7f39
def refuse_word(word: str):
    "Refuse NaN and Infinity, which Python's reader accepts although JSON does not have them."
    raise ValueError(f"{word} is not a number of JSON")


def finite(digits: str) -> float:
    "Read a number with a point or an exponent. ValueError if it is too large for a float."
    if math.isinf(value := float(digits)):
        raise ValueError(f"the number {digits[:20]} is too large")
    return value


def whole(digits: str) -> int:
    "Read a whole number. ValueError if it has more digits than any of ours."
    if len(digits) > 400:
        raise ValueError("a number too long")
    return int(digits)


def unique(pairs: list[tuple[str, Any]]) -> dict:
    "Make an object of JSON. ValueError if a key is there twice."
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:40]!r} is there twice")
    return found


def loads(
    text: str | bytes,  # bytes are UTF-8, with or without a byte order mark
    nan: bool = False,  # whether NaN and Infinity are numbers, as in a loss
    strict: bool = True,  # False: a row of somebody's data, of which one text is wanted
) -> Any:
    "Read JSON strictly. ValueError, JSONDecodeError and UnicodeDecodeError among them."
    text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    hooks = {"parse_int": whole}
    if strict:
        hooks |= {"parse_float": finite, "object_pairs_hook": unique}
        hooks |= {} if nan else {"parse_constant": refuse_word}
    try:
        return json.loads(text, **hooks)
    except RecursionError:
        raise ValueError("nested too deeply") from None

# %% ../../nbs/easy/ch03e_state.ipynb #01004595
class Number(float):
    "A kind of number: any, NaN and infinity included."


Count = Annotated[int, 0]  # a whole number, 0 or more
Hash = Annotated[str, re.compile("[0-9a-f]{64}")]  # SHA-256, hex
Filled = Annotated[str, re.compile(r"\s*\S[\s\S]*")]  # with something in it
UNFIT = re.compile("[\0\ud800-\udfff]")  # what text may not hold: a zero byte, half a character
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
WORDS |= {NoneType: "null", Number: "a number or NaN", Any: "any value", list: "a list"}

# %% ../../nbs/easy/ch03e_state.ipynb #4eb2fff2
def in_words(kind: Any) -> str:
    "Say what a type expects."
    origin, args = get_origin(kind), get_args(kind)
    if kind == Filled:
        return "text that is not blank"
    if origin is Annotated and isinstance(args[1], re.Pattern):
        return f"text like {args[1].pattern}"
    if origin is Annotated:
        limits = f"{args[1]} or more" if len(args) == 2 else f"{args[1]} to {args[2]}"
        return f"{in_words(args[0])}, {limits}"
    if origin is Literal:
        return " or ".join(json.dumps(word) for word in args)
    if origin in (Union, UnionType):
        return " or ".join(in_words(member) for member in args)
    if origin in (list, tuple):
        return "a list"
    return WORDS.get(kind, "an object")


def shown(value: Any) -> str:
    "Write a value for a message: in one line, short, without control characters."
    if isinstance(value, (dict, list)) and value:
        what = "an object" if isinstance(value, dict) else "a list"
        return f"{what} of {len(value)}"
    text = json.dumps(value[:60] if isinstance(value, str) else value)
    return text if len(text) <= 40 else f"{text[:37]}..."

# %% ../../nbs/easy/ch03e_state.ipynb #b4fc06cc
def fits(value: Any, kind: Any) -> bool:
    "Whether a value that holds no others is of a type."
    if kind is Any:
        return True
    if kind is int:
        return type(value) is int and -(2**63) <= value < 2**64
    if kind is float:
        largest = sys.float_info.max
        return type(value) in (int, float) and -largest <= value <= largest
    if kind is Number:
        return fits(value, float) or (type(value) is float and not math.isfinite(value))
    if kind is str:
        return type(value) is str and not UNFIT.search(value)
    return type(value) is kind


def within(value: Any, limit: Any, most: Any = None) -> bool:
    "Whether a value keeps to what `Annotated` says: a pattern, or the least and the largest."
    if isinstance(limit, re.Pattern):
        return limit.fullmatch(value) is not None
    return limit <= value and (most is None or value <= most)


def misfit(value: Any, kind: Any, key: str) -> ValueError:
    "Name a key, what it holds and what was expected."
    return ValueError(f"{key or 'the whole'} is {shown(value)}, expected {in_words(kind)}")


def check(
    value: Any,  # what `loads` gave
    kind: Any,  # what it has to be
    key: str = "",  # where it stands, for messages
    others: bool = False,  # whether an object may hold keys that its type does not name
) -> Any:  # the value; lists are tuples where the type says so
    "Check a value against a type. ValueError: key, got, expected."
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        value = check(value, args[0], key, others)
        if not within(value, *args[1:]):
            raise misfit(value, kind, key)
        return value
    if origin in (Union, UnionType):
        return check_union(value, kind, key, others)
    if origin in (list, tuple, dict):
        return check_members(value, kind, key, others)
    if is_typeddict(kind) or is_dataclass(kind):
        return check_object(value, kind, key, others)
    if origin is Literal:
        fit = any(type(value) is type(word) and value == word for word in args)
    else:
        fit = fits(value, kind)
    if not fit:
        raise misfit(value, kind, key)
    return float(value) if kind is float else value

# %% ../../nbs/easy/ch03e_state.ipynb #1fa77a6b
def check_union(value: Any, kind: Any, key: str, others: bool) -> Any:
    "Take the first member that fits. ValueError."
    members = [m for m in get_args(kind) if m is not NoneType]
    if value is None and len(members) < len(get_args(kind)):
        return None
    for member in members:
        try:
            return check(value, member, key, others)
        except ValueError:
            if len(members) == 1 and isinstance(value, (dict, list)):
                raise
    raise misfit(value, kind, key)


def check_members(value: Any, kind: Any, key: str, others: bool) -> Any:
    "Check a list, or an object of any keys. ValueError."
    origin, args = get_origin(kind), get_args(kind)
    if type(value) is not (dict if origin is dict else list):
        raise misfit(value, kind, key)
    if origin is dict:
        for name in value:
            check(name, str, f"the key {name[:40]!r}")
        return {k: check(v, args[1], below(key, k), others) for k, v in value.items()}
    if origin is list or args[-1] is ...:
        args = (args[0],) * len(value)
    if len(args) != len(value):
        raise ValueError(f"{key} is a list of {len(value)}, expected {len(args)}")
    pairs = enumerate(zip(value, args, strict=True))
    return origin(check(v, k, f"{key}[{i}]", others) for i, (v, k) in pairs)


def below(key: str, name: str) -> str:
    "Name a key inside an object: `files.model`."
    name = name if name.isprintable() and len(name) <= 40 else shown(name)
    return f"{key}.{name}" if key else name


def check_object(value: Any, kind: type, key: str, others: bool) -> dict:
    "Check the keys that a dataclass or a TypedDict names. ValueError."
    if type(value) is not dict:
        raise misfit(value, kind, key)
    hints = hints_of(kind)
    optional = set() if is_dataclass(kind) else kind.__optional_keys__
    if missing := [k for k in hints if k not in value and k not in optional]:
        expected = in_words(hints[missing[0]])
        raise ValueError(f"{below(key, missing[0])} is missing, expected {expected}")
    if (extra := [k for k in value if k not in hints]) and not others:
        raise ValueError(f"{below(key, extra[0])} is a key that does not belong there")
    named = {k: hints[k] for k in value if k in hints}
    return value | {k: check(value[k], t, below(key, k), others) for k, t in named.items()}


@lru_cache(64)
def hints_of(kind: type) -> dict[str, Any]:
    "List the keys of a dataclass or a TypedDict, and their types without `NotRequired`."
    hints = get_type_hints(kind, include_extras=True)
    marks = (NotRequired, Required)
    return {k: get_args(h)[0] if get_origin(h) in marks else h for k, h in hints.items()}

# %% ../../nbs/easy/ch03e_state.ipynb #5b861daa
def parse(
    raw: bytes | str,
    kind: Any,  # what the JSON has to be
    where: str,  # names it in messages
    fix: str,  # what to do about it
    others: bool = False,  # whether objects may hold keys that their types do not name
    nan: bool = False,  # whether NaN and Infinity are numbers
    older: dict | None = None,  # keys that an older version did not write, and what they were
) -> Any:
    "Read JSON and check it. ValueError, one line: where, key, got, expected, fix."
    try:
        value = loads(raw, nan)
    except UnicodeDecodeError as e:
        raise ValueError(f"{where}: not UTF-8 at byte {e.start}; {fix}") from None
    except json.JSONDecodeError as e:
        raise ValueError(f"{where}: not JSON ({e.msg}, line {e.lineno}); {fix}") from None
    except ValueError as e:
        raise ValueError(f"{where}: not JSON ({e}); {fix}") from None
    try:
        return check(older | value if older and type(value) is dict else value, kind, "", others)
    except ValueError as e:
        raise ValueError(f"{where}: {e}; {fix}") from None


def read_json(path: Path, kind: Any, fix: str, **options) -> Any:
    "Read a file of JSON and check it (options: `parse`). ValueError, OSError: one line."
    return parse(Path(path).read_bytes(), kind, str(path), fix, **options)

# %% ../../nbs/easy/ch03e_state.ipynb #dd13b390
SECRETS = (  # what is kept, then what is not
    r"(?i)(authorization['\"]?\s*[:=]\s*)[^,;]+",
    r"(?i)(bearer )[^'\"\s]+",
    r"(Basic )(?=\S*[A-Z0-9=])[A-Za-z0-9+/=]{8,}",
    r"()\bhf_[A-Za-z0-9]{16,}\w*",
    r"(://)[^/\s]+(?=@)",
)
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")


def without_secrets(text: str) -> str:
    "Replace access tokens and passwords in a message."
    for name in TOKENS:
        if len(secret := os.environ.get(name, "").strip()) > 3:
            text = text.replace(secret, "***")
    for pattern in SECRETS:
        text = re.sub(pattern, r"\1***", text)
    return text

# %% ../../nbs/easy/ch03e_state.ipynb #40cf455a
def _mask(record: logging.LogRecord) -> bool:
    "Replace what a line of a log must not show."
    record.msg, record.args = without_secrets(record.getMessage()), None
    return True


def hide_secrets(logger: str):  # name of a library's logger
    "Mask access tokens and passwords in all lines that a library's handlers write from now on."
    for handler in logging.getLogger(logger).handlers:
        handler.addFilter(_mask)  # the same filter again changes nothing
