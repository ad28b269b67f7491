"""Every notebook runs as "Run all" runs it; every stub fails its check, every solution passes."""

import re
from pathlib import Path

import nbformat
import pytest
import warm
from jupyter_client.provisioning import local_provisioner
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "nbs").glob("*/*.ipynb"))
# seconds for one cell; ten times what a chapter may take
# A slow machine passes, a hanging cell does not.
HANGS = 600


def outputs(cell):
    return "".join(
        str(o.get("text", "")) + str(o.get("data", {}).get("text/plain", ""))
        for o in cell.get("outputs", [])
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs(path, tmp_path, monkeypatch):
    """Defect: cells marked `eval: false` were left out here, and Jupyter runs them.

    Four chapters stopped at one.
    """
    monkeypatch.setattr(local_provisioner, "launch_kernel", warm.kernel)
    nb = nbformat.read(path, 4)
    here = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(nb, timeout=HANGS, iopub_timeout=120, resources=here).execute()
    left = [p.name for p in tmp_path.iterdir()]
    assert not left, f"the notebook leaves {left} in the working folder"
    for i, cell in enumerate(nb.cells):
        if name := re.search(r"^#\|\s*exercise:\s*(\w+)", cell.source, re.M):
            stub = nb.cells[i + 1]
            solution = next(c for c in nb.cells[i + 2 :] if "code-summary" in c.source)
            assert "Not yet" in outputs(stub), f"{name[1]}: the stub passes its check"
            assert "Passed" in outputs(solution), f"{name[1]}: the solution fails its check"
