"Classic mistakes for the exercises of ch20."

import re
from dataclasses import fields


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


MISTAKES = {
    "check_read_flags": [
        (lambda k, a: read(k, a, typed=False), "the type of its field"),
        (lambda k, a: read(k, a, equals=False), "your code raised"),
        (lambda k, a: read(k, a, unknown="skip"), "must not be passed over"),
        (lambda k, a: read(k, a, split=-1), "only the first"),
        (nameless, "should name num_loafs"),
        (lambda k, a: k(), "expected"),
    ],
    "check_ending": [
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
