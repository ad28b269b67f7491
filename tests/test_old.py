"""What earlier versions wrote still opens.

tests/old/README.md says what it is and what the old code made of it.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gpt2edu.data.shards import open_shards
from gpt2edu.train.config import TrainConfig
from gpt2edu.train.runs import load_run
from gpt2edu.train.trainer import Trainer

OLD = Path(__file__).parent / "old"


@pytest.fixture
def place(tmp_path, monkeypatch):
    "The old run where it was made: in runs/ beside its text and its data/."
    shutil.copytree(OLD / "run", tmp_path / "runs" / "tiny")
    shutil.copytree(OLD / "shards", tmp_path / "data" / "stories-4f9e60b2bd6c")
    shutil.copy(OLD / "stories.txt", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_weights_load(place):
    model, tokenizer = load_run(Path("runs/tiny"))
    ids = tokenizer.encode("One day, Anna and Tom were in the garden.")
    assert tokenizer.decode(ids) == "One day, Anna and Tom were in the garden."
    val = open_shards(Path("data/stories-4f9e60b2bd6c"), "val", tokenizer.hash)[:1025].astype(
        "int64"
    )
    with torch.no_grad():
        rows = (
            torch.from_numpy(val[:1024].reshape(32, 32)),
            torch.from_numpy(val[1:1025].reshape(32, 32)),
        )
        loss = float(model(*rows)[1])
    # the old code's 5.4370 is over all validation tokens
    assert loss == pytest.approx(5.437, abs=0.05)


def test_the_run_resumes_with_the_losses_of_the_old_code(place):
    "torch.optim.Muon rounded to bf16, ours to fp32: losses agree to a hundredth, not to the bit."
    saved = json.loads(Path("runs/tiny/config.json").read_text(encoding="utf-8"))
    config = TrainConfig(**saved | {"dataset": tuple(saved["dataset"])})
    trainer = Trainer(replace(config, max_steps=20, eval_every=5), Path("runs/tiny"), resume=True)
    assert trainer.step == 10
    trainer.run()
    steps, losses = trainer.log.curve("val", "loss")
    assert steps == [10, 15, 20]
    assert losses == pytest.approx([5.4370, 4.8495, 4.3319], abs=0.02)
