"""Check the site's sources.

Every internal link and anchor leads somewhere, every reference and citation is defined.

Why: smalldocs finds missing pages but no missing anchors on other pages; panache takes MyST's
`{code-cell}` for prose and then reports every `x[0]` as an undefined reference. So it reads the
manuscripts as Quarto chunks, with a few rules.

    python tools/check_site.py        one line per finding; exit code 1 if there is any
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WRITTEN = ("gpt2edu-course.zip", "print.html")  # by tools/after_render.py, into the site
RULES = (
    "undefined-references,undefined-anchor,citation-keys,"
    "duplicate-reference-labels,heading-hierarchy"
)


def pages():
    "Map each page, as links name it, to its text: manuscripts stand for their notebooks."
    own = [*sorted(ROOT.glob("*.qmd")), *sorted((ROOT / "book").rglob("*.qmd"))]
    out = {p: p.read_text(encoding="utf-8") for p in own}
    for p in sorted((ROOT / "book").glob("*/*.md")):
        notebook = ROOT / "nbs" / p.relative_to(ROOT / "book").with_suffix(".ipynb")
        out[notebook] = p.read_text(encoding="utf-8")
    return out


def prose(text):
    return re.sub(r"(?ms)^(```+).*?^\1\s*$|`[^`\n]+`", "", text)


def broken_links(texts):
    anchors = {page: set(re.findall(r"\{#([\w-]+)", text)) for page, text in texts.items()}
    for page, text in texts.items():
        for target, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([\w-]+))?\)", prose(text)):
            folder = ROOT if target.startswith("/") else page.parent
            to = (folder / target.lstrip("/")).resolve() if target else page
            if not to.exists() and to.name not in WRITTEN:
                yield f"{page.relative_to(ROOT)}: broken link {target}"
            elif anchor and anchor not in anchors.get(to, ()):
                yield f"{page.relative_to(ROOT)}: no anchor #{anchor} in {to.relative_to(ROOT)}"


def panache(page, text):
    name = page.with_suffix(".qmd")
    if page.suffix == ".ipynb":
        name = ROOT / "book" / page.relative_to(ROOT / "nbs").with_suffix(".qmd")
        text = re.sub(r"(?m)^```\{code-cell\} ipython3", "```{python}", text)
    tool = Path(sys.executable).with_name("panache")  # CI calls the interpreter by its path
    cmd = [tool, "lint", "--message-format", "short", "--select", RULES]
    cmd += ["--stdin-filename", str(name), "-"]
    done = subprocess.run(cmd, input=text, capture_output=True, text=True, cwd=ROOT)
    if done.returncode not in (
        0,
        1,
    ):  # killed: perhaps the bibliography is broken
        return [f"{page.relative_to(ROOT)}: panache ended with {done.returncode}"]
    return [
        f"{page.relative_to(ROOT)}: {line.split(': ', 1)[-1]}"
        for line in done.stdout.splitlines()
        if line.startswith("<stdin>")
    ]


def main():
    texts = pages()
    found = list(broken_links(texts))
    for page, text in texts.items():
        found += panache(page, text)
    whole = f"{len(texts)} pages: links, anchors, references and citations are whole"
    print("\n".join(found) or whole)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
