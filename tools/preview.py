"""Render the website without Quarto: smalldocs, after the same filter of the notebooks.

python tools/preview.py [_site]

It has the pages, the links, the style sheet and the scripts, and formulas as MathML, as Quarto
writes them. Cross-references are missing. tests/test_pages.py looks at the result in a browser.
"""

import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("_quarto.yml", "index.qmd", "404.qmd", "book", "nbs", "tools", "README.md", "LICENSE")
PARTS += ("constraints.txt", "CITATION.cff")
NOT_CODE = shutil.ignore_patterns("__pycache__")  # other processes may be writing there


# what smalldocs would ask other hosts for: the site does not
ELSEWHERE = (
    r"<(?:link|script)\b[^>]*https://cdn\.jsdelivr\.net/npm/katex[^>]*>(?:</script>)?",
    r"@import url\(https://fonts\.googleapis\.com[^)]*\);",
)
# Quarto's columns: four fifths of either width; the space beside them is that of smalldocs
GRID = """
@media (min-width: 992px) {{
  #quarto-content.has-sidebar.has-margin {{
    --sd-sidebar-width: calc(0.8 * {sidebar});
    --sd-margin-width: calc(0.8 * {margin});
    --sd-gap: 1.5rem;
  }}
}}
"""
FORMULA = re.compile(r'(?s)<span class="math (inline|display)">\\[(\[](.*?)\\[)\]]</span>')


def formula(found) -> str:
    "Write a formula as MathML."
    display = "block" if found[1] == "display" else "inline"
    return convert(html.unescape(found[2]), display=display)


def alone(site: Path):
    "Take out of the pages what they would load from elsewhere; give them the site's columns."
    for path in [*site.rglob("*.html"), *(site / "site_libs").rglob("*.css")]:
        text = before = path.read_text(encoding="utf-8")
        for pattern in ELSEWHERE:
            text = re.sub(pattern, "", text)
        text = FORMULA.sub(formula, text)
        text = text.replace('role="img"></i>', 'aria-hidden="true"></i>')  # the link is named
        if text != before:
            path.write_text(text, encoding="utf-8")
    config = (ROOT / "_quarto.yml").read_text(encoding="utf-8")
    widths = dict(re.findall(r"^ {6}(sidebar|margin)-width: (\w+)$", config, re.M))
    with open(site / "site_libs" / "smalldocs.css", "a", encoding="utf-8") as rules:
        rules.write(GRID.format(**widths))


def render(site: Path):
    "Write the site into a folder; RuntimeError with the last lines if it cannot be rendered."
    with tempfile.TemporaryDirectory() as place:
        work = Path(place) / "project"
        work.mkdir()
        for name in PARTS:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, work / name, ignore=NOT_CODE)
            else:
                shutil.copyfile(ROOT / name, work / name)

        def filtered(path):
            with open(path, "rb") as notebook:
                command = [sys.executable, str(work / "tools" / "site.py")]
                done = subprocess.run(
                    command, stdin=notebook, capture_output=True, cwd=path.parent, check=True
                )
            path.write_bytes(done.stdout)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(filtered, (work / "nbs").rglob("*.ipynb")))
        program = shutil.which("smalldocs", path=Path(sys.executable).parent)
        done = subprocess.run([program, "render", "."], cwd=work, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:] or done.stdout[-2000:])
        for name in ("README.md", "nbs"):  # the notebooks to take along are those for Jupyter
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
            shutil.rmtree(work / name, ignore_errors=True)
            copy(ROOT / name, work / name)
        command = [sys.executable, str(work / "tools" / "after_render.py")]
        subprocess.run(command, cwd=work, check=True)
        alone(work / "_site")
        shutil.rmtree(site, ignore_errors=True)
        shutil.move(work / "_site", site)


if __name__ == "__main__":
    render(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "_site"))
