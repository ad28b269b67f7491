"""What is released: one version, one lowest Python, metadata for an index, whole archives."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import gpt2edu

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
LEAST = PROJECT["requires-python"].removeprefix(">=")  # "3.11"
IGNORED = ".git .venv build dist runs data exports _site .quarto *.egg-info __pycache__".split()
IGNORED += ".ipynb_checkpoints .pytest_cache .ruff_cache .hypothesis".split()
needs_git = pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="an unpacked sdist has no git history"
)


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def run(*command, **kw):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **kw)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def tracked():
    return set(run("git", "ls-files", cwd=ROOT).split("\n")) - {""}


# one version, one lowest Python


def test_the_version_is_the_same_everywhere():
    assert PROJECT["dynamic"] == ["version"], "gpt2edu/__init__.py is the one place"
    assert re.search(r"^version: (\S+)$", text("CITATION.cff"), re.M)[1] == gpt2edu.__version__
    assert re.search(r"^version = (\S+)$", text("settings.ini"), re.M)[1] == gpt2edu.__version__
    assert re.search(r"^## (\S+)", text("CHANGELOG.md"), re.M)[1] == gpt2edu.__version__
    for path in [*(ROOT / "book").rglob("*.*md"), *(ROOT / "gpt2edu").rglob("*.py")]:
        for tag in re.findall(r"gpt2edu(?:\.git)?@v([\w.]+\w)", path.read_text(encoding="utf-8")):
            assert tag == gpt2edu.__version__, f"{path.relative_to(ROOT)} installs v{tag}"


def test_the_lowest_python_is_the_same_everywhere():
    found = {
        "settings.ini": re.search(r"^min_python = (\S+)$", text("settings.ini"), re.M)[1],
        "ruff": PYPROJECT["tool"]["ruff"]["target-version"].replace("py3", "3."),
        "setup.py": ".".join(re.search(r"WANT = \((\d+), (\d+)\)", text("setup.py")).groups()),
        "import": ".".join(
            re.search(r"version_info < \((\d+), (\d+)\)", text("gpt2edu/__init__.py")).groups()
        ),
        "README.md": re.search(r"Python (\S+) or newer", text("README.md"))[1],
        "index.qmd": re.search(r"Python (\S+) or newer", text("index.qmd"))[1],
        "classifiers": re.search(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))[1],
    }
    assert {k: v for k, v in found.items() if v != LEAST} == {}


def test_ci_runs_every_python_that_is_declared():
    declared = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert {v for v in declared if f'"{v}"' not in text(".github/workflows/ci.yml")} == set()


def test_the_lowest_versions_are_those_declared():
    declared = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    lines = [
        line for line in text("constraints-lowest.txt").splitlines() if not line.startswith("#")
    ]
    assert lines == sorted({d.replace(">=", "==") for d in declared})
    job = text(".github/workflows/ci.yml").split("\n  lowest:")[1].split("\n\n")[0]
    assert f'python: ["{LEAST}"]' in job and "constraints: [constraints-lowest.txt]" in job


# an old Python is told so in one line


def test_an_old_python_can_read_what_tells_it():
    for name in ("setup.py", "gpt2edu/__init__.py"):
        tree = ast.parse(text(name), feature_version=(3, 4))
        assert not [
            n
            for n in ast.walk(tree)
            if isinstance(n, ast.JoinedStr | ast.NamedExpr | ast.AnnAssign)
        ], name


def test_an_import_by_an_old_python_says_what_is_needed():
    code = "import sys; sys.version_info = (3, 8, 18); import gpt2edu"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith(
        "ImportError: gpt2edu needs Python 3.11 or newer, this is 3.8"
    )


def old_python(version):
    "A Python of that version with pip: on the path, or one of pyenv's."
    pyenv = Path.home() / ".pyenv" / "versions"
    for python in (shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python")):
        has = [python, "-c", "import pip, venv"]
        if python and not subprocess.run(has, capture_output=True).returncode:
            return python
    pytest.skip(f"no Python {version} with pip on this machine")


@pytest.fixture
def source(tmp_path):
    "What an installation reads, and empty folders that setuptools may take for packages."
    folder = tmp_path / "source"
    for path in ROOT.iterdir():
        if path.is_dir() and path.name != ".git":
            (folder / path.name).mkdir(parents=True)
    for name in (
        "pyproject.toml", "setup.py", "README.md", "LICENSE", "constraints.txt",
        "gpt2edu/__init__.py", "gpt2edu/__main__.py",
    ):  # fmt: skip
        shutil.copy(ROOT / name, folder / name)
    return folder


OLD = [f"3.{minor}" for minor in range(6, 11)]


@pytest.mark.parametrize("version", OLD)
def test_an_old_python_is_told_before_anything_else(version, source):
    "Defect: 3.9 and 3.10 looked for every dependency, PyTorch too, before they compared Pythons."
    python = old_python(version)
    run(python, "setup.py", "-q", "egg_info", cwd=source)
    (info,) = source.glob("*.egg-info")
    assert f"Requires-Python: >={LEAST}" in (info / "PKG-INFO").read_text(encoding="utf-8")
    assert not (info / "requires.txt").exists()
    for module in ("gpt2edu", "gpt2edu.cli"):
        done = subprocess.run([python, "-m", module], cwd=source, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"gpt2edu needs Python {LEAST} or newer, this is {version}; make")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
@pytest.mark.parametrize(
    "version, newest", [*((v, "") for v in OLD), ("3.9", "newest"), ("3.10", "newest")]
)
def test_an_old_pip_says_what_is_needed(version, newest, source, tmp_path):
    "Defect: Python 3.10 was told of a conflict with numpy's pin; 3.8 got 22 lines on setuptools."
    run(old_python(version), "-m", "venv", tmp_path / "env")
    pip = tmp_path / "env" / "bin" / "pip"
    if newest:
        run(pip, "install", "-q", "-U", "pip")
    git = ("git", "-C", source, "-c", "user.name=test", "-c", "user.email=test@localhost")
    run("git", "init", "-q", source)
    run(*git, "add", "-A")
    run(*git, "commit", "-q", "-m", "This tree")
    ways = ["."], ["-e", "."], [f"git+file://{source}"], ["-c", "constraints.txt", "-e", ".[dev]"]
    for way in ways:
        done = subprocess.run([pip, "install", *way], cwd=source, capture_output=True, text=True)
        lines = (done.stdout + done.stderr).splitlines()
        about = [line for line in lines if f">={LEAST}" in line]
        assert done.returncode and about == lines[-1:], f"pip install {way}: {lines}"
        assert re.search(rf"requires .*Python.*\b{version}\.\d", about[0]), about


# the README on a package index


def test_the_readmes_links_work_on_a_package_index():
    "Defect: 27 links were relative, and an index shows the README without the repository."
    page = re.sub(r"^```.*?^```", "", text("README.md"), flags=re.M | re.S)
    links = re.findall(r"\]\(([^)\s]+)\)", page) + re.findall(r"(?:href|src)=\"([^\"]+)\"", page)
    assert len(links) > 25 and not [
        link for link in links if not link.startswith(("https://", "#"))
    ]
    here = re.compile(re.escape(PROJECT["urls"]["Repository"]) + r"/(?:(blob|tree)/main/([^#]+))?")
    own = [link for link in links if link.startswith(PROJECT["urls"]["Repository"])]
    for link in own:
        kind, path = here.match(link).groups()
        assert path is None or (
            (ROOT / path).is_dir() if kind == "tree" else (ROOT / path).is_file()
        ), link
    assert len(own) > 20


# the archives


def not_ours(folder, names):
    "What a developer's folder has beside the sources; gpt2edu/data is a room of the library."
    ignored = shutil.ignore_patterns(*IGNORED)(folder, names)
    return ignored - {"data"} if Path(folder) == ROOT / "gpt2edu" else ignored


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    "The sdist, and the wheel made from it: built once from a copy of the tree, without a network."
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT, folder / "source", ignore=not_ours)
    for junk in (
        "nbs/easy/runs/tiny/log.jsonl",
        "nbs/tough/data/x_train_000000.bin",
        "tests/__pycache__/x.pyc",
    ):
        (folder / "source" / junk).parent.mkdir(parents=True, exist_ok=True)
        (folder / "source" / junk).touch()  # what a user's folder has beside it
    run(sys.executable, "-m", "build", "--no-isolation", "-o", folder / "dist", folder / "source")
    (sdist,), (wheel,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    return sdist, wheel


def test_an_index_takes_both(built):
    for archive in built:
        assert f"-{gpt2edu.__version__}" in archive.name
    assert run(sys.executable, "-m", "twine", "check", "--strict", *built).count("PASSED") == 2


def test_the_wheel_has_the_library_alone(built):
    names = set(zipfile.ZipFile(built[1]).namelist())
    library = {p.relative_to(ROOT).as_posix() for p in (ROOT / "gpt2edu").rglob("*.py")}
    assert library <= names
    assert {
        n
        for n in names
        if not n.startswith(("gpt2edu/", f"gpt2edu-{gpt2edu.__version__}.dist-info/"))
    } == set()


@needs_git
def test_the_sdist_has_what_the_repository_has(built):
    made = {"PKG-INFO", "setup.cfg"}
    with tarfile.open(built[0]) as tar:
        names = {m.name.split("/", 1)[1] for m in tar.getmembers() if m.isfile()}
    names = {n for n in names if not n.startswith("gpt2edu.egg-info/")}
    assert names == tracked() | made


@pytest.mark.slow
def test_the_unpacked_sdist_passes_its_tests(built, tmp_path):
    with tarfile.open(built[0]) as tar:
        tar.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    env = {**os.environ, "PYTHONPATH": str(folder)}  # it wins over an installed clone
    out = run(sys.executable, "-m", "pytest", "-m", "quick", cwd=folder, env=env)
    assert re.search(r"\d+ passed", out)
