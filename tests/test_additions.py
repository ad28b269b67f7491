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
            "Two presets, and the tasks that they answer:\n",
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

Two presets, and the tasks that they answer:
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
ROPE = {  # rotary position embeddings (Su et al. 2021, arXiv 2104.09864, section 3.2)
    "book/medium/ch08_attention.md": [
        (
            "        n_head: int,  # nh, number of heads; divides n_embd\n",
            "        n_head: int,  # nh, number of heads; divides n_embd\n"
            "        rope: bool = False,  # whether positions turn queries and keys\n",
        ),
        ("        self.n_head = n_head\n", "        self.n_head, self.rope = n_head, rope\n"),
        (
            "        q, k, v = self.qkv(x)  # (B, nh, T, hs)\n        if cache",
            "        q, k, v = self.qkv(x)  # (B, nh, T, hs)\n"
            "        if self.rope:\n"
            "            start = cache.length if cache is not None else 0\n"
            "            q, k = turned(q, start), turned(k, start)\n"
            "        if cache",
        ),
        (
            "```{code-cell} ipython3\n#| export: true\nclass CausalSelfAttention(nn.Module):\n",
            """```{code-cell} ipython3
#| export: true
def turned(
    x: Tensor,  # (B, nh, T, hs)
    start: int,  # position of the first one
) -> Tensor:  # (B, nh, T, hs)
    "Turn each pair of numbers by an angle that grows with the position."
    T, half = x.shape[2], x.shape[3] // 2
    rates = 10_000 ** (-torch.arange(half, device=x.device) / half)
    angles = torch.arange(start, start + T, device=x.device)[:, None] * rates  # (T, hs / 2)
    a, b = x[..., :half], x[..., half:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)


class CausalSelfAttention(nn.Module):
""",
        ),
    ],
    "book/medium/ch09_model.md": [
        (
            "    vocab_size: int = 50257  # V",
            "    rope: int = 1  # 1: tables of positions as in GPT-2; 2: rotary ones\n"
            "    vocab_size: int = 50257  # V",
        ),
        (
            "        n_head: int,  # nh\n    ):\n",
            "        n_head: int,  # nh\n        rope: bool = False,\n    ):\n",
        ),
        ("CausalSelfAttention(n_embd, n_head)\n", "CausalSelfAttention(n_embd, n_head, rope)\n"),
        ("Block(c.n_embd, c.n_head) for", "Block(c.n_embd, c.n_head, c.rope == 2) for"),
        (
            "        return self.transformer.wte(idx) + self.transformer.wpe(positions)"
            "  # (B, T, C) + (T, C)\n",
            "        x = self.transformer.wte(idx)  # (B, T, C)\n"
            "        return x if self.config.rope == 2 else x + self.transformer.wpe(positions)\n",
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
        ROPE,
        """
import torch
from gpt2edu import GPT, GPTConfig
seeds = [torch.Generator().manual_seed(0) for _ in range(2)]
models = [GPT(GPTConfig(1, 2, 16, 32, rope, 64), seeds[rope - 1]) for rope in (1, 2)]
ids = torch.arange(20).view(1, 20)
logits = [model(ids)[0] for model in models]
assert not torch.allclose(*logits)
caches = models[1].new_caches()
parts = [models[1](part, caches=caches)[0] for part in (ids[:, :7], ids[:, 7:])]
torch.testing.assert_close(torch.cat(parts, 1), logits[1], rtol=1e-4, atol=1e-5)
models[1](ids, ids)[1].backward()
""",
        ["train", "--dry_run"],
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
