"""A run that begins with the weights of another model."""

import copy
import dataclasses
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import warm
from small_runs import TINY, base_run, few_stories, saved, unlike
from transformers import GPT2LMHeadModel

from gpt2edu.cli import commands
from gpt2edu.cli.commands import train
from gpt2edu.evaluate.report import EvalConfig, evaluate
from gpt2edu.model import lora
from gpt2edu.model.gpt import GPT, GPTConfig
from gpt2edu.model.pretrained import export, from_pretrained
from gpt2edu.model.variants import numbers
from gpt2edu.text.chat import is_chat, with_chat
from gpt2edu.text.tokenizer import Tokenizer, encode_piece
from gpt2edu.train import checkpoint, runs, start
from gpt2edu.train.config import (
    TrainConfig,
    count_params,
    flops_per_token,
    padded,
    preset,
    tensor_shapes,
    trained_bytes,
    trained_shapes,
)
from gpt2edu.train.optim import build_optimizers
from gpt2edu.train.runs import find_run, load_model, load_run, read_config
from gpt2edu.train.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A folder with a trained run, runs/base, and its data."
    with few_stories():
        yield base_run(tmp_path_factory.mktemp("start"), **TINY)


def begin(place, **changes):
    config = preset("tiny", **TINY, data_dir=str(place / "data"), out_dir=str(place / "runs"))
    config = start.fitted(config, "base", str(place / "runs"))
    return dataclasses.replace(config, **changes)


def equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert a.keys() == b.keys() and len(a) > 10
    return all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_begins_with_the_weights_of_another(place, tmp_path):
    base, tokenizer = load_run(place / "runs" / "base")
    trainer = Trainer(begin(place), tmp_path / "next")
    assert trainer.step == 0 and trainer.tokenizer.hash == tokenizer.hash
    assert equal(trainer.model, base)
    trainer.run()
    assert not equal(trainer.model, base)


def test_another_dataset_keeps_the_tokenizer_of_the_start(place, tmp_path):
    _, tokenizer = load_run(place / "runs" / "base")
    trainer = Trainer(begin(place, dataset=("pydocs",)), tmp_path / "next")
    assert trainer.tokenizer.hash == tokenizer.hash
    assert "pydocs" in trainer.parts.data.folder.name
    trainer.close()


def test_sizes_and_tokenizer_come_from_the_start(place):
    config = begin(place)
    assert (config.n_layer, config.n_head, config.n_embd, config.block_size) == (1, 2, 32, 32)
    assert Tokenizer.load(config.tokenizer).hash == load_run(place / "runs" / "base")[1].hash
    big = start.fitted(preset("tiny"), "gpt2")
    assert big.block_size == 1024 and big.tokenizer == "gpt2"
    assert big.total_batch % (big.micro_batch * 1024) == 0


def test_a_run_says_where_its_weights_come_from(place, tmp_path):
    said = []
    Trainer(begin(place), tmp_path / "next", say=said.append).run()
    assert f"start: {place / 'runs' / 'base'}" in said
    config = preset("tiny", **TINY, questions="stories", conversations=20)
    config = start.fitted(config, "tiny", place / "runs")
    Trainer(config, tmp_path / "other", say=said.append).close()
    assert "start: tiny, stored with the package" in said
    said.clear()
    Trainer(begin(place), tmp_path / "next", resume=True, say=said.append).close()
    assert said and not [line for line in said if line.startswith("start: ")]


def rates(*flags):
    config = commands.read_train_flags(list(flags))[0]
    (line,) = [x for x in commands.describe_plan(config) if "rates below" in x] or [""]
    return (config.lr, config.min_lr, config.muon_lr), line


