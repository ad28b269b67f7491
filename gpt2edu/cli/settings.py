"""Read a TOML or JSON file as flags that were typed first: check them, then let later ones win."""

# Made by tools/book.py from ../../book/tough/ch21b_settings.md: edit that, then `make book`.

# %% auto #0
__all__ = ['members', 'convert', 'name_of', 'read_file', 'check_key', 'checked', 'read_settings',
           'as_flags']

# %% ../../nbs/tough/ch21b_settings.ipynb #e92134f0
import difflib
import json
import tomllib
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from gpt2edu.choices import in_words, options
from gpt2edu.machine.state import loads

# %% ../../nbs/tough/ch21b_settings.ipynb #8639acb8
def members(
    kind: Any,  # a type, for example `str | None`
) -> tuple:  # (str, NoneType)
    "List the types of a union; of any other type, itself."
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def convert(
    value: Any,  # as TOML or JSON has it
    kind: Any,  # a type without alternatives
) -> Any:
    "Return the value that a field of this type stores. TypeError if its type differs."
    # neither a bool nor NaN nor infinite
    number = type(value) in (int, float) and abs(value) < 2**63
    if kind is NoneType and (value is None or value == "None"):
        return None
    if kind is float and number:
        return float(value)
    if kind is int and number and value == int(value):
        return int(value)
    if kind in (bool, str) and type(value) is kind:
        return value
    if value in options(kind):
        return value
    if get_origin(kind) is tuple and type(value) is list:
        return tuple(convert(item, get_args(kind)[0]) for item in value)
    raise TypeError


def name_of(
    kind: Any,  # a type without alternatives
) -> str:  # "a whole number"
    "Say in words what a field of this type takes."
    known = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if get_origin(kind) is tuple:
        return f"a list of {name_of(get_args(kind)[0])}"
    return f"one of {in_words(options(kind))}" if options(kind) else known[kind]

# %% ../../nbs/tough/ch21b_settings.ipynb #67153f56
def read_file(path: str) -> dict[str, Any]:
    "Read a TOML or JSON file. ValueError, OSError: one line that names the file."
    suffix = Path(path).suffix.lower()
    if suffix not in (".toml", ".json"):
        raise ValueError(f"--config {path}: expected a file that ends in .toml or .json")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise ValueError(f"{path}: not UTF-8 (byte {e.start}); save it as UTF-8") from None
    except (OSError, ValueError) as e:  # ValueError: a name with a zero byte
        why = e.strerror if isinstance(e, OSError) else e
        raise FileNotFoundError(
            f"--config {path}: {why}; expected a .toml or .json file of flags"
        ) from None
    try:
        if suffix == ".toml":
            found = tomllib.loads(text)
        else:
            found = loads(text)
    except (ValueError, RecursionError) as e:
        why = "nested too deeply" if isinstance(e, RecursionError) else " ".join(str(e).split())
        raise ValueError(
            f"{path}: not {suffix[1:].upper()} ({why[:200]}); correct it, or leave --config out"
        ) from None
    if not isinstance(found, dict):
        raise ValueError(
            f"{path}: holds {json.dumps(found)[:40]}, "
            "expected an object with the names of flags as keys"
        )
    return found


def check_key(path: str, key: str, value: Any, types: dict[str, Any], prog: str):
    "Refuse a key that is not the name of a flag. ValueError, one line."
    name = key.replace("-", "_")
    if name in types:
        return
    what = f"unknown key {key!r}"
    if isinstance(value, dict):
        what = f"[{key}] is a table; write flags without one"
    near = difflib.get_close_matches(name, types, 1)
    fix = f"{prog} --help lists the flags, whose names are the keys"
    if near:
        fix = f"did you mean {near[0]}?"
    raise ValueError(f"{path}: {what}; {fix}")


def checked(path: str, name: str, value: Any, kind: Any, default: Any) -> Any:
    "Return the value that the field stores. ValueError, one line, if its type differs."
    for member in members(kind):
        try:
            found = convert(value, member)
        except TypeError:
            continue
        for item in found if isinstance(found, tuple) else ():
            if str(item).startswith("--"):
                raise ValueError(f"{path}: {name} has {item!r}; a flag is a key of its own")
        return found
    expected = " or ".join(name_of(m) for m in members(kind) if m is not NoneType)
    example = f"; for example {name} = {json.dumps(default)}" if default is not None else ""
    got = json.dumps(value, default=str)
    got = got if len(got) <= 60 else f"{got[:57]}..."
    raise ValueError(f"{path}: {name} = {got}, expected {expected}{example}")


def read_settings(
    path: str,  # a .toml or .json file
    kind: type,  # the dataclass whose fields are the keys; n-layer is n_layer
    prog: str,  # the command, for its --help
) -> dict[str, Any]:  # field: value, checked
    "Read a file of flags. ValueError, OSError: one line that names file and key."
    types = get_type_hints(kind)
    values = {}
    for key, value in read_file(path).items():
        name = key.replace("-", "_")
        if name in values:
            raise ValueError(
                f"{path}: {name} is there twice, with dashes and with underscores; keep one"
            )
        check_key(path, key, value, types, prog)
        values[name] = checked(path, name, value, types[name], getattr(kind, name, None))
    return values

# %% ../../nbs/tough/ch21b_settings.ipynb #e46b421b
def as_flags(
    values: dict[str, Any],
) -> list[str]:  # ["--n_layer=2", "--dry_run", "--dataset", "a.txt", "b.txt"]
    "Write settings as one would type them."
    args = []
    for name, value in values.items():
        if isinstance(value, bool):
            args.append(f"--{name}" if value else f"--no_{name}")
        elif isinstance(value, tuple):
            args += [f"--{name}={value[0]}"] if len(value) == 1 else [f"--{name}", *value]
        else:
            args.append(f"--{name}={value}")
    return args
