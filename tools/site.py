"""Make a page of the website out of a notebook. Quarto runs this on each one (`ipynb-filters`).

A notebook is written for Jupyter and Colab. On its page

- title and description stand in front matter, with the chapter's number;
- the line of facts links Colab, the notebook and the manuscript, and loads no image from elsewhere;
- a figure comes first and its code is folded below it;
- the first use of a term links the glossary, whose definition then shows on hover;
- an exercise is one card, and its solution is folded together with its output;
- a diagram becomes part of the page, so that it follows the page's light and dark theme;
- a figure stands where a tool will, for a browser without JavaScript;
- a quiz is raw HTML, or Quarto would load jQuery and RequireJS for it from another host.

Quarto starts it in the notebook's folder, with the notebook on standard input. Only the standard
library is used: the machine that renders has Python and nothing else.
"""

import html
import json
import re
import sys
from pathlib import Path

REPOSITORY = "https://github.com/gpt2edu/gpt2edu"
BADGE = re.compile(r'<a href="(https://colab\.[^"]+)"><img [^>]*></a>')
TOOL = re.compile(
    r"^On the website, a tool stands here: \[(.+)\]\((.*/playground\.qmd#\w+)\)\.$", re.M
)
DIAGRAM = re.compile(r"^!\[([^\]]+)\]\(([./]*book/diagrams/[\w-]+\.svg)\)$", re.M)
# What the glossary defines and prose also says in another sense: a writer links these by hand.
EVERYDAY = set(
    """activation advantage backend baseline bias bit block bucket compile context document export
    graph head hook id key leaf merge module node norm packing piece position probe prompt query
    rank ring smoothing step surprise value window""".split()
)
APART = (  # no running text: blocks of code, headings and what becomes one, tables, quotations, …
    r"^(?P<fence>`{3,}).*?^(?P=fence)$|^(?:#|\||:::|>|\*\*\d+\. |\*\*\w+\*\* · ).*?$"
    r"|access tokens?|rotary embeddings?|tensor cores?"  # other things by their names
    r"|`[^`]+`|\$\$.*?\$\$|\$[^$\n]+\$|!?\[(?:[^\[\]]|\[[^\]]*\])*\](?:\(.*?\))?(?:\{.*?\})?|<[^>]+>"
)
FIRST_LINES = re.compile(r"# (?P<title>.+)\n+(?:> (?P<goal>.+)\n*)?")
EXERCISE = re.compile(r"(?:\*\*|### )(\d+\. .+?)(?:\.\*\*)?\n")  # both ways of writing one


def source(cell) -> str:
    return "".join(cell["source"])


def markdown(text: str, kind: str = "markdown") -> dict:
    return {"cell_type": kind, "metadata": {}, "source": text.splitlines(keepends=True)}


def quoted(text: str) -> str:
    "A string as YAML takes it."
    return json.dumps(text, ensure_ascii=False)


def number(path: Path) -> str:
    "The number of a chapter or an appendix, '' for any other notebook."
    found = re.match(r"ch0?(\d+[a-z]?)_", path.stem)
    return found[1] if found else ""


def front_matter(text: str, path: Path) -> tuple[dict, str]:
    "Take title and goal out of the first cell's text; return the front matter, and what is left."
    first = FIRST_LINES.match(text)
    title = re.sub(r"^Appendix \w+: ", "", first["title"])
    title = title[0].upper() + title[1:]
    lines = [f"title: {quoted(' · '.join(filter(None, [number(path), title])))}"]
    if first["goal"]:
        lines.append(f"description: {quoted(first['goal'])}")
    return markdown("\n".join(["---", *lines, "---\n"]), "raw"), text[first.end() :]


def facts(text: str, path: Path) -> str:
    "Write the links of a chapter in place of the badge, whose image another host would serve."
    place = f"{path.parent.name}/{path.name}"
    manuscript = f"{REPOSITORY}/edit/main/book/{Path(place).with_suffix('.md')}"
    links = f"[Open in Colab](\\1) · [Notebook]({REPOSITORY}/blob/main/nbs/{place})"
    text = BADGE.sub(f"{links} · [Edit this page]({manuscript})", text)
    return text.replace('{.callout-note appearance="simple"}\n**', "{.facts}\n**", 1)


def terms() -> dict[str, str]:
    "The pattern of each term of the glossary, longest first, with its anchor."
    glossary = Path(__file__).resolve().parent.parent / "book" / "glossary.qmd"
    found = re.findall(r"^\[(.+?)\]\{#(.+?)\}$", glossary.read_text(encoding="utf-8"), re.M)
    patterns = {}
    for name, anchor in sorted(found, key=lambda term: -len(term[0])):
        if name.lower() in EVERYDAY:
            continue
        one = re.sub(r"(?<=[^isu])s$", "", name)  # logits, but no corpus
        one = re.escape(one[:-1]) + "(?:y|ie)" if one.endswith("y") else re.escape(one)
        if name[1:] == name[1:].lower():
            one = f"[{name[0].upper()}{name[0].lower()}]{one[1:]}"
        patterns[one.replace(r"\ ", "[ -]") + "(?:e?s)?"] = anchor
    return patterns