def test_trained_weights_get_lower_rates_where_none_is_given(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, line = rates("--init_from", "tiny")
    assert found == (0.002, 0.0001, 0.002)
    assert line == (
        "plan: trained weights, so rates below preset tiny's: "
        "lr 0.002, min_lr 0.0001, muon_lr 0.002"
    )
    assert rates("--init_from", "gpt2")[0] == pytest.approx((1.5e-4, 1.5e-5, 1.5e-4))
    of_gpt2 = rates("--init_from", "gpt2", "--preset", "gpt2-124m")[0]
    assert of_gpt2 == pytest.approx((1.5e-4, 1.5e-5, 1.5e-4))
    asked = ("--init_from", "tiny", "--questions", "stories")
    assert rates(*asked)[0] == (0.004, 0.0002, 0.004)
    assert rates("--init_from", "tiny", "--lr", "0.005")[0] == (0.005, 0.0004, 0.012)
    # a file of flags gives rates too; an adapter, a preset of its own and a resume keep theirs
    Path("a.toml").write_text("lr = 0.008", encoding="utf-8")
    usual = ((0.008, 0.0004, 0.012), "")
    assert rates("--init_from", "tiny", "--config", "a.toml") == usual
    assert rates("--init_from", "tiny", "--lora_rank", "2") == usual
    assert rates() == usual
    for name in ("tiny-sft", "tiny-lora"):
        config = preset(name)
        assert rates("--preset", name) == ((config.lr, config.min_lr, config.muon_lr), "")
        assert rates("--preset", name, "--init_from", "tiny")[0][0] == config.lr
    Trainer(begin(place), tmp_path / "runs" / "old").close()
    assert rates("--resume", "old") == usual


def test_resume_of_a_run_with_a_start_is_bit_exact(place, tmp_path):
    whole = Trainer(begin(place), tmp_path / "whole")
    whole.run()
    Trainer(begin(place, max_steps=8), tmp_path / "parts").run()
    # steps 8 to 12 of the same schedule: the first checkpoint of the whole run, resumed
    parts = tmp_path / "cut"
    config = begin(place)
    first = Trainer(config, parts)
    for _ in range(5):
        first.train_step()
    first.save()
    first.close()
    again = Trainer(read_config(parts), parts, resume=True)
    assert again.step == 5
    again.run()
    assert equal(again.model, whole.model)


def test_a_resume_needs_no_tokenizer_but_its_own(place, tmp_path):
    "The run that it began with is gone, and with it the tokenizer that the config names."
    runs_here = tmp_path / "runs"
    shutil.copytree(place / "runs" / "base", runs_here / "base")
    base = runs_here / "base"
    changes = {"init_from": str(base), "tokenizer": str(base / "tokenizer.json")}
    config = begin(place, **changes, max_steps=2, eval_every=2, choice_items=0)
    folder = runs_here / "new"
    Trainer(config, folder).run()
    shutil.rmtree(base)
    train(["--resume", str(folder), "--max_steps", "3", "--data_dir", str(place / "data")])
    assert saved(folder)["name"] == "step_00000003"
    shutil.copy(runs.STORED / "tiny" / "tokenizer.json", folder)
    with pytest.raises(ValueError, match="was trained on other data"):
        Trainer(read_config(folder), folder, resume=True)


def test_a_run_is_found_again_whatever_its_name_means_in_a_pattern(tmp_path):
    for name in ("a[1]", "a[1]-2", "a1", "b*", "bcd", "what?"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}", encoding="utf-8")
    found = {name: runs.auto_run(tmp_path, name).name for name in ("a1", "b*", "what?")}
    assert found == {name: name for name in found}
    assert runs.auto_run(tmp_path, "a[1]").name in ("a[1]", "a[1]-2")
    assert runs.auto_run(tmp_path, "b?d") is None


@pytest.mark.parametrize(
    "changes, part",
    [
        ({"n_layer": 2}, "has n_layer=1, not 2; leave --n_layer out, or begin without --init_from"),
        ({"block_size": 64, "micro_batch": 4}, "has block_size=32, not 64; leave --block_size out"),
        ({"tokenizer": "gpt2"}, "leave --tokenizer out, or add --grow to fit its table"),
        ({"init_from": "nowhere"}, "init_from='nowhere' is not a run in"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(place, tmp_path, changes, part):
    with pytest.raises((ValueError, FileNotFoundError)) as e:
        Trainer(begin(place, **changes), tmp_path / "next")
    assert part in str(e.value) and "\n" not in str(e.value)
    assert not (tmp_path / "next").exists()


def test_a_longer_context_repeats_positions_and_keeps_every_old_logit(place, tmp_path):
    base, tokenizer = load_run(place / "runs" / "base")
    config = begin(place, block_size=80, micro_batch=1, total_batch=80, grow=True)
    model = start.load_start(config, tokenizer)
    idx = torch.randint(tokenizer.n_vocab, (2, 32), generator=torch.Generator().manual_seed(1))
    assert torch.equal(model.eval()(idx)[0], base(idx)[0])
    wpe = model.transformer.wpe.weight
    assert wpe.shape[0] == 80 and torch.equal(wpe[32:64], wpe[:32])


BLOCKS = {
    "untied": {"tied": False},
    "modern": {"position": "rope", "norm": "rms", "mlp": "swiglu", "bias": False, "tied": False},
}


@pytest.mark.parametrize("block", BLOCKS)
def test_so_does_a_start_of_another_block(place, tmp_path, block):
    old = Tokenizer.load(place / "runs" / "base")
    shape = GPTConfig(1, 2, 32, 32, padded(old.n_vocab), **BLOCKS[block])
    theirs = GPT(shape, torch.Generator().manual_seed(1)).eval()
    export(theirs, old, tmp_path / "old")
    config = start.fitted(preset("tiny", **TINY), str(tmp_path / "old"))
    config = dataclasses.replace(config, block_size=64, total_batch=512, grow=True)
    ours = start.load_start(config, with_chat(old)).eval()
    assert ours.config.tied == shape.tied and ours.config.position == shape.position
    assert (ours.lm_head.weight is ours.transformer.wte.weight) == shape.tied
    idx = torch.randint(old.n_vocab, (2, 32), generator=torch.Generator().manual_seed(1))
    V = old.n_vocab
    assert torch.allclose(ours(idx)[0][..., :V], theirs(idx)[0][..., :V], rtol=0, atol=1e-5)


def test_another_tokenizer_keeps_the_rows_of_tokens_that_both_have(place):
    base, old = load_run(place / "runs" / "base")
    new = Tokenizer.train(["the cat sat on the mat " * 50, "umbrellas " * 90], 300, "new")
    config = begin(place, grow=True)
    model = start.load_start(config, new)
    was, now = base.transformer.wte.weight, model.transformer.wte.weight
    assert model.config.vocab_size == padded(new.n_vocab) == len(now)
    both = [t for t in new.ranks if t in old.ranks]
    fresh = [t for t in new.ranks if t not in old.ranks]
    assert len(both) > 256 and fresh
    assert all(torch.equal(now[new.ranks[t]], was[old.ranks[t]]) for t in both)
    token = fresh[0]
    pieces = encode_piece(token, old.ranks)
    assert len(pieces) > 1
    assert torch.allclose(now[new.ranks[token]], was[pieces].mean(0))
    assert model.lm_head.weight is now and torch.equal(now[new.eot], was[old.eot])


# what is trained: everything, what is not frozen, or an adapter

ADAPTED = {"lora_rank": 2, "lora_alpha": 8.0, "optimizer": "adamw"}
ADAPTED |= {"lora_parts": (*lora.PARTS, "lm_head")}
KINDS = {
    "all": {},
    "frozen": {"freeze": ("wte", "h.0.attn", "bias")},
    "muon": {"lora_rank": 2},
    "lora": ADAPTED,
}


def test_the_parameters_are_listed_as_the_model_has_them(place):
    for kind in KINDS.values():
        config = begin(place, **kind)
        model = start.load_start(config, Tokenizer.load(config.tokenizer))
        rows = model.config.vocab_size
        sizes = (config.n_layer, config.n_embd, config.block_size, rows)
        want = {n: tuple(p.shape) for n, p in model.named_parameters()}
        assert tensor_shapes(config, rows) == want and numbers(want) == count_params(*sizes)
        start.choose_trained(config, model)
        trained = {n: tuple(p.shape) for n, p in model.named_parameters() if p.requires_grad}
        assert trained_shapes(config, rows) == trained
        memory = 0
        optimizers = build_optimizers(model, config.optimizer)
        model(*[torch.zeros(1, 4, dtype=torch.int64)] * 2)[1].backward()
        for o in optimizers:
            o.step()
            tensors = [t for s in o.state.values() for t in s.values()]
            memory += sum(t.nbytes for t in tensors)
        assert trained_bytes(config, rows) == memory


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_chosen_moves(place, tmp_path, kind):
    trainer = Trainer(begin(place, **KINDS[kind]), tmp_path / "next")
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.run()
    moved = {n for n, p in trainer.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n, p in trainer.model.named_parameters() if p.requires_grad}
    held = {id(p) for o in trainer.optimizers for g in o.param_groups for p in g["params"]}
    assert held == {id(p) for p in trainer.model.parameters() if p.requires_grad}


@pytest.mark.parametrize("kind", KINDS)
def test_resume_is_bit_exact_whatever_is_trained(place, tmp_path, kind):
    config = begin(place, **KINDS[kind])
    Trainer(config, tmp_path / "whole").run()
    first = Trainer(config, tmp_path / "cut")
    for _ in range(5):
        first.train_step()
    first.save()
    first.close()
    again = Trainer(read_config(tmp_path / "cut"), tmp_path / "cut", resume=True)
    assert again.step == 5
    again.run()
    assert unlike(saved(tmp_path / "whole"), saved(tmp_path / "cut")) == []


def test_a_resume_with_other_choices_is_refused(place, tmp_path):
    config = begin(place, **ADAPTED)
    Trainer(config, tmp_path / "next").run()
    for changes in ({"lora_rank": 3}, {"lora_alpha": 1.0}, {"lora_rank": 0}):
        with pytest.raises(ValueError, match="use lora_"):
            Trainer(dataclasses.replace(config, **changes), tmp_path / "next", resume=True)


def test_merged_is_unmerged_and_every_command_takes_the_run(place, tmp_path):
    trainer = Trainer(begin(place, **ADAPTED), tmp_path / "next")
    trainer.run()
    idx = torch.randint(200, (2, 32), generator=torch.Generator().manual_seed(1))
    unmerged = trainer.model.eval()(idx)[0]
    merged, tokenizer = load_run(tmp_path / "next")
    assert not lora.lora_layers(merged) and type(merged) is type(trainer.model)
    assert (merged(idx)[0] - unmerged).abs().max() <= 1e-6 * unmerged.abs().max()
    folder = export(merged, tokenizer, tmp_path / "export")
    theirs = GPT2LMHeadModel.from_pretrained(folder)
    assert torch.allclose(theirs(idx).logits, unmerged[..., : tokenizer.n_vocab], atol=1e-5)
    found = evaluate(EvalConfig(model=str(tmp_path / "next"), tasks="stories", choice_items=4))
    figures = next(iter(found["stories"].values()))
    assert figures["n"] == 4


def adapted(place, tmp_path, parts=ADAPTED["lora_parts"]):
    "A trained adapter's folder, its model, an export of its base, ids."
    trainer = Trainer(begin(place, **ADAPTED | {"lora_parts": parts}), tmp_path / "next")
    trainer.run()
    base, tokenizer = load_run(place / "runs" / "base")
    export(base, tokenizer, tmp_path / "base")
    idx = torch.randint(200, (2, 32), generator=torch.Generator().manual_seed(1))
    return tmp_path / "next" / "adapter", trainer.model.eval(), tmp_path / "base", idx


@pytest.mark.parametrize("parts", [lora.PARTS, ADAPTED["lora_parts"]], ids=["blocks", "head"])
def test_peft_opens_our_adapter(place, tmp_path, parts):
    peft = pytest.importorskip("peft")
    folder, ours, base, idx = adapted(place, tmp_path, parts)
    size = sum(f.stat().st_size for f in folder.iterdir())
    assert size < 16_000 and {f.name for f in folder.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip
    plain = GPT2LMHeadModel.from_pretrained(base)
    before = plain(idx).logits
    theirs = peft.PeftModel.from_pretrained(plain, folder).eval()
    logits = ours(idx)[0][..., : before.shape[-1]]
    assert (before - logits).abs().max() > 1e-2  # it does something
    assert torch.allclose(theirs(idx).logits, logits, rtol=0, atol=1e-5)
    if "lm_head" not in parts:  # peft would merge into the tied table, and says so
        merged = theirs.merge_and_unload()
        assert torch.allclose(merged(idx).logits, logits, rtol=0, atol=1e-5)


def test_an_adapter_of_the_stored_model_opens_beside_a_run_of_its_name(place, tmp_path):
    model, _ = from_pretrained(runs.STORED / "tiny")
    lora.add_lora(model, 2, 8.0, generator=torch.Generator().manual_seed(1))
    for name, p in model.named_parameters():
        if "lora_B" in name:
            p.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(2))
    folder = lora.save_adapter(model, tmp_path / "runs/tiny-lora/adapter", "tiny")
    idx = torch.randint(200, (2, 32), generator=torch.Generator().manual_seed(1))
    want = model.eval()(idx)[0]
    shutil.copytree(place / "runs" / "base", tmp_path / "runs" / "tiny")
    found, _ = load_model(str(folder), tmp_path / "runs")
    assert torch.allclose(found(idx)[0], want, atol=1e-5)
    assert start.start_sizes(str(folder), tmp_path / "runs")["n_layer"] == 2
    # an adapter of the run still belongs to the run
    mine, _ = load_run(tmp_path / "runs" / "tiny")
    folder = lora.save_adapter(lora.add_lora(mine, 2, 8.0), tmp_path / "runs/mine/adapter", "tiny")
    assert load_model(str(folder), tmp_path / "runs")[0].config.n_layer == 1


def test_we_open_an_adapter_of_peft(place, tmp_path):
    peft = pytest.importorskip("peft")
    _, _, base, idx = adapted(place, tmp_path)
    config = peft.LoraConfig(
        r=3, lora_alpha=6, target_modules=["c_attn", "mlp.c_proj"], fan_in_fan_out=True
    )
    theirs = peft.get_peft_model(GPT2LMHeadModel.from_pretrained(base), config).eval()
    draw = torch.Generator().manual_seed(2)
    for name, p in theirs.named_parameters():
        if "lora_B" in name:
            p.data.normal_(0, 0.1, generator=draw)
    theirs.save_pretrained(tmp_path / "theirs")
    model, _ = from_pretrained(base)
    lora.load_adapter(model, tmp_path / "theirs")
    assert torch.allclose(model(idx)[0], theirs(idx).logits, rtol=0, atol=1e-5)
    opened, _ = load_model(str(tmp_path / "theirs"))  # finds its base, and merges
    assert torch.allclose(opened(idx)[0], theirs(idx).logits, rtol=0, atol=1e-5)


TAUGHT = {"conversations": 40, "max_steps": 2, "eval_every": 2, "choice_items": 4}
TAUGHT |= {"total_batch": 512, "micro_batch": 4, "warmup_steps": 1, "device": "cpu"}


@pytest.mark.parametrize("parts", [lora.PARTS, ADAPTED["lora_parts"]], ids=["blocks", "head"])
def test_an_adapter_of_a_chat_opens_with_its_tokens(place, tmp_path, parts):
    config = start.fitted(preset("tiny-sft"), "tiny", str(place / "runs"))
    config = dataclasses.replace(config, **ADAPTED | TAUGHT | {"lora_parts": parts})
    trainer = Trainer(config, tmp_path / "next")
    trainer.run()
    folder = tmp_path / "next" / "adapter"
    model, tokenizer = load_model(str(folder), place / "runs")
    assert tokenizer.hash == trainer.tokenizer.hash and is_chat(tokenizer)
    idx = torch.randint(200, (2, 32), generator=torch.Generator().manual_seed(1))
    # of all ids that stand for something
    want, got = (m.eval()(idx)[0][..., : tokenizer.n_vocab] for m in (trainer.model, model))
    assert (got - want).abs().max() <= 1e-6 * want.abs().max()
    again = start.fitted(preset("tiny-sft"), str(folder), str(place / "runs"))  # it can go on
    assert Tokenizer.load(again.tokenizer).hash == tokenizer.hash
    (folder / "tokenizer.json").write_bytes((ROOT / "tests/old/run/tokenizer.json").read_bytes())
    with pytest.raises(ValueError, match="is not the tokenizer of the base model; take it away"):
        load_model(str(folder), place / "runs")


def test_an_adapter_that_fits_no_model_is_not_written(place, tmp_path, capsys):
    said = []
    config = begin(place, **ADAPTED, block_size=16)
    Trainer(config, tmp_path / "next", say=said.append).run()
    assert not (tmp_path / "next" / "adapter").exists()
    (line,) = [line for line in said if line.startswith("adapter:")]
    assert "not written" in line and str(tmp_path / "next") in line


def test_an_adapter_is_a_model_by_itself_and_a_start(place, tmp_path):
    folder, ours, _, idx = adapted(place, tmp_path)
    model, tokenizer = load_model(str(folder), place / "runs")
    known = ..., slice(tokenizer.n_vocab)  # nobody asks for the logits of spare rows
    logits = ours(idx)[0][known]
    assert torch.allclose(model(idx)[0][known], logits, rtol=0, atol=3e-6)
    sizes = start.start_sizes(str(folder), place / "runs")
    assert sizes["n_embd"] == 32 and not sizes["tied"]  # its adapter sits at the head, too
    assert start.start_sizes(str(tmp_path / "next")) == sizes
    begun = start.load_start(begin(place, init_from=str(folder), tied=False), tokenizer)
    assert torch.allclose(begun.eval()(idx)[0][known], logits, rtol=0, atol=3e-6)
    chat = with_chat(tokenizer)  # four more rows, in both matrices
    grown = begin(place, init_from=str(folder), tied=False, grow=True, block_size=64, micro_batch=4)
    begun = start.load_start(grown, chat)
    assert torch.allclose(begun.eval()(idx)[0][known], logits, rtol=0, atol=3e-6)


def test_an_adapter_opens_wherever_its_run_lies(place, tmp_path, monkeypatch, capsys):
    trainer = Trainer(begin(place, **ADAPTED), place / "runs" / "adapted")
    trainer.run()
    idx = torch.randint(200, (2, 32), generator=torch.Generator().manual_seed(1))
    logits = trainer.model.eval()(idx)[0]
    monkeypatch.chdir(tmp_path)  # without a folder of runs
    folder = place / "runs" / "adapted" / "adapter"
    commands.export(["--run", str(folder)])
    merged, tokenizer = from_pretrained("exports/adapted")
    assert torch.allclose(merged(idx)[0], logits[..., : tokenizer.n_vocab], rtol=0, atol=3e-6)
    # an adapter beside an adapter, and one beside itself
    shutil.copytree(folder, "second")
    file = tmp_path / "second" / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {"base_model_name_or_path": str(folder)}), encoding="utf-8")
    assert start.start_sizes("second")["n_embd"] == 32
    with pytest.raises(ValueError, match="the weights beside it were not these"):
        load_model("second")
    file.write_text(json.dumps(config | {"base_model_name_or_path": "second"}), encoding="utf-8")
    for command, flag in ((commands.generate, "--run"), (commands.train, "--init_from")):
        capsys.readouterr()
        with pytest.raises(SystemExit) as e:
            command([flag, "second"])
        err = capsys.readouterr().err
        assert e.value.code == 2 and "names itself as its base model; write the" in err, err


def test_an_adapter_knows_the_table_and_the_last_norm_of_its_base(place, tmp_path):
    folder, _, base, _ = adapted(place, tmp_path, lora.PARTS)
    tokenizer = Tokenizer.load(place / "runs" / "base")
    for name in ("transformer.ln_f.weight", "transformer.wte.weight"):
        model, _ = from_pretrained(base)
        with torch.no_grad():
            model.get_parameter(name)[tokenizer.n_vocab - 1 if "wte" in name else 0] += 1
        with pytest.raises(ValueError, match="the token table, last norm or head beside it were"):
            lora.load_adapter(model, folder)
    model, _ = from_pretrained(base, padded(tokenizer.n_vocab + 200))  # spare rows may differ
    lora.load_adapter(model, folder)
    # one of before has the first hash only
    path = folder / "adapter_model.safetensors"
    tensors = safetensors.torch.load(path.read_bytes())
    header = {"format": "pt", "base_sha256": lora.base_hash(from_pretrained(base)[0])}
    path.write_bytes(safetensors.torch.save(tensors, header))
    lora.load_adapter(from_pretrained(base)[0], folder)


def test_an_adapter_knows_a_head_of_its_bases_own(tmp_path):
    shape = GPTConfig(1, 2, 16, 32, 300, tied=False)
    base = GPT(shape, torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(1)
    lora.save_adapter(lora.add_lora(copy.deepcopy(base), 2, 4.0, generator=draw), tmp_path)
    lora.load_adapter(copy.deepcopy(base), tmp_path)
    with torch.no_grad():
        base.lm_head.weight[299, 0] += 1
    with pytest.raises(ValueError, match="the token table, last norm or head beside it were"):
        lora.load_adapter(base, tmp_path)


def test_an_adapter_of_no_layer_is_refused(place, tmp_path):
    folder, _, base, _ = adapted(place, tmp_path)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8")) | {"target_modules": []}
    file.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match=r"target_modules is \[\], expected names of layers"):
        lora.load_adapter(from_pretrained(base)[0], folder)


def test_an_adapter_for_another_model_is_refused(place, tmp_path):
    folder, _, base, _ = adapted(place, tmp_path)
    same_shape = GPT(from_pretrained(base)[0].config, torch.Generator().manual_seed(3))
    wider = GPT(dataclasses.replace(same_shape.config, n_embd=64))
    raw = (folder / "adapter_model.safetensors").read_bytes()
    for model, part in ((same_shape, "the weights beside it were not these"), (wider, "not these")):
        with pytest.raises(ValueError, match="is an adapter for another model") as e:
            lora.load_adapter(model, folder)
        assert part in str(e.value) and "open it beside base" in str(e.value)
        assert "\n" not in str(e.value)
    tensors = safetensors.torch.load(raw)  # without the hash, as peft writes it
    safetensors.torch.save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"for another model: .* has shape .*, expected"):
        lora.load_adapter(wider, folder)
    (folder / "adapter_model.safetensors").write_bytes(raw[:100])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        lora.load_adapter(same_shape, folder)
    with pytest.raises(ValueError, match="is an adapter, not a run"):
        find_run(str(folder), place / "runs")


@pytest.mark.parametrize(
    "changes, part",
    [
        ({"freeze": ("head",)}, "freeze='head' names no part of the model; expected some of wte"),
        ({"freeze": ("wte", "wpe", "h", "ln_f")}, "leaves nothing to train; name fewer parts"),
        ({"lora_rank": 2, "lora_parts": ("c_q",)}, "lora_parts='c_q' names no layer of a block"),
        ({"lora_rank": 2, "lora_parts": ()}, "leaves nothing to train; try --lora_parts c_attn"),
        ({"lora_rank": 2, "init_from": None}, "adapts trained weights, and none are named"),
        ({"lora_rank": 2, "freeze": ("wte",)}, "leave --freeze out"),
        ({"lora_rank": -1}, "lora_rank=-1 must be 0 or more"),
        ({"lora_rank": 2, "lora_alpha": 0.0}, "lora_alpha=0.0 multiplies all that"),
        ({"lora_rank": 2, "lora_alpha": -1.0}, "lora_alpha=-1.0 must be a number, 0 or more"),
    ],
)
def test_choices_that_train_nothing_are_refused(place, changes, part):
    with pytest.raises(ValueError) as e:
        begin(place, **changes)
    assert part in str(e.value) and "\n" not in str(e.value)


def test_the_layers_of_an_adapter_have_one_list():
    assert TrainConfig.lora_parts == lora.PARTS and runs.ADAPTER == lora.ADAPTER


def test_a_frozen_token_is_cheaper():
    whole = flops_per_token(1000, 2, 4, 8)
    assert whole == 6 * 1000 + 12 * 2 * 4 * 8
    assert flops_per_token(1000, 2, 4, 8, 100) == whole - 2 * 900


# real processes: killed, and many ranks

SCRIPT = """
import json, sys
from pathlib import Path
from gpt2edu.cli.commands import train
from gpt2edu.cli.commands import train
from gpt2edu.data import cache
from gpt2edu.train.runs import holds_run
cache.N_STORIES = 400
folder, *flags = sys.argv[1:]
train([*(["--resume", folder] if holds_run(folder) else []), *flags])
"""
LONG = {"max_steps": 90, "eval_every": 30, "save_every": 3, "sample_every": 100, "choice_items": 0}


def process(place, tmp_path, name, kind, nproc=0, **other):
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    values = TINY | LONG | KINDS[kind] | {"data_dir": place / "data", "out_dir": place / "runs"}
    values |= {"init_from": "base", "name": name} | other
    for size in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size"):
        values.pop(size)  # they come from the start
    several = {k: values.pop(k) for k in ("freeze", "lora_parts") if k in values}
    flags = [f"--{k}={v}" for k, v in values.items()]
    for k, names in several.items():
        flags += [f"--{k}", *names]
    head = [sys.executable]
    if nproc:
        head += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={nproc}"]
    args = [*head, tmp_path / "script.py", place / "runs" / name, *flags]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return warm.start(args, env=env, stdout=warm.PIPE, stderr=warm.STDOUT)


SOME = ["lora", pytest.param("frozen", marks=pytest.mark.slow)]


@pytest.mark.parametrize("kind", SOME)
def test_killed_resume_ends_with_the_same_bits(place, tmp_path, kind):
    whole = process(place, tmp_path, f"whole-{kind}", kind)
    out = whole.communicate(timeout=600)[0]
    assert whole.returncode == 0, out[-2000:]
    hit = 0
    for step in ("step 1/", "step 30/"):  # killed a moment after these lines
        p = process(place, tmp_path, f"killed-{kind}", kind)
        for line in p.stdout:
            if line.startswith(step):
                break
        p.kill()
        hit += p.wait() == -signal.SIGKILL
        p.communicate()
    last = process(place, tmp_path, f"killed-{kind}", kind)
    out = last.communicate(timeout=600)[0]
    assert last.returncode == 0 and hit == 2, out[-2000:]
    assert unlike(*(saved(place / "runs" / f"{name}-{kind}") for name in ("whole", "killed"))) == []


@pytest.mark.parametrize("kind", SOME)
def test_two_ranks_train_as_one(place, tmp_path, kind):
    for n in (0, 2):
        p = process(place, tmp_path, f"ranks-{kind}-{n}", kind, n, max_steps=12, micro_batch=4)
        out = p.communicate(timeout=600)[0]
        assert p.returncode == 0, out[-2000:]
    one, two = (saved(place / "runs" / f"ranks-{kind}-{n}")[checkpoint.MODEL] for n in (0, 2))
    assert one.keys() == two.keys() and any("lora_B" in name for name in one) == (kind == "lora")
    base = load_run(place / "runs" / "base")[0].state_dict()
    for name in one:
        assert torch.allclose(one[name], two[name], rtol=0, atol=1e-5), name
    moved = [n for n in one if n not in base or not torch.equal(one[n], base[n])]
    assert moved and len(moved) < len(one)


@pytest.mark.parametrize(
    "flags, part",
    [
        (["--init_from", "nowhere"], "init_from='nowhere' is not a run in"),
        (["--init_from", "tiny", "--n_layer", "3"], "init_from=tiny has n_layer=2, not 3"),
        (["--init_from", "tiny", "--block_size", "64", "--tokenizer", "gpt2"], "leave --tokenizer"),
        (["--lora_rank", "2"], "adapts trained weights, and none are named"),
        (["--init_from", "tiny", "--freeze", "head"], "freeze='head' names no part"),
    ],
)
def test_bad_starts_end_a_command_with_one_line_and_code_2(
    place, tmp_path, monkeypatch, capsys, flags, part
):
    monkeypatch.chdir(tmp_path)
    small = ["--dataset", "pydocs", "--total_batch", "4096", "--device", "cpu"]
    with pytest.raises(SystemExit) as e:
        train([*flags, *small])
    assert e.value.code == 2
    err = capsys.readouterr().err
    assert part in err and err.count("\n") == 1 and err.startswith("gpt2edu_train: ")
    assert not list(tmp_path.glob("runs/*/*"))
