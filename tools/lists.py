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
LAST = 22  # the last chapter of the course proper; what comes later is "Beyond"
SECTIONS = (*TIERS, "beyond")
REPOSITORY = "https://github.com/gpt2edu/gpt2edu/blob/main"
COLAB = "https://colab.research.google.com/github/gpt2edu/gpt2edu/blob/main"


class Page(NamedTuple):
    "What a list says of a manuscript."

    tier: str
    name: str  # file name without suffix
    number: str  # "17", or "17a" for an appendix
    title: str
    goal: str  # what the reader has at the end
    module: str  # without the package's name; "" if it exports nothing
    minutes: int  # that a reader needs; 0 for an appendix

    @property
    def notebook(self) -> str:
        return f"nbs/{self.tier}/{self.name}.ipynb"


def read(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    number = re.match(r"ch0?(\d+[a-z]?)_", path.stem)[1]
    title = re.search(r"^# (?:Appendix \w+: )?(.+)$", text, re.M)[1]
    goal = re.search(r"^> (.+)\.$", text, re.M)[1]
    module = re.search(r"^#\| default_exp: (\S+)", text, re.M)
    minutes = re.search(r"^\*\*\w+\*\* · (\d+) minutes", text, re.M)
    return Page(
        path.parent.name,
        path.stem,
        number,
        title,
        goal,
        module[1] if module else "",
        int(minutes[1]) if minutes else 0,
    )


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


def section(name: str) -> list[tuple[Page, list[Page]]]:
    "The chapters of a section: of a tier up to chapter 22, or of all that comes later."
    tier = "tough" if name == "beyond" else name
    return [c for c in chapters(tier) if (int(c[0].number) > LAST) == (name == "beyond")]


# the lists


def entry(p: Page, indent: int) -> list[str]:
    "A page in the sidebar: its number and the first words of its title."
    titles = [q.title for tier in TIERS for q in pages(tier)]
    short = re.split(r"[:,] ", p.title)[0]
    if sum(title.startswith(f"{short}{sign} ") for title in titles for sign in ":,") > 1:
        short = p.title
    text = f'"{p.number} · {short[0].upper()}{short[1:]}"'
    return [f"{' ' * indent}- text: {text}", f"{' ' * indent}  href: {p.notebook}"]


def sidebar() -> str:
    "Sections of _quarto.yml: a chapter's appendices stand below it."
    lines = []
    for name in (name for name in SECTIONS if section(name)):
        lines += [f"      - section: {name.capitalize()}", "        contents:"]
        for chapter, appendices in section(name):
            lines += entry(chapter, 10)
            if appendices:
                names = [p.number for p in (appendices[0], appendices[-1])]
                which = f"Appendices {names[0]}–{names[1]}"
                which = which if len(appendices) > 1 else f"Appendix {names[0]}"
                lines.append(f"          - section: {which}")
                lines.append("            contents:")
                lines += [line for p in appendices for line in entry(p, 14)]
    return "\n".join(lines)


def checks() -> str:
    "The section of the pages that check the exercises."
    names = sorted(p.stem for p in (ROOT / "book" / "exercises").glob("*.md"))
    lines = ["          - section: Checks of the exercises", "            contents:"]
    for name in names:
        lines.append(f'              - text: "Checks: {name.replace("_", " ")}"')
        lines.append(f"                href: nbs/exercises/{name}.ipynb")
    return "\n".join(lines)


def course(name: str) -> str:
    "A table of the course page."
    rows = ["| | Chapter | Module | What you have at the end | |"]
    rows.append("|---:|:-----------|:--------|:---------------|:-----|")  # the widths' proportions
    for chapter, appendices in section(name):
        for p in (chapter, *appendices):
            title = f"[{p.title[0].upper()}{p.title[1:]}](../{p.notebook})"
            module = f"`{p.module}`" if p.module else ""
            links = f"[Colab]({COLAB}/{p.notebook}) "
            links += f"[source]({REPOSITORY}/book/{p.tier}/{p.name}.md)"
            rows.append(f"| {p.number} | {title} | {module} | {p.goal} | {links} |")
    return "\n".join(rows)


def course_beyond() -> str:
    "The last section of the course page; nothing while there is nothing."
    if not section("beyond"):
        return ""
    lines = ["## Beyond: what came after GPT-2 {#sec-beyond}", "", "For readers of the tough tier."]
    lines.append("Most chapters start from a trained model that the package brings.")
    return "\n".join([*lines, "", "::: {.chapters}", "", course("beyond"), "", ":::"])


def hours(name: str) -> str:
    "How long the chapters of a section take, to half an hour."
    chapters = [chapter for chapter, _ in section(name)]
    half_hours = round(sum(c.minutes for c in chapters) / 30)
    time = f"{half_hours // 2}{'½' if half_hours % 2 else ''} hour{'s' * (half_hours > 2)}"
    first, last = chapters[0].number, chapters[-1].number
    which = f"Chapters {first} to {last}" if last != first else f"Chapter {first}"
    return f"{which}, about {time} of reading."


def beyond() -> str:
    "The card of the home page for what comes after chapter 22; nothing while there is nothing."
    if not section("beyond"):
        return ""
    lines = ["::: {}", "### [Beyond](book/course.qmd#sec-beyond)", "", hours("beyond"), ""]
    lines += [
        "From GPT-2 to what came after it: fine-tuning, instructions, rewards, newer parts of the "
        "model, scaling laws, and a look inside.",
        "",
        "*Afterwards you can* turn a text predictor into one that answers, and measure what each "
        "step has changed.",
        ":::",
    ]
    return "\n".join(lines)


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


def within(text: str, mark: str, new: str) -> str:
    "Replace what stands between a mark and the next end."
    head, _, rest = text.partition(f"{mark}\n")
    assert rest, mark
    after = rest[rest.index("\n<!-- end -->") :]
    return f"{head}{mark}\n" + (f"\n{new}\n" if new else "") + after


def written() -> dict[Path, str]:
    "Each file as it should be."
    names = ("_quarto.yml", "book/course.qmd", "book/design.qmd", "README.md", "index.qmd")
    quarto, page, design, readme, home = (ROOT / name for name in names)
    texts = {p: p.read_text(encoding="utf-8") for p in (quarto, page, design, readme, home)}
    marks = "      # chapters: tools/lists.py", "      # end of chapters"
    texts[quarto] = between(texts[quarto], *marks, sidebar())
    marks = "      # checks: tools/lists.py", "      # end of checks"
    texts[quarto] = between(texts[quarto], *marks, checks())
    for tier in TIERS:
        texts[page] = within(texts[page], f"<!-- chapters: {tier} -->", course(tier))
    texts[page] = within(texts[page], "<!-- chapters: beyond -->", course_beyond())
    for tier in TIERS:
        texts[home] = within(texts[home], f"<!-- hours: {tier} -->", hours(tier))
    texts[home] = within(texts[home], "<!-- beyond: tools/lists.py -->", beyond())
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
