"""The trainer: the log says what happened.

No stop, kill, full disk or other clock changes the weights.
"""

import collections
import dataclasses
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import torch
import warm
from small_runs import TINY, saved, unlike
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEventAvg

from gpt2edu.data import cache as prepare
from gpt2edu.data.loader import Ahead, Loader
from gpt2edu.data.shards import write_shards
from gpt2edu.evaluate import hellaswag
from gpt2edu.text import corpus
from gpt2edu.train import checkpoint, trainer
from gpt2edu.train import config as plan
from gpt2edu.train import interrupts as stops
from gpt2edu.train.profile import costliest
from gpt2edu.train.runs import load_run
from gpt2edu.train.trainer import RunLog, Trainer


@pytest.fixture(scope="module")
def few_stories():
    "The embedded corpus, but small enough to prepare in a moment."
    old, prepare.N_STORIES = prepare.N_STORIES, 400
    yield
    prepare.N_STORIES = old


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, few_stories):
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def config(data_dir, tmp_path):
    return plan.preset("tiny", **TINY, data_dir=str(data_dir), out_dir=str(tmp_path))


def run(config, folder, **kw):
    t = Trainer(config, folder, **kw)
    return t, t.run()


def losses(folder):
    return {
        e["step"]: e["loss"] for e in RunLog(folder / "log.jsonl").read() if e["event"] == "train"
    }


# what a run leaves behind


