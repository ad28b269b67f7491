"""Make the book: manuscript → notebook → module → executed, clean notebook.

    python tools/book.py                       every chapter whose manuscript or library changed the notebook
    python tools/book.py book/easy/ch02*.md    these chapters
    python tools/book.py --all                 every chapter, executed again
    python tools/book.py --no-exec             update and export only
    python tools/book.py --check               change nothing, say what is out of step; exit code 1 if anything is
"""

import argparse
import copy
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbdev.clean import clean_nb
from nbdev.config import add_init
from nbdev.export import nb_export

ROOT = Path(__file__).resolve().parent.parent
NOT_RUN = r"^#\|\s*(eval:\s*false|export|default_exp|include:\s*false)"  # no output is expected
TIERS = ("exercises", "easy", "medium", "tough")
TITLE = "# @title Install gpt2edu\n"  # Colab shows the title in place of the cell
KEEP = {"jupytext": {"cell_metadata_filter": "-all"}}  # lets jupytext leave the metadata of cells as they are
FOLDED = {"cellView": "form", "jupyter": {"source_hidden": True}}  # Colab; JupyterLab, Notebook and VS Code
SOLUTION = {"cellView": "form", "collapsed": True, "jupyter": {"outputs_hidden": True, "source_hidden": True}}


def manuscripts():
    return [p for tier in TIERS for p in sorted((ROOT / "book" / tier).glob("*.md"))]


def twin(md):
    return ROOT / "nbs" / md.relative_to(ROOT / "book").with_suffix(".ipynb")


def cells(nb):
    return [(c.cell_type, c.source) for c in nb.cells]


def install_cell():
    "Make the first cell of every chapter: tools/install_cell.py with the repository's URL, its branch and the tag."
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    version = re.search(r'__version__ = "(.+)"', (ROOT / "gpt2edu" / "__init__.py").read_text(encoding="utf-8"))[1]
    names = {"url": project["project"]["urls"]["Repository"], "branch": project["tool"]["nbdev"]["branch"]}
    names["tag"] = f"v{version}"
    text = (ROOT / "tools" / "install_cell.py").read_text(encoding="utf-8").strip()
    return re.sub(r"\{(url|tag|branch)\}", lambda m: names[m[1]], text)


def with_install_cell(text):  # of a manuscript
    "Return the manuscript with the install cell as it should be."
    block = r"(?<=^```\{code-cell\} ipython3\n)#\| include: false\n" + re.escape(TITLE) + r".*?(?=\n```$)"
    return re.sub(block, lambda _: install_cell(), text, flags=re.M | re.S)


def metadata(cell):
    "Return the metadata that a cell should have: what makes it folded where a notebook is opened."
    if cell.cell_type != "code":
        return {}
    if re.search(r"^#\| code-summary: .*Solution", cell.source, re.M):
        return copy.deepcopy(SOLUTION)
    return copy.deepcopy(FOLDED) if TITLE in cell.source else {}


def update(md):
    "Bring the notebook up to its manuscript: outputs and ids of unchanged cells stay. Return whether it changed."
    ipynb, text = twin(md), md.read_text(encoding="utf-8")
    if with_install_cell(text) != text:
        md.write_text(with_install_cell(text), encoding="utf-8")
    if ipynb.exists() and cells(jupytext.read(md)) == cells(nbformat.read(ipynb, 4)):
        return False
    ipynb.parent.mkdir(parents=True, exist_ok=True)
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([sys.executable, "-m", "jupytext", "--update", "--to", "ipynb", "-o", ipynb, md], **quiet)
    return True


def execute(ipynb):
    nb = nbformat.read(ipynb, 4)
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
    os.environ["PYTHONWARNINGS"] = "ignore"
    t0 = time.time()
    skipped = [c for c in nb.cells if c.cell_type == "code" and re.search(r"^#\|\s*eval:\s*false", c.source, re.M)]
    for cell in skipped:
        cell.cell_type = "raw"  # nbclient passes it over
    here = {"metadata": {"path": str(ipynb.parent)}}
    NotebookClient(nb, timeout=600, coalesce_streams=True, resources=here).execute()
    for cell in skipped:
        cell.cell_type = "code"
    nbformat.write(nb, ipynb)
    return time.time() - t0


def clean(ipynb):
    nb = nbformat.read(ipynb, 4)
    clean_nb(nb)
    for cell in nb.cells:
        cell.metadata = nbformat.from_dict(metadata(cell))
    nb.metadata = nbformat.from_dict(KEEP | {"kernelspec": nb.metadata["kernelspec"]})
    nbformat.write(nb, ipynb)


def export_all():
    "Export every notebook, and nbdev's index of symbols."
    subprocess.run([Path(sys.executable).with_name("nbdev-export")], check=True, cwd=ROOT)


def library():
    return {p: p.read_bytes() for p in (ROOT / "gpt2edu").rglob("*.py")}


def findings():
    "Say what is out of step: manuscripts, notebooks and library."
    known = {twin(md): md for md in manuscripts()}
    for ipynb in sorted((ROOT / "nbs").glob("*/*.ipynb")):
        name = ipynb.relative_to(ROOT)
        if ipynb not in known:
            yield f"{name}: no manuscript"
            continue
        nb = nbformat.read(ipynb, 4)
        text = known[ipynb].read_text(encoding="utf-8")
        if with_install_cell(text) != text:
            yield f"{known[ipynb].relative_to(ROOT)}: its install cell is not tools/install_cell.py; run make book"
        if cells(jupytext.read(known[ipynb])) != cells(nb):
            yield f"{name}: differs from {known[ipynb].relative_to(ROOT)}; run make book"
        code = [c for c in nb.cells if c.cell_type == "code"]
        examples = [c for c in code if c.source.strip() and not re.search(NOT_RUN, c.source, re.M)]
        if examples and not any(c.outputs for c in examples):
            yield f"{name}: carries no outputs; run make book"
        if any(o.output_type == "error" for c in code for o in c.outputs):
            yield f"{name}: a stored output is an error"
        before = ipynb.read_bytes()
        clean(ipynb)
        if ipynb.read_bytes() != before:
            ipynb.write_bytes(before)
            yield f"{name}: is not clean; run make book"
    yield from (f"{md.relative_to(ROOT)}: no notebook; run make book" for nb, md in known.items() if not nb.exists())
    before = library()
    export_all()
    after = library()
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            yield f"{path.relative_to(ROOT)}: differs from what its notebook exports; run make book"
    for path in after.keys() - before.keys():
        path.unlink()
    for path, content in before.items():
        path.write_bytes(content)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("chapters", nargs="*", type=Path)
    ap.add_argument("--all", action="store_true")
    ap.add_argument("--no-exec", action="store_true")
    ap.add_argument("--check", action="store_true")
    a = ap.parse_args()
    if a.check:
        found = list(findings())
        print("\n".join(found) or "manuscripts, notebooks and library agree")
        sys.exit(bool(found))
    for md in [p.resolve() for p in a.chapters] or manuscripts():
        changed = update(md)
        ipynb = twin(md)
        nb_export(str(ipynb), lib_path=str(ROOT / "gpt2edu"))
        if not a.no_exec and (changed or a.all or a.chapters):
            print(f"{ipynb.relative_to(ROOT)}: {execute(ipynb):.1f} s", flush=True)
        clean(ipynb)
    add_init(ROOT / "gpt2edu")
    if not a.chapters:
        export_all()


if __name__ == "__main__":
    main()
