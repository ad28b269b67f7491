"What is found before the first step: each mistake is one line, and nothing has been written."

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import warm

from gpt2edu.model.gpt import GPT, GPTConfig
from gpt2edu.model.pretrained import export
from gpt2edu.plan.memory import memory
from gpt2edu.text.chat import with_chat
from gpt2edu.text.tokenizer import Tokenizer
from gpt2edu.train.config import padded, preset
from gpt2edu.train.ready import check, check_memory, torchrun_waits

SHARDS = Path(__file__).parent / "old" / "shards"
MUCH = ["--micro_batch", str(2**20), "--total_batch", str(2**27)]  # hundreds of gigabytes


def command(place, *args):
    line = [sys.executable, "-m", "gpt2edu.cli", "train", *map(str, args)]
    return warm.run(line, cwd=place)


@pytest.fixture
def shards(tmp_path):
    return Path(shutil.copytree(SHARDS, tmp_path / "shards"))


def test_a_run_that_can_start_says_what_it_found(shards):
    config = preset("tiny", shards=str(shards), tokenizer=str(shards / "tokenizer.json"))
    lines = list(check(config, None, ranks=2))
    assert [line.partition(":")[0] for line in lines] == [
        "ranks", "disk", "data", "memory"
    ]  # fmt: skip
    assert f"{shards}, " in lines[2] and "740 steps" in lines[2]


@pytest.mark.parametrize(
    "flags,words",
    [
        (MUCH, "micro_batch=1048576 needs at least"),
        (["--keep_last", 10**9], "for 1000000001 checkpoints"),
        (["--shards", "nowhere", "--tokenizer", "gpt2"], "nowhere: no such folder"),
        (["--dataset", "nofile.txt"], "nofile.txt"),
        (["--hellaswag", "nofile.jsonl"], "nofile.jsonl"),
        (["--tracker", "trackio"], "tracker=trackio is not installed; get it with: pip install"),
        (
            ["--init_from", "tiny", "--questions", "stories", "--reward", "exact"],
            "tiny has no chat template",
        ),
    ],
)
def test_a_dry_run_refuses_what_a_start_would(tmp_path, flags, words):
    for more in (["--dry_run"], ["--device", "cpu"]):
        p = command(tmp_path, *flags, *more)
        assert p.returncode == 2 and p.stderr.count("\n") == 1 and words in p.stderr, more
        assert "step 1" not in p.stdout and not list(tmp_path.glob("runs/*/*"))


def test_a_dry_run_looks_at_the_reward(tmp_path):
    tokenizer = with_chat(Tokenizer.train(["Who is here? Mia is here."] * 9, 300, "few"))
    shape = GPTConfig(1, 2, 32, 256, padded(tokenizer.n_vocab))
    export(GPT(shape), tokenizer, tmp_path / "chat")
    (tmp_path / "mine.py").write_text("def f(question, said):\n    return 1.0", encoding="utf-8")
    line = "--dry_run --preset tiny-grpo --init_from chat --device cpu --reward"
    p = command(tmp_path, *line.split(), "mine.py:f")
    assert p.returncode == 0 and "check: reward: mine.py:f\n" in p.stdout
    p = command(tmp_path, *line.split(), "mine.py:g")
    assert p.returncode == 2 and "mine.py has no function g" in p.stderr


def test_the_number_of_ranks_is_checked_before_there_are_any(tmp_path):
    p = command(tmp_path, "--dry_run", "--ranks", 3)
    assert p.returncode == 2 and "cannot be shared by 3 ranks" in p.stderr
    assert (
        "check: ranks: 2, each 1 x 16 windows"
        in command(tmp_path, "--dry_run", "--ranks", 2).stdout
    )


def test_a_shard_that_was_cut_is_found_without_reading_it(shards):
    config = preset("tiny", shards=str(shards), tokenizer=str(shards / "tokenizer.json"))
    cut = max(shards.glob("*_train_*.bin"))
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(ValueError, match=re.escape(cut.name)):
        list(check(config, None))


@pytest.mark.parametrize(
    "flags,words",
    [
        ({"tokenizer": "gpt2"}, "shards: shards of another tokenizer"),
        ({"tokenizer": "train"}, "tokenizer='train' does not go with --shards"),
        ({"val_tokens": 100}, "shards: got 100 tokens to validate on, expected block_size=128"),
        ({"hellaswag": "items.jsonl"}, "items.jsonl, line 2: got 3 endings, expected 4"),
    ],
)
def test_a_check_looks_at_tokenizer_validation_and_items(shards, monkeypatch, flags, words):
    "A start would refuse these too, some of them only hours later."
    monkeypatch.chdir(shards.parent)
    item = {"ctx": "a", "endings": ["b", "c", "d", "e"], "label": 0}
    lines = [item, item | {"endings": ["b", "c", "d"]}]
    Path("items.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    usual = {"shards": "shards", "tokenizer": "shards/tokenizer.json"}
    with pytest.raises(ValueError, match=re.escape(words)) as e:
        list(check(preset("tiny", **usual | flags), None))
    assert "\n" not in str(e.value)


def test_memory_that_cannot_do_is_refused_and_what_is_little_is_warned_of():
    config = preset("gpt2-124m")
    peak = memory(config, 50304, 2, micro_batch=16)["peak"]

    def look(share):  # of the device that the step takes
        return check_memory(config, "cuda", 2, peak / share, 16)

    assert "which is little" not in look(0.85)
    for share in (0.95, 1.3):
        found = re.search(
            r"which is little; if that runs out, try --micro_batch (\d+)$", look(share)
        )
        assert memory(config, 50304, 2, micro_batch=int(found[1]))["peak"] < peak / share
    with pytest.raises(ValueError, match=r"needs at least .* GB; try --micro_batch \d$"):
        look(1.8)
    with pytest.raises(ValueError, match=r"take a smaller --n_layer, --n_embd or context$"):
        check_memory(config, "cuda", 2, 1e9, 16)


def test_whether_torchrun_waits_is_what_its_help_says():
    line = [sys.executable, "-m", "torch.distributed.run", "--help"]
    said = subprocess.run(line, capture_output=True, text=True).stdout
    assert torchrun_waits() == ("--shutdown-timeout" in said)
