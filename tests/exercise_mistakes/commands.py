"Classic mistakes for the exercises of ch21."

import re
from dataclasses import fields, replace


def read(kind, args, *, typed=True, equals=True, dashes=True, unknown="raise", split=1):
    types, values, args = {f.name: f.type for f in fields(kind)}, {}, list(args)
    while args:
        flag = args.pop(0)
        key, *value = flag.split("=", split) if equals else [flag]
        value = value[0] if value else args.pop(0)
        key = key.removeprefix("--")
        key = key.replace("-", "_") if dashes else key
        if key not in types:
            if unknown == "raise":
                raise ValueError(f"unknown flag --{key}")
            continue
        try:
            values[key] = types[key](value) if typed else value
        except ValueError:
            raise ValueError(f"{key}={value}: expected {types[key].__name__}") from None
    return kind(**values)


def nameless(kind, args):
    try:
        return read(kind, args)
    except ValueError:
        raise ValueError("wrong flag") from None


def ending(prog, e, *, lines=False, errno=False, code=2, keyboard=True, hide=False):
    if isinstance(e, KeyboardInterrupt) and keyboard:
        return 130, f"{prog}: interrupted"
    if isinstance(e, OSError) and e.filename and not errno:
        return code, f"{prog}: {e.filename}: {e.strerror}"
    if isinstance(e, (ValueError, OSError)) or hide:
        return code, f"{prog}: {e if lines else ' '.join(str(e).split())}"
    raise e


def auto(runs, name, *, pattern=None, key=None):
    pattern = pattern or rf"{re.escape(name)}(-\d+)?"
    found = [r for r in runs if re.fullmatch(pattern, r)]
    return max(found, key=key or runs.get, default=None)


def indexed(kind, args):
    known, values, i = {f.name: f.type for f in fields(kind)}, {}, 0
    while i < len(args):
        flag = args[i]
        if "=" in flag:
            flag, value = flag.split("=", 1)
        else:
            i += 1
            value = args[i]
        name = flag.lstrip("-").replace("-", "_")
        if name not in known:
            raise ValueError(f"--{name}?")
        try:
            values[name] = known[name](value)
        except ValueError as e:
            raise ValueError(f"{name}: {e}") from e
        i += 1
    return kind(**values)


def replaced(kind, args):
    result, queue = kind(), iter(args)
    for flag in queue:
        key, eq, value = flag[2:].partition("=")
        key, value = key.replace("-", "_"), value if eq else next(queue)
        for f in fields(kind):
            if f.name == key:
                break
        else:
            raise ValueError(f"there is no {key}")
        try:
            result = replace(result, **{key: f.type(value)})
        except ValueError:
            raise ValueError(f"{key} cannot be {value}") from None
    return result


def dash_is_flag(kind, args):
    if any(re.match("-[^-]", a) for a in args):
        raise ValueError("a value is missing")
    return read(kind, args)


def dashes_everywhere(kind, args):
    return read(kind, [a.replace("dark-rye", "dark_rye") for a in args])


def by_cases(prog, e):
    match e:
        case KeyboardInterrupt():
            return 130, ""
        case OSError(filename=name, strerror=why) if name:
            text = f"{name}: {why}"
        case OSError() | ValueError():
            text = str(e)
        case _:
            raise e
    return [2, prog + ": " + re.sub(r"\s+", " ", text)]


def reraised(prog, e):
    try:
        raise e
    except KeyboardInterrupt:
        return 130, f"{prog}: stopped"
    except (ValueError, OSError) as error:
        if getattr(error, "filename", None):
            return 2, f"{prog}: {error.filename}: {error.strerror}"
        return 2, " ".join(f"{prog}: {error}".split()) + "\n"


def by_table(prog, e):
    code = {True: 130}.get(isinstance(e, KeyboardInterrupt), 2)
    if code == 2 and not isinstance(e, ValueError | OSError):
        raise e
    parts = [str(getattr(e, a, None) or "") for a in ("filename", "strerror")]
    text = ": ".join(parts) if parts[0] else " ".join(str(e).split())
    return code, f"{prog}: {text}"


def only_missing(prog, e):
    if isinstance(e, OSError) and not isinstance(e, FileNotFoundError):
        return 1, str(e)
    return ending(prog, e)


def always_filename(prog, e):
    if isinstance(e, OSError):
        return 2, f"{prog}: {e.filename}: {e.strerror}"
    return ending(prog, e)


def by_prefix(runs, name):
    own = {
        r: t
        for r, t in runs.items()
        if r == name or (r[: len(name) + 1] == name + "-" and r[len(name) + 1 :].isdigit())
    }
    return max(own, key=own.get) if own else None


def looped(runs, name):
    best = None
    for run, time in runs.items():
        base, dash, number = run.rpartition("-")
        mine = run == name or (dash and base == name and number.isdecimal())
        if mine and (best is None or time > runs[best]):
            best = run
    return best


MISTAKES = {
    "check_read_flags": [
        (dash_is_flag, "raised"),
        (dashes_everywhere, "a dash in the value stays"),
        (lambda k, a: read(k, a, dashes=False), "num-loaves"),
        (lambda k, a: read(k, a, typed=False), "the type of its field"),
        (lambda k, a: read(k, a, equals=False), "your code raised"),
        (lambda k, a: read(k, a, unknown="skip"), "must not be passed over"),
        (lambda k, a: read(k, a, split=-1), "only the first"),
        (nameless, "should name num_loafs"),
        (lambda k, a: k(), "expected"),
    ],
    "check_ending": [
        (only_missing, "every OSError is the user's"),
        (always_filename, "neither filename nor strerror"),
        (lambda p, e: (0, "") if isinstance(e, KeyboardInterrupt) else ending(p, e), "128 + 2"),
        (lambda p, e: ending(p, e, code=1), "exit code 2"),
        (lambda p, e: ending(p, e, lines=True), "two lines"),
        (lambda p, e: ending(p, e, errno=True), "error numbers"),
        (lambda p, e: ending(p, e, keyboard=False), "came through"),
        (lambda p, e: ending(p, e, hide=True), "hid it"),
    ],
    "check_auto": [
        (lambda r, n: auto(r, n, pattern=".*"), "newest run of all"),
        (
            lambda r, n: max((x for x in r if x.startswith(n)), key=r.get, default=None),
            "only begins like",
        ),
        (lambda r, n: auto(r, n, key=lambda x: int("0" + x[5:])), "compare times"),
        (lambda r, n: n if n in r else None, "was written to later"),
        (lambda r, n: auto(r, n, pattern=rf"{n}(-\d+)?"), "not a pattern"),
        (lambda r, n: auto(r, n) or n, "return None"),
    ],
}

RIGHT = {
    "check_read_flags": [indexed, read, replaced],
    "check_ending": [by_cases, reraised, by_table],
    "check_auto": [
        auto,
        by_prefix,
        looped,
        lambda r, n: next(
            iter(
                sorted((x for x in r if re.fullmatch(re.escape(n) + r"(-[0-9]+)?", x)), key=r.get)[
                    ::-1
                ]
            ),
            None,
        ),
    ],
}
