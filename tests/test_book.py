"""tools/book.py carries an edit to the other sides, wherever it was made, and loses none."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
MD, NB, PY = "book/tough/ch14a_choices.md", "nbs/tough/ch14a_choices.ipynb", "gpt2edu/choices.py"
SENTENCE = "If the list were written four times, the copies would soon differ."
LINE = '    "Join words as a sentence does."\n'


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    "A clone with two chapters: the working tree's state, committed."
    place = tmp_path_factory.mktemp("clone") / "main"
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if names.returncode:
        pytest.skip("an unpacked sdist has no git history")
    for name in names.stdout.splitlines():
        other = name.startswith(("book/", "nbs/", "gpt2edu/")) and name.endswith(
            (".md", ".ipynb", ".py")
        )
        if (ROOT / name).exists() and (
            not other or "choices" in name or name in ("gpt2edu/__init__.py", "gpt2edu/__main__.py")
        ):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
    (place / "gpt2edu" / "_modidx.py").unlink(missing_ok=True)
    git(place, "init", "-q")
    git(place, "config", "core.autocrlf", "false")
    book(place, "--no-exec")
    git(place, "add", "-A")
    git(place, "config", "user.name", "a")
    git(place, "config", "user.email", "a@b")
    git(place, "commit", "-qm", "all")
    return place


@pytest.fixture
def place(clone):
    yield clone
    git(clone, "checkout", "-q", ".")
    git(clone, "clean", "-qfd")


def git(place, *args):
    return subprocess.run(
        ["git", *args], cwd=place, check=True, capture_output=True, text=True
    ).stdout


def book(place, *args):
    p = subprocess.run(
        [sys.executable, "tools/book.py", *args],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=600,
    )
    return p.returncode, p.stdout + p.stderr


def changed(place):
    return {line[3:] for line in git(place, "status", "--porcelain").splitlines()}


def replace(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def in_notebook(path, old, new):
    nb = nbformat.read(path, 4)
    cell = next(c for c in nb.cells if old in c.source)
    cell.source = cell.source.replace(old, new)
    nbformat.write(nb, path)


def test_nothing_edited_nothing_changed(place):
    assert book(place, "--no-exec") == (0, "") and changed(place) == set()
    assert book(place, "--check") == (0, "manuscripts, notebooks and library agree\n")


def test_an_edit_of_the_manuscript_reaches_notebook_and_module(place):
    replace(place / MD, LINE, LINE.replace("does", "would"))
    assert book(place, "--no-exec")[0] == 0
    assert changed(place) == {MD, NB, PY}
    assert "as a sentence would" in (place / PY).read_text(encoding="utf-8")
    assert book(place, "--check")[0] == 0


def test_an_edit_of_the_notebook_reaches_manuscript_and_module(place):
    "Defect: `make book` rebuilt the notebook from the manuscript; the edit was lost in silence."
    in_notebook(place / NB, SENTENCE, "Four lists drift apart.")
    in_notebook(place / NB, LINE, LINE.replace("does", "would"))
    assert book(place, "--no-exec") == (0, f"{MD}: taken over from {NB}\n")
    assert changed(place) == {MD, NB, PY}
    text = (place / MD).read_text(encoding="utf-8")
    assert "Four lists drift apart." in text and "as a sentence would" in text
    diff = git(place, "diff", "--numstat", MD)
    assert diff.split()[:2] == ["2", "2"], (
        "the manuscript changes in the two edited lines and nowhere else"
    )
    assert book(place, "--check")[0] == 0


def test_an_edit_of_the_module_reaches_notebook_and_manuscript(place):
    replace(place / PY, LINE, LINE.replace("does", "would"))
    assert book(place, "--no-exec") == (0, f"{MD}: taken over from {PY}\n")
    assert changed(place) == {MD, NB, PY}
    for path in (MD, NB, PY):
        assert "as a sentence would" in (place / path).read_text(encoding="utf-8")
    assert git(place, "diff", "--numstat", MD).split()[:2] == ["1", "1"]
    assert book(place, "--check")[0] == 0


@pytest.mark.parametrize("sides", [(MD, NB), (MD, PY), (NB, PY)], ids=lambda s: " and ".join(s))
def test_two_edited_sides_stop_it_and_nothing_is_touched(place, sides):
    for i, side in enumerate(sides):
        edit = in_notebook if side == NB else replace
        edit(place / side, LINE, LINE.replace("does", f"would {i}"))
    before = {p: (place / p).read_bytes() for p in (MD, NB, PY)}
    code, said = book(place, "--no-exec")
    names = {MD: "manuscript", NB: "notebook", PY: "module"}
    assert code == 1 and re.match(
        f"{MD}: edited in {' and in '.join(sorted(names[s] for s in sides))}\n", said
    ), said
    assert before == {p: (place / p).read_bytes() for p in (MD, NB, PY)}
    assert changed(place) == set(sides)


def test_what_a_notebook_cannot_take_over_stays_in_the_module(place):
    replace(place / PY, "__all__ = [", "__all__ = ['mine', ")
    before = {p: (place / p).read_bytes() for p in (MD, NB, PY)}
    code, said = book(place, "--no-exec")
    assert code == 1 and said.startswith(
        f"{PY} was edited in a way that its notebook cannot take over"
    )
    assert before == {p: (place / p).read_bytes() for p in (MD, NB, PY)}


def test_the_check_names_each_side_that_is_out_of_step(place):
    replace(place / PY, LINE, LINE.replace("does", "would"))
    (place / "gpt2edu" / "forgotten.py").write_text("x = 1\n", encoding="utf-8")
    code, said = book(place, "--check")
    assert code == 1 and f"{PY}: differs from what {MD} exports" in said
    assert "gpt2edu/forgotten.py: no manuscript exports it" in said
    in_notebook(place / NB, LINE, LINE.replace("does", "will"))
    assert f"{NB}: differs from {MD}" in book(place, "--check")[1]
    assert changed(place) == {PY, NB, "gpt2edu/forgotten.py"}, "a check changes nothing"


def test_a_sync_of_what_agrees_changes_nothing(place):
    "Defect: jupytext --sync changed 331 lines in six chapters of a clean clone."
    before = git(place, "status", "--porcelain")
    subprocess.run(
        [sys.executable, "-m", "jupytext", "--sync", NB], cwd=place, check=True, capture_output=True
    )
    assert git(place, "status", "--porcelain") == before == ""


def test_every_manuscript_is_as_jupytext_writes_it():
    import jupytext
    from jupytext.config import load_jupytext_config

    for nb in sorted((ROOT / "nbs").glob("*/*.ipynb")):
        md = ROOT / "book" / nb.relative_to(ROOT / "nbs").with_suffix(".md")
        read = nbformat.read(nb, 4)
        for cell in read.cells:
            cell.metadata = nbformat.from_dict({})
        form = {"extension": ".md", "format_name": "myst"}
        written = jupytext.writes(read, fmt=form, config=load_jupytext_config(str(md)))
        assert written == md.read_text(encoding="utf-8"), (
            f"{md.relative_to(ROOT)}: jupytext --sync would change it"
        )


def test_a_notebook_executed_again_changes_nothing_that_is_the_same(place):
    "Defect: one word changed in prose rewrote 78 lines of the notebook."
    assert book(place, MD)[0] == 0
    git(place, "commit", "-qam", "executed", "--allow-empty")
    replace(place / MD, SENTENCE, "Four lists drift apart.")
    assert book(place, MD)[0] == 0
    # the line, the hash
    assert git(place, "diff", "--numstat", NB).split()[:2] == ["2", "2"], git(place, "diff", NB)
