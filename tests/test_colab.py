"""The easy chapters run in a fresh environment that holds the wheel and a notebook kernel, as Colab would run them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "nbs" / "easy").glob("ch0[1-6]_*.ipynb"))


def run(*command, **kw):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **kw)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    "A new environment with the wheel, nothing of the repository, and a stand-in for Colab's own module."
    folder = tmp_path_factory.mktemp("colab")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "data", "build", "*.egg-info"))
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, source)
    (wheel,) = folder.glob("gpt2edu-*.whl")
    shutil.rmtree(source)
    run(sys.executable, "-m", "venv", folder / "env")
    bin_ = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    run(bin_ / "python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, "ipykernel", "nbclient")
    site = Path(run(bin_ / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "google" / "colab").mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").touch()
    (site / "sitecustomize.py").write_text("import google.colab\n", encoding="utf-8")  # Colab has it loaded before the first cell
    return folder, bin_


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda p: p.stem)
def test_runs_from_the_wheel_alone(colab, chapter):
    folder, bin_ = colab
    copy = folder / chapter.name
    shutil.copy(chapter, copy)
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env |= {"PIP_NO_INDEX": "1", "PATH": f"{bin_}{os.pathsep}{env['PATH']}"}  # the first cell's pip finds it installed
    run(bin_ / "jupyter-execute", "--timeout=600", copy, env=env, cwd=folder)


@pytest.mark.slow
def test_the_stand_in_is_seen(colab):
    folder, bin_ = colab
    code = "import sys, gpt2edu; print('google.colab' in sys.modules, gpt2edu.__file__)"
    out = run(bin_ / "python", "-c", code, cwd=folder)
    assert out.startswith("True") and str(ROOT) not in out


def test_the_first_cell_installs():
    for chapter in CHAPTERS:
        text = (ROOT / "book" / "easy" / f"{chapter.stem}.md").read_text(encoding="utf-8")
        assert text.index("%pip install -q gpt2edu") < text.index("from gpt2edu"), chapter.stem
