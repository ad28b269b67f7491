"""A new thing of a known kind touches two manuscripts at most.

CONTRIBUTING.md, "Where do I put …", names the files; each addition is made here in a copy, exported
by tools/book.py, and used.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

OPTIMISER = {
    "book/tough/ch14a_choices.md": [
        ('Optimizer = Literal["adamw", "muon"]', 'Optimizer = Literal["adamw", "muon", "sgd"]')
    ],
    "book/medium/ch10_optim.md": [
        (
            'KINDS = ("adamw", "muon")',
            'KINDS = ("adamw", "muon", "sgd")',
        ),
        (
            "    optimizers.append(torch.optim.AdamW(groups, lr=lr",
            '    if kind == "sgd":\n'
            "        optimizers.append(torch.optim.SGD(groups, lr=lr, momentum=betas[0]))\n"
            "    else:\n"
            "        optimizers.append(torch.optim.AdamW(groups, lr=lr",
        ),
    ],
}
EVALUATION = {
    "book/tough/ch18c_tasks.md": [
        (
            "Three presets, and the tasks that they answer:\n",
            """```{code-cell} ipython3
#| export: true
class Parrot(Task):
    "Whether a model tells the end of a sentence from noise."

    name = figure = "parrot"
    title = "end of a sentence"

    def applies(self, run: TrainConfig) -> bool:
        return True

    def fits(self, run: TrainConfig | None, wanted: Wanted) -> bool:
        return True

    def items(self, wanted: Wanted) -> list[dict]:
        endings = ["was in the garden.", "q q q q", "x x x x", "z z z z"]
        return [{"ctx": "One day, Mia", "endings": endings, "label": 0}]
```

Three presets, and the tasks that they answer:
""",
        )
    ],
}
DATASET = {
    "book/easy/ch03_corpus.md": [
        (
            'EMBEDDED = ("stories", "pydocs", "tinyshakespeare")',
            'EMBEDDED = ("stories", "pydocs", "tinyshakespeare", "sums")',
        ),
        (
            '    elif names == ["pydocs"]:\n',
            '    elif names == ["sums"]:\n'
            "        for a in range(4000):\n"
            '            yield f"{a} plus {a} is {a + a}."\n'
            '    elif names == ["pydocs"]:\n',
        ),
    ],
}
SILU = {  # SiLU in the place of GELU (Ramachandran et al. 2017, arXiv 1710.05941)
    "book/medium/ch09c_variants.md": [
        (
            'Activation = Literal["gelu", "swiglu", "relu2"]',
            'Activation = Literal["gelu", "swiglu", "relu2", "silu"]',
        ),
    ],
    "book/medium/ch09_model.md": [
        (
            '        elif self.kind == "relu2":\n',
            '        elif self.kind == "silu":\n'
            "            x = F.silu(self.c_fc(x))  # (B, T, 4C)\n"
            '        elif self.kind == "relu2":\n',
        ),
    ],
}


def script(**flags):
    return f"""
from pathlib import Path
from gpt2edu import Trainer, preset
flags = dict(n_layer=1, n_head=2, n_embd=16, block_size=32, total_batch=128, micro_batch=4)
flags |= dict(max_steps=3, eval_every=3, choice_items=0, val_tokens=256, vocab_size=300)
flags |= dict(device="cpu", dtype="fp32", dataset=("pydocs",)) | {flags!r}
trainer = Trainer(preset("tiny", **flags), Path("runs/new"))
trainer.run()
"""


USED = {
    "optimiser": (
        OPTIMISER,
        script(optimizer="sgd", lr=0.1)
        + "assert [type(o).__name__ for o in trainer.optimizers] == ['SGD']",
        ["train", "--optimizer", "sgd", "--dry_run"],
    ),
    "evaluation": (
        EVALUATION,
        script() + "assert trainer.log.curve('val', 'parrot')[0] == [3]",
        ["eval", "--tasks", "parrot", "--device", "cpu"],
    ),
    "dataset": (
        DATASET,
        script(dataset=("sums",)) + "assert trainer.step == 3",
        ["plan", "--dataset", "sums"],
    ),
    "variant of the block": (
        SILU,
        script(mlp="silu") + "assert trainer.step == 3 and trainer.model.config.mlp == 'silu'",
        ["train", "--mlp", "silu", "--dry_run"],
    ),
}


@pytest.mark.parametrize("kind", USED)
def test_a_new_thing_of_a_known_kind_touches_two_manuscripts(kind, tmp_path):
    edits, program, command = USED[kind]
    assert len(edits) <= 2
    for name in ("book", "nbs", "gpt2edu", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "settings.ini", "jupytext.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name, pairs in edits.items():
        text = (tmp_path / name).read_text(encoding="utf-8")
        for old, new in pairs:
            assert text.count(old) == 1, f"{name}: {old!r} is there {text.count(old)} times"
            text = text.replace(old, new)
        (tmp_path / name).write_text(text, encoding="utf-8")

    def python(*args):
        env = os.environ | {"PYTHONPATH": str(tmp_path)}
        options = {"cwd": tmp_path, "env": env, "capture_output": True, "text": True}
        p = subprocess.run([sys.executable, *args], timeout=600, **options)
        assert p.returncode == 0, p.stdout + p.stderr
        return p.stdout

    python("tools/book.py", "--no-exec", *edits)
    python("-c", program)
    python("-m", "gpt2edu.cli", *command)


def test_contributing_names_the_manuscripts():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = re.search(r"^## Where do I put …\n(.*?)(?=^## )", page, re.M | re.S)[1]
    for edits, *_ in USED.values():
        for name in edits:
            assert name in section, f"CONTRIBUTING.md does not name {name}"
