"""What earlier versions wrote still opens.

tests/old/README.md says what it is and what the old code made of it.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from gpt2edu.data.shards import open_shards
from gpt2edu.model.pretrained import from_pretrained
from gpt2edu.train.runs import load_run, read_config
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


def resumed_to_20():
    trainer = Trainer(
        replace(read_config(Path("runs/tiny")), max_steps=20, eval_every=5),
        Path("runs/tiny"),
        resume=True,
    )
    assert trainer.step == 10
    trainer.run()
    assert trainer.log.curve("val", "loss")[0] == [10, 15, 20]
    return trainer.log.curve("val", "loss")[1]


def test_the_run_resumes_with_the_losses_of_the_old_code(place):
    "torch.optim.Muon rounded to bf16, ours to fp32: the code that wrote it agrees to a hundredth."
    losses = resumed_to_20()
    assert losses == pytest.approx([5.4370, 4.8495, 4.3319], abs=0.02)
    # at commit 41066c0, the last before the modules moved
    assert losses == pytest.approx([5.437021, 4.849517, 4.331881], abs=2e-5)


def test_the_weights_and_the_tokens_are_those_of_the_files(place):
    "Bit for bit: run, export and shards, read by us and by the libraries that define the formats."
    folder = Path("runs/tiny/checkpoints/step_00000010")
    stored = safetensors.torch.load_file(folder / "model.safetensors")
    model, tokenizer = load_run(Path("runs/tiny"))
    exported, same_tokenizer = from_pretrained(OLD / "export")
    assert stored.keys() <= model.state_dict().keys()
    for name, tensor in stored.items():
        assert torch.equal(model.state_dict()[name], tensor), name
        rows = tokenizer.n_vocab if "wte" in name or "lm_head" in name else len(tensor)
        assert torch.equal(exported.state_dict()[name][:rows], tensor[:rows]), name
    assert same_tokenizer.encode("Anna had a kite.") == tokenizer.encode("Anna had a kite.")
    for split, number in (("val", 0), ("train", 1)):
        raw = (OLD / "shards" / f"stories_{split}_{number:06}.bin").read_bytes()
        ids = np.frombuffer(raw[1024:], dtype="<u2")
        shards = open_shards(Path("data/stories-4f9e60b2bd6c"), split, tokenizer.hash)
        assert np.array_equal(shards[: len(shards)], ids)
