"""The README's road from nothing to a chat, typed as it stands there into an empty folder.

pytest -n 0 -s -m slow tests/test_road.py

It prints what each line of the road took.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import SET_BY_TORCHRUN

from benchmarks.reward import Pupil, fitting, judge
from benchmarks.wrong import DRAWS, ITEMS, SEED
from gpt2edu.text.chat import with_chat
from gpt2edu.train.config import preset
from gpt2edu.train.log import RunLog
from gpt2edu.train.runs import load_model
from gpt2edu.train.start import fitted, load_start

LIBRARY = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
ALONE = {*SET_BY_TORCHRUN, "OMP_NUM_THREADS"}  # as for a user: no other test runs beside it
ENV = {k: v for k, v in os.environ.items() if k not in ALONE}
ENV |= {"PYTHONPATH": str(LIBRARY), "TERM": "dumb"}


def road() -> list[list[str]]:
    "The words of each line of the README's road, without the comment."
    text = (LIBRARY / "README.md").read_text(encoding="utf-8")
    block = re.search(r"## From pretraining to a chat\n+```bash\n(.*?)```", text, re.S)[1]
    return [shlex.split(line, comments=True) for line in block.splitlines()]


def test_the_road_leads_from_a_training_to_a_chat():
    words = [line[0].removeprefix(".venv/bin/") for line in road()]
    assert words == ["gpt2edu_train"] * 3 + ["gpt2edu_chat"]


def test_what_the_chapter_says_it_takes_is_in_the_log():
    log = json.loads((LIBRARY / "benchmarks/logs/road.json").read_text(encoding="utf-8"))
    first, second, third, last = log["seconds"].values()
    chapter = (LIBRARY / "book/tough/ch25_reward.md").read_text(encoding="utf-8")
    assert f"{first}, {second}, {third} and {last} seconds" in chapter
    slower = log["slower_hour"]["seconds"].values()
    assert "{} and {} for the first two".format(*slower) in chapter
    readme = " ".join((LIBRARY / "README.md").read_text(encoding="utf-8").split())
    assert 4 < sum(log["seconds"].values()) / 60 < 4.5
    assert 3.5 < sum(slower) / 60 < 4
    assert "less than four and a half minutes" in readme and "two alone took nearly four" in readme


@pytest.mark.slow
def test_the_road_of_the_readme(tmp_path):
    said = []
    for program, *flags in road():
        line = [BIN / program.removeprefix(".venv/bin/"), *flags]
        story = "Mia and Tom were in the kitchen. Mia had a ball. Mia gave the ball to Tom."
        more = {"input": f"{story} Who has the ball?\n"} if "chat" in program else {}
        start = time.perf_counter()
        done = subprocess.run(line, cwd=tmp_path, env=ENV, capture_output=True, text=True, **more)
        assert done.returncode == 0, (program, flags, done.stderr)
        print(f"{time.perf_counter() - start:.0f} s: {program} {' '.join(flags)}")  # noqa: T201
        said.append(done.stdout)
    assert "start: runs/tiny\n" in said[1] and "start: runs/tiny-sft\n" in said[2]
    assert re.fullmatch(r"\S.*\.\n", said[3])  # a sentence for the question that was piped in

    runs = [tmp_path / "runs" / name for name in ("tiny", "tiny-sft", "tiny-grpo")]
    assert RunLog(runs[1] / "log.jsonl").read()[-1]["exact_match"] >= 0.8
    # those of benchmarks/wrong.py: no part of the road has seen them
    tokenizer = with_chat(load_model(str(runs[0]))[1])
    start = load_start(fitted(preset("tiny-sft"), str(runs[0])), tokenizer)
    asked = fitting(ITEMS, "held-out", SEED, tokenizer)
    pupils = [Pupil(start, tokenizer), *(Pupil(*load_model(str(run))) for run in runs[1:])]
    nothing, taught, rewarded = (judge(pupil, asked * DRAWS) for pupil in pupils)
    print(*((found["right"], found["sampled"]) for found in (nothing, taught, rewarded)))  # noqa: T201
    assert nothing["right"] < 0.2 and taught["right"] >= 0.8
    assert rewarded["sampled"] - taught["sampled"] >= 0.08