@pytest.fixture(scope="module")
def first(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("first") / "tiny"
    said = []
    config = plan.preset("tiny", **TINY | {"max_steps": 40}, data_dir=str(data_dir))
    t, done = run(config, folder, say=said.append)
    return t, done, folder, said


def test_the_log(first):
    _, done, folder, _ = first
    lines = [
        json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    count = collections.Counter(e["event"] for e in lines)
    assert count == {"start": 1, "train": 4, "val": 10, "sample": 5, "save": 10, "done": 1}
    assert (
        lines[0]["event"] == "start"
        and lines[0]["config"]["n_layer"] == 1
        and "torch" in lines[0]["hardware"]
    )
    last = lines[-1]
    assert last["event"] == "done"
    for key in ("val_loss", "floor", "bigram", "story_choice", "seconds", "tokens"):
        assert math.isfinite(last[key]), key
    assert last["tokens"] == 40 * 256 and 0 <= last["story_choice"] <= 1
    assert (
        last["val_loss"]
        == done["val_loss"]
        == [e for e in lines if e["event"] == "val"][-1]["loss"]
    )
    assert [e["step"] for e in lines if e["event"] == "train"] == [10, 20, 30, 40]


def test_the_loss_falls_and_stays_above_the_floor(first):
    _, done, folder, _ = first
    curve = RunLog(folder / "log.jsonl").curve("val", "loss")[1]
    assert curve[-1] < curve[0] < math.log(384) + 0.5
    assert 0 < done["floor"] < done["bigram"] and done["val_loss"] > done["floor"]


def test_the_floor_is_the_entropy_of_the_validation_stories(first):
    t, done, *_ = first
    ids = t.val_shards[: t.config.val_tokens + 1].tolist()
    texts = t.tokenizer.decode(ids).split("<|endoftext|>")[1:-1]  # the last may be cut
    assert texts == [s.text for s in corpus.stories(len(texts))]
    tokens = sum(len(t.tokenizer.encode(text)) + 1 for text in texts)
    assert done["floor"] == pytest.approx(
        -sum(s.logprob for s in corpus.stories(len(texts))) / tokens, rel=1e-9
    )


def test_validation_text_is_not_trained_on(first):
    t, *_ = first
    val, train = (t.tokenizer.decode(s[: len(s)].tolist()) for s in (t.val_shards, t.train_shards))
    assert val + train == "".join("<|endoftext|>" + s.text for s in corpus.stories(400))


def test_the_plot_is_a_png(first):
    raw = (first[2] / "loss.png").read_bytes()
    assert (
        raw.startswith(b"\x89PNG\r\n\x1a\n") and raw.endswith(b"IEND\xaeB`\x82") and len(raw) > 5000
    )


def test_a_sample_on_the_clock_is_short(config, tmp_path):
    "All ranks wait for it. Those at the end are as long as the context, since nobody waits."
    longer = dataclasses.replace(config, block_size=128, micro_batch=2, max_steps=3, sample_every=1)
    t, done = run(longer, tmp_path / "run")
    *clock, last = (e["texts"] for e in t.log.read() if e["event"] == "sample")
    assert [len(texts) for texts in clock] == [1, 1] and last == done["samples"]
    # 64 tokens beside 128: about half the characters
    assert all(0 < len(text) < 0.7 * max(map(len, last)) for (text,) in clock)


def test_samples_are_whole_text_of_known_ids(first):
    _, done, _, said = first
    assert len(done["samples"]) == 3 and all(isinstance(s, str) for s in done["samples"])
    assert all("\n" not in line for line in said if "sample" not in line)


def test_the_folder(first):
    folder = first[2]
    assert sorted(p.name for p in folder.iterdir()) == [
        "checkpoints", "config.json", "log.jsonl", "loss.png", "tokenizer.json",
    ]  # fmt: skip
    # keep_last
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == [
        "step_00000036",
        "step_00000040",
    ]
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["max_steps"] == 40


def test_a_second_run_finds_its_shards(config, tmp_path, monkeypatch, first):
    monkeypatch.setattr(prepare, "write_shards", lambda *a, **k: pytest.fail("prepared again"))
    said = []
    Trainer(config, tmp_path / "b", say=said.append)
    assert any("prepared before" in line for line in said)


def test_shards_are_found_by_content(config, tmp_path, first):
    def folder(**changes):
        return prepare.prepare_data(
            dataclasses.replace(config, data_dir=str(tmp_path / "data"), **changes)
        )[1].name

    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    a.write_text("Mia had a ball. " * 300 + "\n\n" + "Tom ran. " * 3000, encoding="utf-8")
    shutil.copy(a, b)
    one = folder(dataset=(str(a),))
    assert one == folder(dataset=(str(a),)) != folder(dataset=(str(a),), vocab_size=290)
    assert one.split("-")[1] == folder(dataset=(str(b),)).split("-")[1]  # the same content
    a.write_text(a.read_text(encoding="utf-8") + "x", encoding="utf-8")
    assert folder(dataset=(str(a),)) != one
    lines = "\n".join(json.dumps({"text": f"Mia had ball {i}. " * 20}) for i in range(200))
    (tmp_path / "c.txt").write_text(lines, encoding="utf-8")
    (tmp_path / "c.jsonl").write_text(lines, encoding="utf-8")
    assert folder(dataset=(str(tmp_path / "c.txt"),)) != folder(
        dataset=(str(tmp_path / "c.jsonl"),)
    )


# resume


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resume_is_bit_exact(config, tmp_path, dtype, optimizer):
    config = dataclasses.replace(config, dtype=dtype, optimizer=optimizer, choice_items=0)
    whole, done = run(config, tmp_path / "whole")
    # a run may begin with blocks computed twice, and go on without
    twice, said = dataclasses.replace(config, recompute=True, shard=True), []
    half = Trainer(twice, tmp_path / "half", say=said.append)
    assert said[-1].startswith("shard: no effect with one rank; start several with torchrun")
    for _ in range(7):  # a step at which nothing else happens
        half.train_step()
    half.save()
    del half
    rest, done2 = run(config, tmp_path / "half", resume=True)
    assert unlike(saved(tmp_path / "whole"), saved(tmp_path / "half")) == []
    assert done2["val_loss"] == done["val_loss"] and done2["samples"] == done["samples"]
    assert rest.loader.position == whole.loader.position


def test_resume_of_a_finished_run_ends_the_same(config, tmp_path):
    _, done = run(config, tmp_path / "a")
    before = saved(tmp_path / "a")
    _, again = run(config, tmp_path / "a", resume=True)
    assert unlike(before, saved(tmp_path / "a")) == []
    assert {k: v for k, v in again.items() if k != "seconds"} == {
        k: v for k, v in done.items() if k != "seconds"
    }


def test_resume_before_the_first_checkpoint_starts_again(config, tmp_path):
    run(config, tmp_path / "a")
    t = Trainer(config, tmp_path / "b")
    t.train_step()
    t.close()
    said = []
    run(config, tmp_path / "b", resume=True, say=said.append)
    assert any("no checkpoint yet" in line for line in said)
    assert unlike(saved(tmp_path / "a"), saved(tmp_path / "b")) == []


def test_resume_falls_back_when_the_last_checkpoint_is_cut_short(config, tmp_path):
    run(config, tmp_path / "a")
    before = saved(tmp_path / "a")
    path = checkpoint.latest(tmp_path / "a" / "checkpoints") / checkpoint.MODEL
    path.write_bytes(path.read_bytes()[:1000])
    run(config, tmp_path / "a", resume=True)
    assert unlike(before, saved(tmp_path / "a")) == []


OTHER = {
    "n_layer": 2, "beta2": 0.9, "optimizer": "adamw", "seed": 1, "total_batch": 512,
    "val_tokens": 1024, "vocab_size": 290,
}  # fmt: skip


@pytest.mark.parametrize("change", [{k: v} for k, v in OTHER.items()], ids=str)
def test_resume_as_another_run_is_refused_and_changes_nothing(config, tmp_path, change):
    t = Trainer(config, tmp_path / "a")
    t.save()
    t.close()
    before = {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()}
    with pytest.raises(ValueError) as e:
        Trainer(dataclasses.replace(config, **change), tmp_path / "a", resume=True)
    assert "\n" not in str(e.value) and next(iter(change)) in str(e.value)
    assert {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()} == before


def test_a_run_goes_on_with_a_lower_lr(config, tmp_path):
    "What the trainer says to try after a spike has to work."
    run(dataclasses.replace(config, max_steps=4), tmp_path / "a")
    t = Trainer(
        dataclasses.replace(config, lr=1e-3, min_lr=1e-3, muon_lr=2e-3), tmp_path / "a", resume=True
    )
    t.train_step()
    assert t.step == 5
    assert [{g["lr"] for g in o.param_groups} for o in t.optimizers] == [{2e-3}, {1e-3}]


def test_resume_on_changed_text_is_refused(config, tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("\n\n".join(s.text * 5 for s in corpus.stories(60)), encoding="utf-8")
    config = dataclasses.replace(
        config, dataset=(str(text),), tokenizer="gpt2", total_batch=64, micro_batch=2
    )
    Trainer(config, tmp_path / "a").save()
    Trainer(config, tmp_path / "a", resume=True)
    known = saved_state(tmp_path / "a")["data"]
    assert known["source"]["sha256"] and [len(sha) for sha in known["train"]] == [64]
    before = text.read_text(encoding="utf-8")
    shards = set(map(str, (tmp_path / "data").glob("*")))
    text.write_text(before.replace("Mia", "Tom"), encoding="utf-8")
    for forget in (False, True):  # a checkpoint of an earlier version knows a name only
        if forget:
            forget_data(tmp_path / "a")
        with pytest.raises(ValueError, match=r"a\.txt: the file changed since the run began") as e:
            Trainer(config, tmp_path / "a", resume=True)
        assert "\n" not in str(e.value)
    assert set(map(str, (tmp_path / "data").glob("*"))) == shards  # nothing was prepared
    text.write_text(before, encoding="utf-8")
    Trainer(config, tmp_path / "a", resume=True)


def saved_state(folder):
    raw = (checkpoint.latest(folder / "checkpoints") / checkpoint.STATE).read_bytes()
    return checkpoint.unseal(raw)["state"]


def forget_data(folder):
    "Make the latest checkpoint one of an earlier version."
    path = checkpoint.latest(folder / "checkpoints") / checkpoint.STATE
    content = checkpoint.unseal(path.read_bytes())
    del content["state"]["data"]
    path.write_bytes(checkpoint.sealed(content))


@pytest.mark.parametrize("manifest", [True, False])
def test_resume_on_other_shards_of_the_same_name_is_refused(config, tmp_path, manifest):
    "With --shards it was silent: only the folder's name was compared."
    texts = [s.text * 5 for s in corpus.stories(60)]
    tokenizer = prepare.get_tokenizer("gpt2")

    def write(texts):
        shutil.rmtree(tmp_path / "shards", ignore_errors=True)
        write_shards(texts, tokenizer, tmp_path / "shards", "a", val_tokens=2048)
        if not manifest:
            (tmp_path / "shards" / "manifest.json").unlink()

    write(texts)
    sizes = {"total_batch": 64, "micro_batch": 2, "tokenizer": "gpt2"}
    config = dataclasses.replace(config, shards=str(tmp_path / "shards"), **sizes)
    run(dataclasses.replace(config, max_steps=2), tmp_path / "a")
    write(texts)
    Trainer(config, tmp_path / "a", resume=True)
    write([t.replace("the", "a") for t in texts])
    before = {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match=r"was trained on other data: .*_000.*bin has SHA") as e:
        Trainer(config, tmp_path / "a", resume=True)
    assert "\n" not in str(e.value)
    assert {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()} == before
    forget_data(tmp_path / "a")
    Trainer(config, tmp_path / "a", resume=True)  # nothing is known but the name


def test_the_same_shards_may_lie_elsewhere(config, tmp_path):
    run(dataclasses.replace(config, max_steps=2), tmp_path / "a")
    shutil.copytree(config.data_dir, tmp_path / "moved")
    moved = dataclasses.replace(config, data_dir=str(tmp_path / "moved"))
    assert Trainer(moved, tmp_path / "a", resume=True).step == 2


def test_a_second_run_in_a_folder_is_refused(config, tmp_path):
    "Case 02: a cell was run again with fewer steps, and load_run gave the first run's weights."
    first, _ = run(config, tmp_path / "a")
    before = {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()}
    for folder in (tmp_path / "a", str(tmp_path / "a")):
        with pytest.raises(ValueError, match=r"holds a run already.*resume=True") as e:
            Trainer(dataclasses.replace(config, max_steps=6, seed=7), folder)
        assert "\n" not in str(e.value)
    assert {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()} == before
    wte = load_run(tmp_path / "a")[0].transformer.wte.weight
    assert torch.equal(wte, first.model.transformer.wte.weight)


def test_two_trainers_in_one_process_do_not_write_one_folder(config, tmp_path):
    "Another cell of a notebook: the lock is the Trainer's own, not the process's."
    config = dataclasses.replace(config, max_steps=2)
    busy = r"another Trainer of this process is writing there; call its close\(\)"
    first = Trainer(config, tmp_path / "a")
    for resume in (True, False):
        with pytest.raises(ValueError, match=busy) as e:
            Trainer(config, str(tmp_path / "a"), resume)
        assert "\n" not in str(e.value) and f"{tmp_path / 'a'}: " in str(e.value)
        assert first.locked()  # the refused one has not given it back
    first.close()
    second = Trainer(config, tmp_path / "a", resume=True)
    with pytest.raises(ValueError, match=busy):
        first.run()
    assert second.run() and second.step == 2
    assert not second.locked()  # the folder is free once a run ends


def test_resume_with_a_longer_horizon_is_remembered(config, tmp_path):
    run(config, tmp_path / "a")
    t, _ = run(dataclasses.replace(config, max_steps=16), tmp_path / "a", resume=True)
    assert (
        t.step == 16
        and json.loads((tmp_path / "a" / "config.json").read_text(encoding="utf-8"))["max_steps"]
        == 16
    )


def test_a_cut_line_in_the_log_does_not_swallow_the_next(tmp_path):
    log = RunLog(tmp_path / "log.jsonl")
    log.write("val", step=1, loss=2.0)
    with open(log.path, "a", encoding="utf-8") as f:
        f.write('{"event": "val", "st')
    log.write("val", step=2, loss=1.0)
    log.write("val", step=1, loss=3.0)  # step 1 again, after a resume
    assert log.curve("val", "loss") == ([1, 2], [3.0, 1.0])


# what must not matter


def test_validation_does_not_depend_on_the_micro_batch(config, tmp_path):
    values = []
    for b in (1, 4, 8):
        t = Trainer(dataclasses.replace(config, micro_batch=b), tmp_path / str(b))
        values.append(t.judge()["loss"])
    assert max(values) - min(values) < 1e-5  # fp32 sums in another order
    assert t.judge()["loss"] == values[-1]


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_validation_judges_each_token_once_after_enough_context(config, tmp_path, overlap):
    t = Trainer(dataclasses.replace(config, val_overlap=overlap, val_tokens=400), tmp_path / "a")
    T, skip, judged, total = 32, int(32 * overlap), [], 0.0
    for start in range(0, 400 - T + 1, T - skip):
        ids = torch.from_numpy(t.val_shards[start : start + T + 1].astype("int64"))
        nats = torch.nn.functional.cross_entropy(
            t.model(ids[None, :-1])[0][0], ids[1:], reduction="none"
        )
        judged += range(start + 1 + skip, start + 1 + T)
        total += float(nats[skip:].sum())
    assert len(judged) == len(set(judged)) and judged == sorted(judged)
    assert t.judge()["loss"] == pytest.approx(total / len(judged), abs=1e-5)


def test_validation_and_samples_do_not_disturb_training(config, tmp_path):
    for every in (1, 1000):
        clock = {"eval_every": every, "sample_every": every, "save_every": every}
        run(dataclasses.replace(config, **clock, choice_items=0), tmp_path / str(every))
    assert unlike(saved(tmp_path / "1"), saved(tmp_path / "1000")) == []


def test_a_profile_tells_where_the_time_goes_and_changes_nothing(config, tmp_path):
    said, config = [], dataclasses.replace(config, max_steps=12, eval_every=12)
    run(config, tmp_path / "plain")
    run(dataclasses.replace(config, profile=3), tmp_path / "watched", say=said.append)
    assert unlike(saved(tmp_path / "plain"), saved(tmp_path / "watched")) == []
    lines = [line for line in said if line.startswith("profile: ")]
    kernels, (where, parts) = lines[:-2], lines[-2:]
    assert len(kernels) == 10 and all(re.search(r"\d+\.\d%  \S.* calls\)$", k) for k in kernels)
    found = {name: int(n) for name, n in re.findall(r"(\w+) (\d+)%", parts)}
    assert list(found) == ["data", "forward", "backward", "optimizer", "other"]
    assert 95 <= sum(found.values()) <= 105 and found["backward"] > 0
    assert str(tmp_path / "watched" / "profile" / "trace.json") in where
    (trace,) = (tmp_path / "watched" / "profile").iterdir()
    names = {e.get("name") for e in json.loads(trace.read_bytes())["traceEvents"]}
    assert {"data", "forward", "backward", "optimizer", "aten::addmm"} <= names


def test_a_profile_that_cannot_be_written_does_not_end_the_run(config, tmp_path):
    said, few = [], {"max_steps": 12, "choice_items": 0, "eval_every": 99}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "profile").touch()
    _, done = run(dataclasses.replace(config, profile=3, **few), tmp_path / "a", say=said.append)
    path = tmp_path / "a" / "profile" / "trace.json"
    line = f"profile: cannot write {path} (File exists); training continues without it"
    assert done and line in said
    assert [x for x in said if x.startswith("profile: data ")]


@pytest.mark.parametrize("steps", [2, 5, 8])
def test_a_profile_says_that_a_run_was_too_short_for_it(config, tmp_path, steps):
    said, few = [], {"max_steps": steps, "choice_items": 0, "eval_every": 99}
    config = dataclasses.replace(config, profile=3, **few)
    t, _ = run(config, tmp_path / "a", say=said.append)
    lines = [line for line in said if line.startswith("profile: not")]
    assert lines == [f"profile: not finished: it needs 9 steps, the run made {steps}"]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as other:
        torch.ones(2) + 1
    assert any(e.key == "aten::add" for e in other.key_averages())  # PyTorch's has ended
    assert t.run() and len([line for line in said if line.startswith("profile: not")]) == 1


def test_a_kernel_of_a_gpu_counts_once():
    def average(name, kind, time, annotation=False):
        event = FunctionEventAvg()
        event.key, event.count, event.device_type = name, 4, kind
        event.self_device_time_total = time
        event.is_user_annotation = annotation
        return event

    cpu, cuda = DeviceType.CPU, DeviceType.CUDA
    events = [
        average("aten::mm", cpu, 600),  # has ordered the kernel below
        average("sm90_xmma_gemm", cuda, 600),
        average("nccl:all_reduce", cuda, 400, annotation=True),  # as long as the kernel below
        average("ncclDevKernel_AllReduce", cuda, 400),
        average("forward", cuda, 900, annotation=True),
    ]
    assert [*costliest(events, "cuda")] == [
        " 60.0%  sm90_xmma_gemm (4 calls)",
        " 40.0%  ncclDevKernel_AllReduce (4 calls)",
        " 40.0%  between the ranks, all together",
    ]


def test_the_global_random_state_does_not_matter(config, tmp_path):
    for i in (0, 1):
        torch.manual_seed(i)
        random.seed(i)
        run(dataclasses.replace(config, choice_items=0), tmp_path / str(i))
    assert unlike(saved(tmp_path / "0"), saved(tmp_path / "1")) == []


@pytest.mark.parametrize("optimizer,lr", [("adamw", 1e-3), ("muon", 1e-3)])
def test_gradient_accumulation_gives_the_same_losses(config, tmp_path, optimizer, lr):
    seen = []
    for b in (8, 2):
        c = dataclasses.replace(
            config, micro_batch=b, optimizer=optimizer, lr=lr, muon_lr=lr, min_lr=lr
        )
        t = Trainer(c, tmp_path / f"{b}")
        seen.append([t.train_step() for _ in range(8)])
        assert t.position == 64
    for (a, na), (b, nb) in zip(*seen, strict=True):
        assert abs(a - b) < 1e-5 and abs(na - nb) < 1e-4  # fp32 sums in another order


def test_the_learning_rate_follows_the_schedule(config, tmp_path):
    t = Trainer(config, tmp_path / "a")
    seen = []
    for _ in range(config.max_steps):
        t.train_step()
        seen.append([g["lr"] / g["peak_lr"] for o in t.optimizers for g in o.param_groups])
    assert seen[0] == pytest.approx([0.5] * len(seen[0])) and seen[1] == pytest.approx(
        [1.0] * len(seen[0])
    )
    assert all(a >= b for x, y in itertools.pairwise(seen[1:]) for a, b in zip(x, y, strict=True))


# what goes wrong


@pytest.mark.parametrize("clock", [1, 100])
def test_divergence_is_one_line_and_is_not_saved(config, tmp_path, clock):
    config = dataclasses.replace(
        config,
        lr=1e30, min_lr=1e30, muon_lr=1e30, save_every=clock, eval_every=clock, warmup_steps=0,
        choice_items=0,
    )  # fmt: skip
    with pytest.raises(ValueError) as e:
        run(config, tmp_path / "a")
    assert "\n" not in str(e.value) and "--lr" in str(e.value) and "at step" in str(e.value)
    if path := checkpoint.latest(tmp_path / "a" / "checkpoints"):
        assert all(t.isfinite().all() for t in checkpoint.load(path).model.values())
    assert "NaN" not in (tmp_path / "a" / "log.jsonl").read_text(encoding="utf-8")


def test_too_little_text_is_refused_before_training(config, tmp_path):
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps({"text": "Mia ran."}) for _ in range(40)), encoding="utf-8"
    )
    with pytest.raises(ValueError) as e:
        Trainer(dataclasses.replace(config, dataset=(str(tmp_path / "a.jsonl"),)), tmp_path / "a")
    assert (
        "\n" not in str(e.value)
        and "to validate on" in str(e.value)
        and "more text" in str(e.value)
    )


