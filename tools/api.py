"""Write the API reference, a page for each room, from the signatures and docstrings of the library.

python tools/api.py            write book/api/<room>.qmd
python tools/api.py --check    change nothing; exit code 1 if a page is out of step

An entry is what the source says: the signature with its comments, which give shapes and units, and
the docstring. It links to the section of the chapter in which the reader builds it.
"""

import ast
import re
import sys
from pathlib import Path

from lists import ROOT, TIERS, Page, pages

FOLDER = ROOT / "book" / "api"
LONGEST = 8  # lines of a constant that are shown
# what a room turns into what: the table of book/design.qmd
ROOM = r"^\| `(\w+)` \| ([^|`]+) \|$"
ALONE = "package"  # the page of the modules that are in no room


def sections(text: str) -> list[tuple[int, str]]:
    "Find the anchors of a manuscript: where each section begins, and its name."
    code = [m.span() for m in re.finditer(r"(?ms)^```.*?^```", text)]
    found = re.finditer(r"(?m)^#+ .*\{#([\w-]+)", text)
    return [(m.start(), m[1]) for m in found if not any(a < m.start() < b for a, b in code)]


def built_in(name: str, text: str) -> str:
    "Name the section in which a manuscript defines something."
    begin = text.find("#| export: true")  # the cell that installs defines names too
    pattern = re.compile(rf"(?m)^(?:def |class |(?:\w+, )+)?{name}\b(?=[(:\[ =,])")
    place = pattern.search(text, max(begin, 0))
    before = [anchor for at, anchor in sections(text) if place and at < place.start()]
    return f"#{before[-1]}" if before else ""


def head(node: ast.AST, lines: list[str]) -> str:
    "Take a signature out of the source, its decorators and comments with it."
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    body = node.body[0].lineno - 1
    if isinstance(node, ast.ClassDef):
        doc = ast.get_docstring(node)
        made = next((n for n in node.body if getattr(n, "name", "") == "__init__"), None)
        fields = [n for n in node.body if isinstance(n, ast.AnnAssign)]
        last = node.body[0].end_lineno if doc and len(node.body) == 1 else body
        if fields:
            last = fields[-1].end_lineno
            shown = lines[first - 1 : body] + lines[node.body[bool(doc)].lineno - 1 : last]
            return "\n".join(shown)
        shown = lines[first - 1 : body]
        if made:
            shown = [*shown, *lines[made.lineno - 1 : made.body[0].lineno - 1]]
        return "\n".join(shown)
    shown = lines[first - 1 : body]
    cut = min((len(line) - len(line.lstrip()) for line in shown), default=0)
    return "\n".join(line[cut:] for line in shown)


def said(node: ast.AST) -> str:
    "The docstring as a paragraph or more; a sentence ends it."
    doc = (ast.get_docstring(node) or "").strip()
    return re.sub(r"([<{]|(?<!\w)@)", r"\\\1", doc)


def entry(name: str, anchor: str, node: ast.AST, source: str, link: str) -> list[str]:
    "Describe a function, a class with its methods, or a constant."
    lines = source.splitlines()
    out = [f"### `{name}` {{#{anchor}}}", ""]
    if not hasattr(node, "body"):
        code = lines[node.lineno - 1 : node.end_lineno]
        code = [*code[:LONGEST], "…"] if len(code) > LONGEST else code
        return [*out, "```python", *code, "```", "", link, ""]
    out += [said(node), "", "```python", head(node, lines), "```", "", link, ""]
    if isinstance(node, ast.ClassDef):
        for part in node.body:
            public = isinstance(part, ast.FunctionDef) and not part.name.startswith("_")
            if public and ast.get_docstring(part):
                words = said(part).replace("\n", "\n    ")
                out += [f"`{name}.{part.name}`", f":   {words}"]
                out += ["", "    ```python"]
                out += [f"    {line}" for line in head(part, lines).splitlines()]
                out += ["    ```", ""]
    return out


def module(page: Page) -> list[str]:
    "Describe what a module exports, in the order of its chapter."
    source = (ROOT / "gpt2edu" / f"{page.module.replace('.', '/')}.py").read_text(encoding="utf-8")
    text = (ROOT / "book" / page.tier / f"{page.name}.md").read_text(encoding="utf-8")
    tree, names = ast.parse(source), []
    nodes = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            nodes[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            assigned = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            nodes = dict.fromkeys(assigned, node) | nodes
            if assigned == ["__all__"]:
                names = ast.literal_eval(node.value)
    out = [f"## gpt2edu.{page.module} {{#{page.module.replace('.', '-')}}}", ""]
    out += [f"{ast.get_docstring(tree)} Chapter [{page.number}](../../{page.notebook}).", ""]
    for name in names:
        if name in nodes:
            kind = "chapter" if page.number.isdigit() else "appendix"
            at = f"../../{page.notebook}{built_in(name, text)}"
            anchor = f"{page.module.split('.')[-1]}-{name}"
            out += entry(
                name, anchor, nodes[name], source, f"[Built in {kind} {page.number}]({at})"
            )
    return out


def written() -> dict[Path, str]:
    "Each page as it should be."
    design = (ROOT / "book" / "design.qmd").read_text(encoding="utf-8")
    rooms = dict(re.findall(ROOM, design, re.M)) | {ALONE: "what serves several rooms"}
    rooms.pop("exercises")
    found = {room: [] for room in rooms}
    for page in (p for tier in TIERS for p in pages(tier) if p.module):
        room = page.module.split(".")[0] if "." in page.module else ALONE
        found[room] += module(page)
    about = "Every function and class, room by room, with the section that builds it."
    head = ['title: "API reference"', f'description: "{about}"', "toc: false"]
    out, index = {}, ["---", *head, "---", ""]
    all_but = "Every function and class of the library but the checks of the exercises"
    index += [f"{all_but}, with the section in which you build it."]
    index += ["The signatures are those of the source; their comments give shapes and units.", ""]
    for room, what in rooms.items():
        about = f'description: "{what[0].upper()}{what[1:]}: every function and class."'
        front = ["---", f'title: "API: {room}"', about, "toc-depth: 3", "---", ""]
        out[FOLDER / f"{room}.qmd"] = "\n".join([*front, *found[room]]).rstrip() + "\n"
        index.append(f"- [`{room}`]({room}.qmd): {what}")
    out[FOLDER / "index.qmd"] = "\n".join(index) + "\n"
    return out


def main():
    FOLDER.mkdir(exist_ok=True)
    pages = written()
    for path, text in pages.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            if "--check" in sys.argv:
                sys.exit(f"{path.relative_to(ROOT)} is out of step; python tools/api.py")
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
