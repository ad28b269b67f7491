"Records of the chapters beyond pretraining: each is what its script prints of the stored log."

import sys
from pathlib import Path

import pytest
import warm
from small_runs import ENV

ROOT = Path(__file__).parents[1]
LOGS = ROOT / "benchmarks" / "logs"
RECORDS = {  # what prints it: the chapter that shows it
    ("finetune", "--page", LOGS / "tiny_finetune.json"): "ch23_finetune.md",
    ("kinds", "--page", LOGS / "tiny_kinds.json"): "ch24_instructions.md",
    ("reward", "--page", LOGS / "tiny_reward.json"): "ch25_reward.md",
    ("wrong", "--page", LOGS / "tiny_wrong.json"): "ch25_reward.md",
}


@pytest.mark.parametrize("line", RECORDS, ids=lambda line: line[0])
def test_a_chapter_shows_its_record(line):
    name, *flags = line
    done = warm.run([sys.executable, "-m", f"benchmarks.{name}", *map(str, flags)], env=ENV)
    assert done.returncode == 0, done.stderr
    chapter = (ROOT / "book" / "tough" / RECORDS[line]).read_text(encoding="utf-8")
    record = done.stdout.strip()
    assert len(record.splitlines()) > 10 and f"\n{record}\n" in chapter