def test_a_failed_save_does_not_hide_why_a_run_ended(config, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    def spike(*args):
        if t.step == 3:
            raise ValueError("the loss is 9.0 at step 3")

    said, config = [], dataclasses.replace(config, save_every=2, max_steps=4, choice_items=0)
    monkeypatch.setattr(checkpoint, "write", full)
    for watch, error in ((spike, ValueError), (lambda *args: None, OSError)):
        t = Trainer(config, tmp_path / error.__name__, say=said.append)
        t.look, t.untell = watch, lambda: said.append("tracker closed")
        with pytest.raises(error):
            t.run()
        assert said[-1] == "tracker closed" and not t.locked()
    assert any("the last save failed too: [Errno 28] No space" in line for line in said)


def test_a_run_that_could_not_begin_leaves_no_run(config, tmp_path):
    with pytest.raises(FileNotFoundError):
        Trainer(dataclasses.replace(config, dataset=("nothere.txt",)), tmp_path / "a")
    assert not (tmp_path / "a" / "config.json").exists()


def test_one_validation_story_gives_no_floor_and_no_crash(config, tmp_path):
    _, done = run(dataclasses.replace(config, val_tokens=40, max_steps=1), tmp_path / "a")
    assert done["floor"] is None and math.isfinite(done["val_loss"])


def test_shards_of_others_train_too(config, tmp_path, first):
    t = first[0]
    t.tokenizer.save(tmp_path / "tokenizer.json")
    folder = t.train_shards.paths[0].parent
    config = dataclasses.replace(
        config, shards=str(folder), tokenizer=str(tmp_path / "tokenizer.json")
    )
    _, done = run(config, tmp_path / "a")
    assert (
        done["floor"] is None and done["story_choice"] is None and math.isfinite(done["val_loss"])
    )
    with pytest.raises(ValueError, match=r"--tokenizer .*tokenizer\.json$"):
        Trainer(dataclasses.replace(config, tokenizer="train"), tmp_path / "b")
    with pytest.raises(ValueError, match="another tokenizer"):
        Trainer(dataclasses.replace(config, tokenizer="gpt2"), tmp_path / "b")


# real processes: killed, stopped, out of space

# they read ahead in a thread, as on a GPU; the weights to compare with come from a plain loader
SCRIPT = """
    import dataclasses, json, sys, threading
    from pathlib import Path
    from gpt2edu.data.loader import Ahead
    from gpt2edu.data import cache as prepare
    from gpt2edu.train import config as plan
    from gpt2edu.train.trainer import Trainer
    prepare.N_STORIES = 400
    flags, folder, resume = json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "resume"
    if len(sys.argv) > 4:
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
    from gpt2edu.cli.commands import command
    @command
    def train(args):
        config = plan.preset("tiny", **flags)
        resume_now = resume and (folder / "config.json").exists()
        t = Trainer(config, folder, resume=resume_now, say=lambda s: print(s, flush=True))
        t.loader = Ahead(t.loader)
        print("ready", flush=True)
        try:
            t.run()
        finally:
            assert not [x for x in threading.enumerate() if x.name.startswith("loader")]
    train([])
"""


def start(flags, folder, resume="new", *limit):
    args = [
        sys.executable, "-c", textwrap.dedent(SCRIPT), json.dumps(flags), str(folder), resume,
        *map(str, limit),
    ]  # fmt: skip
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return warm.start(args, env=env, stdout=warm.PIPE, stderr=warm.PIPE)


@pytest.fixture(scope="module")
def long(data_dir, tmp_path_factory):
    "A run of about a second, saved at every third step, and its weights when nothing breaks it."
    torch.set_num_threads(1)
    flags = TINY | {
        "max_steps": 120, "eval_every": 30, "save_every": 3, "sample_every": 60, "choice_items": 0,
    }  # fmt: skip
    flags |= {"data_dir": str(data_dir)}
    folder = tmp_path_factory.mktemp("whole")
    run(plan.preset("tiny", **flags), folder)
    return flags, saved(folder)


def check_kills(flags, want, folder, kills, rng):
    hit = 0
    for _ in range(kills):
        p = start(flags, folder, "resume")
        while (line := p.stdout.readline()) and line != "ready\n":
            pass
        time.sleep(rng.uniform(0, 0.2))
        p.kill()
        hit += p.wait() == -signal.SIGKILL
        p.communicate()
    run(plan.preset("tiny", **flags), folder, resume=True)
    assert unlike(want, saved(folder)) == []
    assert hit, "no kill came before the end"
    log = RunLog(folder / "log.jsonl").read()
    assert [e["event"] for e in log[-2:]] == ["sample", "done"] and not list(
        (folder / "checkpoints").glob(".tmp*")
    )


def test_killed_twice_resume_ends_with_the_very_weights(long, tmp_path):
    check_kills(*long, tmp_path / "killed", 2, random.Random())


@pytest.mark.slow
def test_killed_ten_times_resume_ends_with_the_very_weights(long, tmp_path):
    flags, _ = long
    flags = flags | {"max_steps": 600}
    run(plan.preset("tiny", **flags), tmp_path / "whole600")
    check_kills(flags, saved(tmp_path / "whole600"), tmp_path / "killed", 10, random.Random())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_in_order(long, tmp_path, number):
    flags, want = long
    p = start(flags, tmp_path / "a")
    while not (line := p.stdout.readline()).startswith("step 1/"):
        assert line
    p.send_signal(number)
    out, err = p.communicate(timeout=600)
    assert p.returncode == 0 and err == ""
    (line,) = [line for line in out.splitlines() if number.name in line]
    assert "--resume" in line and out.endswith(line + "\n")
    stopped = RunLog(tmp_path / "a" / "log.jsonl").read()[-1]
    assert stopped["event"] == "stopped" and 0 < stopped["step"] < 120
    assert checkpoint.latest(tmp_path / "a" / "checkpoints").name == f"step_{stopped['step']:08d}"
    run(plan.preset("tiny", **flags), tmp_path / "a", resume=True)
    assert unlike(want, saved(tmp_path / "a")) == []


@pytest.mark.skipif(os.name != "posix", reason="Windows has no signals to send")
@pytest.mark.parametrize("number", [signal.SIGINT, getattr(signal, "SIGKILL", 9)])
def test_a_run_stopped_while_its_data_are_prepared_can_begin_again(long, tmp_path, number):
    flags, want = long
    flags = flags | {"data_dir": str(tmp_path / "d")}
    p = start(flags, tmp_path / "a")
    while not (line := p.stdout.readline()).startswith("data:"):
        assert line
    time.sleep(random.uniform(0, 0.1))
    p.send_signal(number)
    _, err = p.communicate(timeout=600)
    if number == signal.SIGINT:
        assert p.returncode == 130 and err == "gpt2edu_train: interrupted\n"
    assert not (tmp_path / "a" / "config.json").exists()  # no run yet, so nothing to resume
    run(plan.preset("tiny", **flags), tmp_path / "a")
    assert unlike(want, saved(tmp_path / "a")) == []


def test_a_full_disk_leaves_the_last_checkpoint_whole(long, tmp_path):
    flags, _ = long
    flags = flags | {"max_steps": 6, "eval_every": 3}
    run(plan.preset("tiny", **flags), tmp_path / "a")
    before = saved(tmp_path / "a")
    size = (checkpoint.latest(tmp_path / "a" / "checkpoints") / checkpoint.MODEL).stat().st_size
    p = start(flags | {"max_steps": 12}, tmp_path / "a", "resume", size // 2)
    _, err = p.communicate(timeout=600)
    assert p.returncode == 2 and err.count("\n") == 1 and "Traceback" not in err
    assert "could not save" in err and "step_00000009" in err and "step_00000006" in err, err
    assert unlike(before, saved(tmp_path / "a")) == []
    checkpoint.load(checkpoint.latest(tmp_path / "a" / "checkpoints"))
    assert not list((tmp_path / "a" / "checkpoints").glob(".tmp*"))
    t, _ = run(plan.preset("tiny", **flags | {"max_steps": 12}), tmp_path / "a", resume=True)
    assert t.step == 12


class LostDisk(Loader):
    def next_batch(self):
        if self.position >= 5 * 8:  # windows of five steps
            raise OSError("Input/output error: 'x_train_000000.bin'")
        return super().next_batch()


def test_an_error_of_the_thread_that_reads_is_the_trainers(config, tmp_path):
    t = Trainer(config, tmp_path / "a")
    t.loader = Ahead(LostDisk(t.train_shards, t.B, config.block_size, config.seed))
    with pytest.raises(OSError, match=r"^Input/output error: 'x_train_000000.bin'$"):
        t.run()
    assert t.step == 4 and t.loader.position == 5 * 8  # the fifth step was read ahead
    assert not [x for x in threading.enumerate() if x.name.startswith("loader")]
    assert checkpoint.latest(tmp_path / "a" / "checkpoints").name == "step_00000004"


def test_a_second_signal_acts_as_ever():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stops.stop_signals() as stop, stop.held():
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.caught == "SIGINT"
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_to_another_rank_has_a_name(config, tmp_path, monkeypatch):
    "The mean that the ranks exchange says that one was told to stop; it was not this one."
    said, usual = [], trainer.dist.mean_over_ranks
    monkeypatch.setattr(
        trainer.dist, "mean_over_ranks", lambda t: usual(t) + torch.tensor([0.0, 0.5])[: len(t)]
    )
    t = Trainer(config, tmp_path / "a", say=said.append)
    assert t.run() is None and t.step == 1
    assert said[-1].startswith("a signal to another rank: saved step 1 of 12; go on with --resume ")


NOTEBOOK = """
from pathlib import Path
from gpt2edu.train import config as plan, log as runlog
from gpt2edu.train.trainer import Trainer
runlog.LivePlot.__init__.__defaults__ = (0.0,)  # draw at every step
flags, folder = {flags!r}, {folder!r}
Trainer(plan.preset("tiny", **flags), Path(folder)).run(live=True)["val_loss"] > 0
"""


def test_a_live_plot_moves_in_a_kernel_and_leaves_one_picture(data_dir, tmp_path):
    import nbformat
    from nbclient import NotebookClient

    class Counting(NotebookClient):
        seen = ()

        def process_message(self, msg, cell, cell_index):
            self.seen = (*self.seen, msg["msg_type"])
            return super().process_message(msg, cell, cell_index)

    flags = TINY | {"data_dir": str(data_dir), "dataset": ("pydocs",), "vocab_size": 300}
    code = NOTEBOOK.format(flags=flags, folder=str(tmp_path / "live"))
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    client = Counting(nb, timeout=600, iopub_timeout=120)
    client.execute()
    assert client.seen.count("update_display_data") >= 10
    outputs = nb.cells[0].outputs
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 1 and outputs[-1]["data"]["text/plain"] == "True"
    assert "transient" not in pictures[0]


# what a run tells, and what ends it


def test_the_log_tells_the_share_of_the_peak(first):
    t, _, folder, said = first
    events = RunLog(folder / "log.jsonl").read()
    trains = [e for e in events if e["event"] == "train"]
    assert (
        events[0]["peak_tflops"] == pytest.approx(t.parts.peak / 1e12)
        and 0.001 < events[0]["peak_tflops"] < 1000
    )
    # no GPU whose data sheet is known: both peaks are the measured one
    assert events[0]["peak_from"] == "measured"
    assert events[0]["measured_tflops"] == events[0]["peak_tflops"]
    for e in trains:
        assert (
            e["mfu"] == pytest.approx(e["tokens_per_s"] * t.parts.flops / t.parts.peak)
            and 0 < e["mfu"] < 1
        )
    assert t.parts.flops == 6 * sum(p.numel() for p in t.model.parameters()) + 12 * 1 * 32 * 32
    assert any("TFLOP/s measured" in line for line in said)


def test_hellaswag_is_answered_on_the_clock(config, tmp_path, monkeypatch):
    items = [i | {"ind": n} for n, i in enumerate(corpus.story_items(30, seed=5))]
    (tmp_path / "items.jsonl").write_text(
        "".join(json.dumps(i) + "\n" for i in items), encoding="utf-8"
    )
    c = dataclasses.replace(config, hellaswag=str(tmp_path / "items.jsonl"))
    said = []
    t = Trainer(c, tmp_path / "a", say=said.append)
    with monkeypatch.context() as m:
        m.setattr(hellaswag, "encode_item", lambda *a: pytest.fail("encoded again"))
        done = t.run()
    vals = [e for e in RunLog(tmp_path / "a" / "log.jsonl").read() if e["event"] == "val"]
    assert len(vals) == 3 and all(
        0 <= e["hellaswag"] <= 1 and 0 < e["hellaswag_error"] < 0.2 for e in vals
    )
    want = hellaswag.choice_accuracy(t.model, t.tokenizer, items)
    assert done["hellaswag"] == want["accuracy"]
    items = corpus.story_items(c.choice_items)
    want = hellaswag.choice_accuracy(t.model, t.tokenizer, items, [t.tokenizer.eot])
    assert done["story_choice"] == want["accuracy"]
    assert sum(" hellaswag 0." in line for line in said) == 3
    with pytest.raises(FileNotFoundError, match="no file nowhere"):
        Trainer(dataclasses.replace(config, hellaswag="nowhere.jsonl"), tmp_path / "b")


def test_a_spike_stops_the_run_and_one_odd_batch_does_not(config, tmp_path, monkeypatch):
    c = dataclasses.replace(
        config, max_steps=60, optimizer="adamw", lr=1e-3, min_lr=1e-3, eval_every=60
    )
    usual = trainer.lr_at
    monkeypatch.setattr(trainer, "lr_at", lambda step, *a: 3000.0 if step > 40 else usual(step, *a))
    with pytest.raises(
        ValueError, match=r"the loss is .* nats above its recent mean since window \d+; .*--lr"
    ) as e:
        run(c, tmp_path / "a")
    assert "\n" not in str(e.value)
    steps = [e["step"] for e in RunLog(tmp_path / "a" / "log.jsonl").read() if e["event"] == "save"]
    assert max(steps) <= 48 and checkpoint.load(checkpoint.latest(tmp_path / "a" / "checkpoints"))
    t, _ = run(dataclasses.replace(c, max_spike=0), tmp_path / "b")
    assert t.step == 60
    watch = stops.SpikeWatch(2.0)
    assert not any(
        watch.sees(x, i) for i, x in enumerate([3.0] * 50 + [9.0] * 4 + [3.0] + [9.0] * 4)
    )


def test_out_of_memory_names_the_flag(config, tmp_path):
    flags = TINY | {"micro_batch": 4096, "total_batch": 131072, "data_dir": config.data_dir}
    now = "int(open('/proc/self/statm').read().split()[0]) * 4096"
    limit = f"resource.setrlimit(resource.RLIMIT_AS, ({now} + 2**28, -1))"
    script = "import resource\n" + textwrap.dedent(SCRIPT).replace(
        "    t.run()", f"    {limit}; t.run()"
    )
    args = [sys.executable, "-c", script, json.dumps(flags), str(tmp_path / "a"), "new"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    p = subprocess.run(args, capture_output=True, text=True, env=env, timeout=600)
    assert p.returncode == 2 and p.stderr.count("\n") == 1, p.stderr[-2000:]
    assert (
        "out of memory with micro_batch=4096 x block_size=32" in p.stderr
        and "--micro_batch 2048" in p.stderr
    )


def test_trackers(config, tmp_path):
    for kind, part in (
        ("mlflow", "use tensorboard, wandb or trackio"),
        ("trackio", 'pip install "gpt2edu[trackio]"'),
    ):
        with pytest.raises(ValueError) as e:
            Trainer(dataclasses.replace(config, tracker=kind), tmp_path / kind)
        assert part in str(e.value) and not (tmp_path / kind / "config.json").exists()
    run(dataclasses.replace(config, tracker="tensorboard"), tmp_path / "a")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tmp_path / "a" / "tensorboard")).Reload()
    log = RunLog(tmp_path / "a" / "log.jsonl")
    for name, event, field in (
        ("train/loss", "train", "loss"),
        ("val/loss", "val", "loss"),
        ("train/mfu", "train", "mfu"),
    ):
        steps, values = log.curve(event, field)
        assert [e.step for e in found.Scalars(name)] == steps
        assert [e.value for e in found.Scalars(name)] == pytest.approx(values, rel=1e-6)


@pytest.mark.slow
def test_compiled_and_eager_agree_and_share_checkpoints(config, tmp_path):
    c = dataclasses.replace(
        config, max_steps=50, optimizer="adamw", lr=1e-3, min_lr=1e-4, eval_every=25, save_every=25
    )
    run(c, tmp_path / "eager")
    t, _ = run(dataclasses.replace(c, compile="on"), tmp_path / "compiled")
    assert t.compiled is not t.model
    a, b = losses(tmp_path / "eager"), losses(tmp_path / "compiled")
    assert max(abs(a[s] - b[s]) for s in a) < 1e-4 and len(a) == 5
    names = saved(tmp_path / "compiled")[checkpoint.MODEL].keys()
    assert names == saved(tmp_path / "eager")[checkpoint.MODEL].keys()
    shutil.copytree(tmp_path / "compiled", tmp_path / "on")
    # goes on without compiling
    more, _ = run(dataclasses.replace(c, max_steps=60), tmp_path / "on", resume=True)
    assert more.step == 60


@pytest.mark.parametrize("name", ["transformer.wte.weight", "transformer.h.0.mlp.c_fc.weight"])
def test_under_fp16_a_bad_gradient_stops_every_optimizer_for_a_step(config, tmp_path, name):
    t = Trainer(dataclasses.replace(config, dtype="fp16", optimizer="muon"), tmp_path / "a")
    t.train_step()
    before = {n: p.detach().clone() for n, p in t.model.named_parameters()}
    scale = t.scaler.get_scale()
    hook = dict(t.model.named_parameters())[name].register_hook(
        lambda g: torch.full_like(g, math.nan)
    )
    t.train_step()
    hook.remove()
    assert all(torch.equal(p, before[n]) for n, p in t.model.named_parameters())
    assert t.scaler.get_scale() < scale
    t.train_step()
    assert all(p.isfinite().all() for p in t.model.parameters())
    assert not any(torch.equal(p, before[n]) for n, p in t.model.named_parameters() if p.ndim == 2)


def test_a_run_goes_on_in_fp16(config, tmp_path):
    run(dataclasses.replace(config, max_steps=4), tmp_path / "a")
    t = Trainer(dataclasses.replace(config, dtype="fp16"), tmp_path / "a", resume=True)
    t.train_step()
    assert t.step == 5 and t.scaler.get_scale() > 1


def test_only_a_lost_network_is_called_one(config):
    ranks = trainer.Ranks(0, 8, 0)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        stops.explain(
            RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
            stops.Stop(),
            config,
            ranks,
            3,
        )
    for text in (
        "gloo/transport/tcp/pair.cc:547 Connection closed by peer",
        "NCCL error: unhandled system error",
    ):
        with pytest.raises(ConnectionError, match="rank 0 of 8 lost the others at step 3"):
            stops.explain(RuntimeError(text), stops.Stop(), config, ranks, 3)


def test_held_blocks_may_stand_inside_each_other():
    with stops.stop_signals() as stop, stop.held():
        with stop.held():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.caught == "SIGTERM"  # noted, and not raised