def defined(cells: list[dict]):
    "Link the first use of each term in a chapter's prose, unless the manuscript links the term."
    patterns = list(terms().items())
    prose = [cell for cell in cells if cell["cell_type"] == "markdown"]
    seen = {a for cell in prose for a in re.findall(r"glossary\.qmd#([\w-]+)", source(cell))}
    names = "|".join(f"({pattern})" for pattern, _ in patterns)
    either = re.compile(rf"{APART}|(?<![\w-])(?:{names})(?![\w-])", re.M | re.S)

    def link(found):
        which = found.lastindex - 2 if found.lastindex and found["fence"] is None else None
        if which is None or patterns[which][1] in seen:
            return found[0]
        seen.add(patterns[which][1])
        return f"[{found[0]}](../../book/glossary.qmd#{patterns[which][1]})"

    for cell in prose:
        cell["source"] = either.sub(link, source(cell)).splitlines(keepends=True)


def inlined(text: str, path: Path) -> str:
    "Put the SVG of a diagram in place of its image."

    def svg(found):
        drawing = (path.parent / found[2]).read_text(encoding="utf-8")
        drawing = drawing[drawing.index("<svg") :].strip()
        label = html.escape(found[1])
        drawing = drawing.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
        return f'```{{=html}}\n<figure class="diagram">{drawing}</figure>\n```'

    return DIAGRAM.sub(svg, text)


def static(text: str, path: Path) -> str:
    "Put a figure where a tool will stand: a browser without JavaScript keeps it."

    def figure(found):
        kind = found[2].rpartition("#")[2]
        playground = path.parent / "../../book/playground.qmd"
        places = playground.read_text(encoding="utf-8")
        image = re.search(rf"!(\[[^\]]*\])\(play/{kind}\.svg\)(\{{.*\}})", places)
        link = f"On the playground: [{found[1]}]({found[2]}). The tool itself needs JavaScript."
        if not image:
            return link
        return f"!{image[1]}(../../book/play/{kind}.svg){image[2]}\n\n{link}"

    return TOOL.sub(figure, text)


def raw(output: dict) -> dict:
    "An output in HTML as Markdown that holds it: where Quarto sees text/html, it loads jQuery."
    data = output.get("data", {})
    if "text/html" not in data:
        return output
    rest = {kind: value for kind, value in data.items() if kind != "text/html"}
    block = f"```{{=html}}\n{''.join(data['text/html'])}\n```\n"
    return output | {"data": rest | {"text/markdown": block.splitlines(keepends=True)}}


def folded_figure(text: str) -> str:
    "Fold the code of a figure, where nothing else says how it is shown."
    if re.search(r"^#\| label: fig-", text, re.M) and "#| code-fold:" not in text:
        return '#| code-fold: true\n#| code-summary: "Code of this figure"\n' + text
    return text


def solution(cell) -> list[dict]:
    "Fold a solution together with its output."
    text = re.sub(r"^#\| code-(fold|summary): .*\n|^# @title .*\n", "", source(cell), flags=re.M)
    opened = '<details class="solution">\n<summary>Solution</summary>\n'
    return [
        markdown(opened),
        cell | {"source": text.splitlines(keepends=True)},
        markdown("</details>\n"),
    ]


def parts(text: str) -> list[str]:
    "Cut prose before each heading and each numbered exercise, but not inside a fenced block."
    out, fenced = [""], False
    for line in text.splitlines(keepends=True):
        fenced ^= line.startswith("```")
        if not fenced and re.match(r"\*\*\d+\. |#{2,3} ", line):
            out.append("")
        out[-1] += line
    return out


def cards(cells: list[dict]) -> list[dict]:
    "Put each exercise of a chapter on a card: from its number to the next one or to a heading."
    out, in_exercises, is_open = [], False, False
    for cell in cells:
        text = source(cell)
        if cell["cell_type"] != "markdown":
            is_solution = re.search(r"^#\| code-summary: .*Solution", text, re.M)
            out += solution(cell) if is_solution else [cell]
            continue
        for part in parts(text):
            if part.startswith("## "):
                in_exercises = part.startswith("## Exercises")
            starts = EXERCISE.match(part) if in_exercises else None
            if is_open and (starts or part.startswith("#")):
                out.append(markdown(":::\n"))
                is_open = False
            if starts:
                out.append(markdown("::: {.exercise}\n"))
                is_open, part = True, f"### {starts[1]}\n\n{part[starts.end() :].lstrip()}"
            out += [markdown(part)] if part.strip() else []
    return out + ([markdown(":::\n")] if is_open else [])


def page(nb: dict, path: Path) -> dict:
    "The notebook as its page needs it."
    matter, rest = front_matter(source(nb["cells"][0]), path)
    cells = [matter, markdown(facts(rest, path)), *nb["cells"][1:]]
    if number(path):
        defined(cells)
    for cell in cells:
        if cell["cell_type"] == "markdown":
            text = static(inlined(source(cell), path), path)
        elif cell["cell_type"] == "code":
            text = folded_figure(source(cell))
            cell["outputs"] = [raw(output) for output in cell["outputs"]]
        else:
            continue
        cell["source"] = text.splitlines(keepends=True)
    return nb | {"cells": cards(cells)}


def main():
    text = sys.stdin.buffer.read().decode("utf-8")
    here = sorted(Path.cwd().glob("*.ipynb"))
    same = [p for p in here if p.read_text(encoding="utf-8") == text]
    if not same:
        sys.exit(f"tools/site.py: no notebook of {Path.cwd()} is the one on standard input")
    sys.stdout.buffer.write(json.dumps(page(json.loads(text), same[0])).encode("utf-8"))


if __name__ == "__main__":
    main()
