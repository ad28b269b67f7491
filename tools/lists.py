"""Write every list of chapters from the manuscripts: sidebar, course page, README.

A manuscript's heading, its `>` line and its module are read where they stand, so adding a chapter,
or a module, is adding its manuscript.

python tools/lists.py            write the lists between their marks
python tools/lists.py --check    change nothing; exit code 1 if a list is out of step
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TIERS = ("easy", "medium", "tough")
REPOSITORY = "https://github.com/gpt2edu/gpt2edu/blob/main"


class Page(NamedTuple):
    "What a list says of a manuscript."

    tier: str
    name: str  # file name without suffix
    number: str  # "17", or "17a" for an appendix
    title: str
    goal: str  # what the reader has at the end
    module: str  # without the package's name; "" if it exports nothing

    @property
    def notebook(self) -> str:
        return f"nbs/{self.tier}/{self.name}.ipynb"


def read(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    number = re.match(r"ch0?(\d+[a-z]?)_", path.stem)[1]
    title = re.search(r"^# (?:Appendix \w+: )?(.+)$", text, re.M)[1]
    goal = re.search(r"^> (.+)\.$", text, re.M)[1]
    module = re.search(r"^#\| default_exp: (\S+)", text, re.M)
    return Page(path.parent.name, path.stem, number, title, goal, module[1] if module else "")


def pages(tier: str) -> list[Page]:
    "The manuscripts of a tier: each chapter, then its appendices."
    return [read(p) for p in sorted((ROOT / "book" / tier).glob("ch*.md"), key=lambda p: p.stem)]


def chapters(tier: str) -> list[tuple[Page, list[Page]]]:
    "Each chapter with its appendices."
    every = pages(tier)
    own = {p.number: [] for p in every if p.number.isdigit()}
    for p in every:
        if not p.number.isdigit():
            own[p.number[:-1]].append(p)
    return [(p, own[p.number]) for p in every if p.number.isdigit()]


# the lists


def sidebar() -> str:
    "Sections of _quarto.yml: a chapter's appendices stand below it."
    lines = []
    for tier in TIERS:
        lines += [f"      - section: {tier.capitalize()}", "        contents:"]
        for chapter, appendices in chapters(tier):
            lines.append(f"          - {chapter.notebook}")
            if appendices:
                lines.append(f"          - section: Appendices of chapter {chapter.number}")
                lines.append("            contents:")
                lines += [f"              - {p.notebook}" for p in appendices]
    return "\n".join(lines)


def checks() -> str:
    "The section of the pages that check the exercises."
    names = sorted(p.stem for p in (ROOT / "book" / "exercises").glob("*.md"))
    lines = ["      - section: Checks of the exercises", "        contents:"]
    return "\n".join([*lines, *(f"          - nbs/exercises/{name}.ipynb" for name in names)])


def course(tier: str) -> str:
    "A table of the course page."
    rows = ["| | Chapter | Module | What you have at the end |", "|---:|:---|:---|:---|"]
    for chapter, appendices in chapters(tier):
        for p in (chapter, *appendices):
            title = f"[{p.title[0].upper()}{p.title[1:]}](../{p.notebook})"
            module = f"`{p.module}`" if p.module else ""
            rows.append(f"| {p.number} | {title} | {module} | {p.goal} |")
    return "\n".join(rows)


def readme_table() -> str:
    rows = ["| | chapter | what you build |", "|---|---|---|"]
    for tier in TIERS:
        for chapter, appendices in chapters(tier):
            title = f"[{chapter.title}]({REPOSITORY}/{chapter.notebook})"
            links = [
                f"[`{p.module}`]({REPOSITORY}/{p.notebook})"
                for p in (chapter, *appendices)
                if p.module
            ]
            rows.append(f"| {chapter.number} | {title} | {', '.join(links)} |")
    return "\n".join(rows)


def modules() -> str:
    "Every module with its page, room by room; the rooms stand in the order of the page's table."
    design = (ROOT / "book" / "design.qmd").read_text(encoding="utf-8")
    rooms = re.findall(r"^\| `(\w+)` \| [^|`]+ \|$", design, re.M)
    found = {}
    for p in (p for tier in TIERS for p in pages(tier) if p.module):
        room = p.module.split(".")[0] if "." in p.module else ""
        title = f"{p.title[0].upper()}{p.title[1:]}"
        row = f"| `{p.module}` | {title} | [{p.number}](../{p.notebook}) |"
        found.setdefault(room, []).append(row)
    rows = ["| module | what it is | page |", "|:---|:---|---:|"]
    return "\n".join([*rows, *(row for room in (*rooms, "") for row in found.pop(room, ()))])


def readme_tree() -> str:
    rows = []
    for tier in TIERS:
        for p in pages(tier):
            path = f"book/{tier}/{p.name}.md"
            module = f"gpt2edu/{p.module.replace('.', '/')}.py: " if p.module else ""
            rows.append(f"{path:44} {module}{p.title[0].upper()}{p.title[1:]}")
    return "\n".join(rows)


def between(text: str, begin: str, end: str, new: str) -> str:
    "Replace what stands between two marks."
    pattern = rf"(?<={re.escape(begin)}\n).*?(?=\n{re.escape(end)})"
    assert len(re.findall(pattern, text, re.S)) == 1, f"{begin} … {end}"
    return re.sub(pattern, lambda _: new, text, flags=re.S)


def written() -> dict[Path, str]:
    "Each file as it should be."
    names = ("_quarto.yml", "book/course.qmd", "book/design.qmd", "README.md")
    quarto, page, design, readme = (ROOT / name for name in names)
    texts = {p: p.read_text(encoding="utf-8") for p in (quarto, page, design, readme)}
    marks = "      # chapters: tools/lists.py", "      # end of chapters"
    texts[quarto] = between(texts[quarto], *marks, sidebar())
    marks = "      # checks: tools/lists.py", "      # end of checks"
    texts[quarto] = between(texts[quarto], *marks, checks())
    for tier in TIERS:
        marks = f"<!-- chapters: {tier} -->\n", "\n<!-- end -->"
        head, _, rest = texts[page].partition(marks[0])
        texts[page] = head + marks[0] + "\n" + course(tier) + "\n" + rest[rest.index(marks[1]) :]
    marks = "<!-- modules: tools/lists.py -->\n", "\n<!-- end -->"
    texts[design] = between(texts[design], *marks, modules())
    marks = "<!-- chapters: tools/lists.py -->\n", "\n<!-- end -->"
    texts[readme] = between(texts[readme], *marks, readme_table())
    tree = r"(?:^book/(?:easy|medium|tough)/.*\n)+"
    texts[readme] = re.sub(tree, lambda _: readme_tree() + "\n", texts[readme], flags=re.M)
    return texts


def main():
    for path, text in written().items():
        if path.read_text(encoding="utf-8") != text:
            if "--check" in sys.argv:
                sys.exit(f"{path.relative_to(ROOT)}: a list is out of step; python tools/lists.py")
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
