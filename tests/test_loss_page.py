"""The figures of "Is my loss right?" and of ch08's record are those of stored logs and presets."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2edu.train.config import PRESETS, preset

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "benchmarks" / "logs"
PAGE = (ROOT / "book" / "is-my-loss-right.qmd").read_text(encoding="utf-8")


def printed(*command):
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bands_are_those_of_the_logs():
    bands, runs = printed("-m", "benchmarks.tiny_bands").strip().split("\n\n")
    assert bands.count("\n") == 8 and bands in PAGE
    assert runs.count("\n") == 7 and runs in PAGE  # three seeds on two kinds of processor


@pytest.mark.parametrize("path", sorted(LOGS.glob("tiny_avx*.jsonl")), ids=lambda p: p.stem)
def test_a_log_says_where_it_is_from(path):
    head, *events = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    kind, seed = re.fullmatch(r"tiny_(avx2|avx512)_seed(\d+)", path.stem).groups()
    assert head["command"].startswith(f"gpt2edu_train --seed {seed} ") and head["dtype"]
    assert f" {kind.upper()}," in head["hardware"]
    assert re.fullmatch(r"[0-9a-f]{7,}", head["commit"]) and head["commit"] in PAGE
    assert head["max_steps"] == preset("tiny").max_steps == events[-2]["step"]
    done = events[-1]
    assert done["floor"] < done["val_loss"] < done["bigram"]
    assert f"{done['floor']:.3f} nats" in PAGE and f"{done['bigram']:.3f}" in PAGE
    assert [e["step"] for e in events if e["event"] == "train"] == list(
        range(10, head["max_steps"] + 1, 10)
    )


@pytest.mark.parametrize("path", sorted(LOGS.glob("tiny_avx*.jsonl")), ids=lambda p: p.stem)
def test_every_run_is_as_good_as_the_page_says(path):
    "90 % of the way and 80 % of the stories, with each seed and on both kinds of processor."
    done = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    way = (done["bigram"] - done["val_loss"]) / (done["bigram"] - done["floor"])
    assert way >= 0.9 and done["story_choice"] >= 0.8


def test_shifts_are_those_of_the_record():
    loss = json.loads((LOGS / "tiny_shifts.json").read_text(encoding="utf-8"))["loss"]
    base = next(iter(loss.values()))
    for name, value in loss.items():
        shift = f"{value - base:+.3f}" if abs(value - base) >= 5e-4 else "0.000"
        assert f"| {name} | {value:.3f} | {'' if value is base else shift + ' '}|" in PAGE


@pytest.mark.parametrize("name", [p for p in PRESETS if "init_from" not in PRESETS[p]])
def test_first_losses_follow_the_formula(name):
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    V, C, ln_v, first = (float(cell.replace(",", "")) for cell in row.strip("| ").split(" | ")[1:])
    assert preset(name).n_embd == C and V % 128 == 0
    assert ln_v == pytest.approx(math.log(V), abs=5e-4)
    assert first == pytest.approx(math.log(V) + 0.02**2 * C / 2, abs=5e-3)


def test_chapter_8_shows_the_record():
    chapter = (ROOT / "book" / "medium" / "ch08_attention.md").read_text(encoding="utf-8")
    assert printed("-m", "benchmarks.heads", "page", LOGS / "tiny_heads.json") in chapter


@pytest.mark.parametrize("page", ["README.md", "index.qmd", "book/easy/ch01_quickstart.md"])
def test_the_promised_times_are_those_of_the_logs(page):
    "Of seed 1337 on two cores, in whole seconds, for both kinds of processor."
    text = (ROOT / page).read_text(encoding="utf-8")
    for kind in ("avx2", "avx512"):
        lines = (LOGS / f"tiny_{kind}_seed1337.jsonl").read_text(encoding="utf-8").splitlines()
        assert f"{json.loads(lines[-1])['seconds']:.0f} seconds" in text
        assert " 2 threads," in json.loads(lines[0])["hardware"]
