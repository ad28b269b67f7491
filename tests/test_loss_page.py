"""The figures of "Is my loss right?" and of ch07's record are those of the stored logs, and of the presets."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2edu.plan import PRESETS, preset

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "benchmarks" / "logs"
PAGE = (ROOT / "book" / "is-my-loss-right.qmd").read_text(encoding="utf-8")


def printed(*command):
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bands_are_those_of_the_logs():
    bands, runs = printed("benchmarks/tiny_bands.py").strip().split("\n\n")
    assert bands.count("\n") == 9 and bands in PAGE
    assert runs.count("\n") == 1 + len(list(LOGS.glob("tiny_seed*.jsonl"))) and runs in PAGE


@pytest.mark.parametrize("path", sorted(LOGS.glob("tiny_seed*.jsonl")), ids=lambda p: p.stem)
def test_a_log_says_where_it_is_from(path):
    head, *events = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    seed = int(re.search(r"tiny_seed(\d+)", path.stem)[1])
    assert head["command"].startswith(f"gpt2edu_train --seed {seed} ") and head["hardware"] and head["dtype"]
    assert re.fullmatch(r"[0-9a-f]{7,}", head["commit"]) and head["commit"] in PAGE
    assert head["max_steps"] == preset("tiny").max_steps == events[-2]["step"]
    done = events[-1]
    assert done["floor"] < done["val_loss"] < done["bigram"]
    assert f"{done['floor']:.3f} nats" in PAGE and f"{done['bigram']:.3f}" in PAGE
    assert [e["step"] for e in events if e["event"] == "train"] == list(range(10, 1051, 10))


def test_shifts_are_those_of_the_record():
    loss = json.loads((LOGS / "tiny_shifts.json").read_text(encoding="utf-8"))["loss"]
    base = next(iter(loss.values()))
    for name, value in loss.items():
        shift = f"{value - base:+.3f}" if abs(value - base) >= 5e-4 else "0.000"
        assert f"| {name} | {value:.3f} | {'' if value is base else shift + ' '}|" in PAGE


@pytest.mark.parametrize("name", PRESETS)
def test_first_losses_follow_the_formula(name):
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    V, C, ln_v, first = (float(cell.replace(",", "")) for cell in row.strip("| ").split(" | ")[1:])
    assert preset(name).n_embd == C and V % 128 == 0
    assert ln_v == pytest.approx(math.log(V), abs=5e-4)
    assert first == pytest.approx(math.log(V) + 0.02**2 * C / 2, abs=5e-3)


def test_chapter_7_shows_the_record():
    chapter = (ROOT / "book" / "medium" / "ch07_attention.md").read_text(encoding="utf-8")
    assert printed("benchmarks/heads.py", "page", LOGS / "tiny_heads.json") in chapter
