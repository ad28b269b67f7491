"""Keep the tables of flags in book/commands.qmd equal to the dataclasses that the commands read.

python tools/commands.py            write the tables between the markers
python tools/commands.py --check    change nothing; exit code 1 if a table is out of step
"""

import html
import inspect
import re
import sys
from dataclasses import fields, is_dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import get_type_hints

from gpt2edu.choices import in_words, options

PAGE = Path(__file__).resolve().parent.parent / "book" / "commands.qmd"


def typed(value):
    "A value as one types it."
    value = " ".join(map(str, value)) if isinstance(value, tuple) else value
    if "|" in str(value):  # in code, each renderer reads a bar of a table in its own way
        return f"<code>{html.escape(value).replace('|', '&#124;')}</code>"
    return "" if value is None or value == "" else f"`{'off' if value is False else value}`"


def own_flags(config):
    """A row for each of the class's own fields, a bold row for each comment that heads a group.

    A field's words stand beside it, or in the comment lines right above it, as tyro reads them.
    """
    default = {f.name: f.default for f in fields(config)}
    own, types, above = set(inspect.get_annotations(config)), get_type_hints(config), []
    source = inspect.getsource(config).split("    def ")[0].splitlines()
    for line, after in pairwise([*source, ""]):
        if comment := re.match(r"    # (.+)$", line):
            above.append(comment[1])
            if not after.strip():  # a group: its fields have words of their own
                yield f"**{above.pop()}**", "", ""
        elif (field := re.match(r"    (\w+): (?:.+?  # (.+)|.+)$", line)) and field[1] in own:
            name, words = field.groups()
            if words is not None:
                yield from ((f"**{group}**", "", "") for group in above)
            elif not above:
                raise SystemExit(f"{config.__name__}: no comment beside or above {name}")
            words, above = words or " ".join(above), []
            kinds = f"{in_words(options(types[name]))}; " if options(types[name]) else ""
            words = re.sub(r"[|<]", r"\\\g<0>", words)
            yield f"`--{name}`", typed(default[name]), kinds + words


def flags(config):
    "The rows of a class, and of each class it takes fields from that has no table of its own."
    tables = PAGE.read_text(encoding="utf-8")
    kinds = [kind for kind in reversed(config.__mro__) if is_dataclass(kind)]
    shown = {k for kind in kinds[:-1] if f".{kind.__name__} -->" in tables for k in kind.__mro__}
    for kind in kinds:
        if kind not in shown:
            yield from own_flags(kind)


def presets():
    "A row for each flag that a preset sets."
    from gpt2edu.train.config import PRESETS, TrainConfig

    for name in [f.name for f in fields(TrainConfig)]:
        if any(name in values for values in PRESETS.values()):
            yield f"`--{name}`", *(typed(values.get(name)) for values in PRESETS.values())


def fill(match):
    module, _, name = match[1].rpartition(".")
    found = getattr(import_module(module), name)
    head = (
        ["flag", *(f"`{n}`" for n in found)]
        if name == "PRESETS"
        else ["flag", "default", "what it does"]
    )
    rows = [head, ["---"] * len(head), *(presets() if name == "PRESETS" else flags(found))]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    kind = "wide" if name == "PRESETS" else "flags"
    table = f"::: {{.{kind}}}\n\n{table}\n\n:::"
    return f"<!-- table: {match[1]} -->\n\n{table}\n\n<!-- end -->"


if __name__ == "__main__":
    old = PAGE.read_text(encoding="utf-8")
    new = re.sub(r"<!-- table: (\S+) -->.*?<!-- end -->", fill, old, flags=re.S)
    if new != old and "--check" in sys.argv:
        sys.exit(
            "book/commands.qmd: a table is not that of its dataclass; run python tools/commands.py"
        )
    PAGE.write_text(new, encoding="utf-8")
