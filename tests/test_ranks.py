"""The trainer in several processes gives the run of one, whatever is killed, stopped or changed.

gloo, CPU.
"""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import warm
from small_runs import ENV, TORCHRUN, saved, unlike

from gpt2edu.train import checkpoint
from gpt2edu.train.log import RunLog

FLAGS = {
    "dataset": "pydocs", "vocab_size": 300,
    "n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 32,
    "total_batch": 512, "micro_batch": 2, "optimizer": "adamw", "lr": 1e-3, "min_lr": 1e-4,
    "max_steps": 50, "eval_every": 25, "save_every": 10, "sample_every": 25, "val_tokens": 2048,
    "dtype": "fp32", "device": "cpu", "compile": "off", "keep_last": 9,
}  # fmt: skip

# `gpt2edu_train`, which also writes down what each rank has read
# and the hash of its weights at the end.
WORKER = """
    import hashlib, json, os, sys
    import torch
    from gpt2edu.data import loader
    from gpt2edu.train import trainer
    rank, out = os.environ.get("RANK", "0"), sys.argv.pop(1)
    read = loader.Loader.next_batch
    def next_batch(self):
        at = self.position + self.rank * self.B
        x, y = read(self)
        with open(f"{out}/read_{rank}", "a") as f:
            for i, row in enumerate(x):
                print(at + i, hashlib.sha256(row.numpy().tobytes()).hexdigest()[:16], file=f)
        return x, y
    loader.Loader.next_batch = next_batch
    run = trainer.Trainer.run
    def run_and_tell(self, stop=None, live=False):
        done = run(self, stop, live)
        weights = b"".join(p.detach().numpy().tobytes() for p in self.model.parameters())
        with open(f"{out}/weights_{rank}", "w") as f:
            f.write(hashlib.sha256(weights).hexdigest())
        return done
    trainer.Trainer.run = run_and_tell
    from gpt2edu.cli.commands import train
    train()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "worker.py").write_text(textwrap.dedent(WORKER), encoding="utf-8")
    return folder


def flags(place, **other):
    values = FLAGS | {"data_dir": place / "data", "out_dir": place / "runs"} | other
    return [f"--{k}={v}" for k, v in values.items()]


def command(place, nproc, name, *more, **other):
    out = place / f"seen_{name}"
    out.mkdir(exist_ok=True)
    head = (
        [*TORCHRUN, "--standalone", f"--nproc_per_node={nproc}", *more]
        if nproc
        else [sys.executable]
    )
    return [*map(str, [*head, place / "worker.py", out]), *flags(place, name=name, **other)]


def train(place, nproc, name, **other):
    line = command(place, nproc, name, **other)
    done = warm.run(line, env=ENV, cwd=place)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def losses(place, name, event="train"):
    return dict(zip(*RunLog(place / "runs" / name / "log.jsonl").curve(event, "loss"), strict=True))


def windows(place, name):
    "What all ranks together have read: {position: hash of the window}."
    rows = [
        line.split()
        for p in (place / f"seen_{name}").glob("read_*")
        for line in p.read_text(encoding="utf-8").splitlines()
    ]
    seen = {}
    for position, digest in rows:
        assert seen.setdefault(int(position), digest) == digest, "one position, two windows"
    return seen


def close(a, b, bound=1e-4):
    assert a.keys() == b.keys() and len(a) >= 2
    assert max(abs(a[s] - b[s]) for s in a) < bound


@pytest.fixture(scope="module")
def one(place):
    train(place, 0, "one")
    return place


@pytest.fixture(scope="module")
def two(one):
    return one, train(one, 2, "two")


def check_like_one(place, name, nproc):
    for event in ("train", "val"):
        close(losses(place, "one", event), losses(place, name, event))
    prints = {p.read_text(encoding="utf-8") for p in (place / f"seen_{name}").glob("weights_*")}
    assert len(prints) == 1 and len(list((place / f"seen_{name}").glob("weights_*"))) == nproc
    want, got = windows(place, "one"), windows(place, name)
    n = 50 * 512 // 32  # what 50 steps consume; a batch more may have been read ahead
    assert {p: want[p] for p in range(n)} == {p: got[p] for p in range(n)} and len(
        {*want.values()}
    ) > n // 2


def test_two_ranks_give_the_run_of_one(two):
    place, out = two
    check_like_one(place, "two", 2)
    log = RunLog(place / "runs" / "two" / "log.jsonl").read()
    once = [(e["event"], e.get("step")) for e in log]
    assert len(once) == len(set(once)) and {"start", "train", "val", "save", "sample", "done"} == {
        e for e, _ in once
    }
    assert losses(place, "two")[50] < losses(place, "two")[10] - 0.2
    for line in ("run: ", "model: ", "validation loss", "next: gpt2edu_generate"):
        assert len(re.findall(f"^{line}", out, re.M)) == 1, line


@pytest.mark.slow
def test_four_ranks_give_the_run_of_one(one):
    train(one, 4, "four")
    check_like_one(one, "four", 4)


@pytest.mark.slow
def test_two_agents_with_a_rendezvous_give_the_run_of_one(one):
    "Two torchruns on loopback, as on two nodes, each with its own process; they share a disk."
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    line = [*TORCHRUN, "--nnodes=2", "--nproc_per_node=1", "--rdzv_id=t", "--rdzv_backend=c10d"]
    line += [f"--rdzv_endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1"]
    line += command(one, 0, "nodes")[1:]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    agents = [subprocess.Popen(line, env=ENV, cwd=one, **pipes) for _ in range(2)]
    errors = [agent.communicate(timeout=600)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], errors
    check_like_one(one, "nodes", 2)


@pytest.mark.parametrize("nproc,micro", [(0, 8), pytest.param(4, 1, marks=pytest.mark.slow)])
def test_saved_at_two_ranks_resumed_at_another_number(two, nproc, micro):
    place, name = two[0], f"from2to{nproc}"
    folder = place / "runs" / name
    shutil.copytree(place / "runs" / "two", folder)
    (folder / "log.jsonl").unlink()
    for path in (folder / "checkpoints").iterdir():
        if int(path.name.removeprefix("step_")) > 20:
            shutil.rmtree(path)
    out = train(place, nproc, name, micro_batch=micro, resume="auto")
    assert "step 20" in out and "resume: the number of ranks was 2" in out
    assert (
        windows(place, name).items()
        >= {p: h for p, h in windows(place, "one").items() if 320 <= p < 800}.items()
    )
    assert min(windows(place, name)) == 320  # 20 steps of 16 windows
    for event in ("train", "val"):
        close(
            losses(place, name, event),
            {s: v for s, v in losses(place, "two", event).items() if s > 20},
        )


def wait_for(what, seconds=600):
    end = time.time() + seconds
    while time.time() < end:
        if found := what():
            return found
        time.sleep(0.02)
    raise TimeoutError


def check_kills(place, kills, rng, want, **other):
    "Kill a random rank at a random time, again and again; torchrun starts all ranks anew."
    name, other = f"killed{kills}", {"save_every": 5, "resume": "auto"} | other
    folder = place / "runs" / name / "checkpoints"
    line = command(place, 2, name, f"--max-restarts={kills + 3}", **other)
    p = warm.start(line, env=ENV, cwd=place, stderr=warm.PIPE)
    done = 0
    while done < kills and p.poll() is None:
        before = checkpoint.latest(folder)
        wait_for(
            lambda b=before: p.poll() is not None or checkpoint.latest(folder) not in (None, b)
        )
        time.sleep(rng.uniform(0, 0.1))
        if p.poll() is None and (ranks := warm.ranks(p.pid)):
            os.kill(rng.choice(ranks), signal.SIGKILL)
            done += 1
            checkpoint.load(checkpoint.latest(folder))  # at no time is there one that does not load
            time.sleep(0.5)
    _, err = p.communicate(timeout=600)
    assert p.returncode == 0, err[-3000:]
    assert unlike(want, saved(place / "runs" / name)) == []
    assert done == kills, f"only {done} kills came before the end"


def test_a_killed_rank_changes_nothing(two):
    check_kills(two[0], 1, random.Random(), saved(two[0] / "runs" / "two"))


@pytest.mark.slow
def test_twenty_killed_ranks_change_nothing(one):
    other = {"max_steps": 2000, "eval_every": 500, "keep_last": 2}
    train(one, 2, "whole20", **other)
    check_kills(one, 20, random.Random(), saved(one / "runs" / "whole20"), **other)


def check_term(place, name, rng):
    "SIGTERM at a random time: exit 0 at once, and a resume that ends with the very weights."
    line = command(place, 0, name)
    p = warm.start(line, env=ENV, cwd=place, stdout=warm.PIPE, stderr=warm.PIPE)
    p.stdout.readline()  # from the first line on; tests/test_signals.py has what is before it
    time.sleep(rng.uniform(0, 5))
    ended = p.poll() is not None
    t0 = time.monotonic()
    p.send_signal(signal.SIGTERM)
    out, err = p.communicate(timeout=600)
    if p.returncode == 143:  # before the first step there is nothing to save
        assert err == "gpt2edu_train: SIGTERM: stopped before the first step; nothing is lost\n"
    else:
        assert p.returncode == 0 and err == "", (p.returncode, err)
    early = p.returncode == 143
    # ten times the usual: a guard against hanging, as all limits here
    assert time.monotonic() - t0 < 300
    told = any(s.startswith("SIGTERM: ") for s in out.splitlines()[-1:])
    assert ended or early or told or "next: gpt2edu_generate" in out
    train(place, 0, name, resume="auto")
    assert unlike(saved(place / "runs" / "one"), saved(place / "runs" / name)) == []
    assert RunLog(place / "runs" / name / "log.jsonl").read()[-1]["event"] == "done"


def test_sigterm_saves_and_exits_with_0(one):
    check_term(one, "term", random.Random())


@pytest.mark.slow
def test_sigterm_at_twenty_random_times(one):
    for i in range(20):
        check_term(one, f"term{i}", random.Random(i))


def test_other_data_ends_every_rank(one):
    "Rank 0 has read the shards and refuses; the other must not wait for it."
    shutil.copytree(one / "runs" / "one", one / "runs" / "moved")
    path = checkpoint.latest(one / "runs" / "moved" / "checkpoints") / checkpoint.STATE
    content = checkpoint.unseal(path.read_bytes())
    content["state"]["data"]["train"][-1] = "0" * 64
    path.write_bytes(checkpoint.sealed(content))
    line = command(one, 2, "moved", resume="auto")
    done = warm.run(line, env=ENV, cwd=one)
    mine = [s for s in done.stderr.splitlines() if s.startswith("gpt2edu_train")]
    assert any("was trained on other data" in s and "expected 000000000000" in s for s in mine)
    codes = {int(c) for c in re.findall(r"exitcode\s*:\s*(-?\d+)", done.stderr)}
    assert codes <= {2, -15} and 2 in codes and f'File "{one}' not in done.stderr, done.stderr


BAD = [
    ({"RANK": "0"}, 0, {}, "got RANK without WORLD_SIZE and LOCAL_RANK"),
    ({}, 2, {"device": "cuda"}, "device=cuda"),
    (
        {},
        2,
        {"total_batch": 224, "micro_batch": 1},
        "cannot be shared by 2 ranks in windows of block_size=32; try",
    ),
    ({}, 2, {"max_steps": "many"}, "max_steps"),
    ({}, 2, {"dataset": "/nowhere.txt"}, "/nowhere.txt"),
]


@pytest.mark.parametrize("i", [0, 2, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 3, 4))])
def test_bad_input_ends_every_rank(place, i):
    env, nproc, other, part = BAD[i]
    t0 = time.monotonic()
    line = command(place, nproc, f"bad{i}", **other)
    done = warm.run(line, env=ENV | env, cwd=place)
    assert time.monotonic() - t0 < 100  # 10 s on a quiet machine
    mine = [s for s in done.stderr.splitlines() if s.startswith("gpt2edu_train")]
    assert (
        mine
        and all(part in s or "rank 0 failed before it" in s for s in mine)
        and part in "".join(mine)
    )
    codes = {int(c) for c in re.findall(r"exitcode\s*:\s*(-?\d+)", done.stderr)} or {
        done.returncode
    }
    # no traceback of ours
    assert codes <= {2, -15} and 2 in codes and f'File "{place}' not in done.stderr
    assert not (place / "runs" / f"bad{i}" / "config.json").exists()


# split over the ranks

# Trains each kind of run in the same two processes, so that PyTorch is loaded once.
SPLIT = """
    import json, shutil, sys
    from dataclasses import replace
    from pathlib import Path
    from gpt2edu.machine import distributed as dist
    from gpt2edu.train.config import preset
    from gpt2edu.train.trainer import Trainer
    ranks, place = dist.start("cpu"), Path(sys.argv[1])
    for name, (kind, again, flags) in json.loads(sys.argv[2]).items():
        flags = {k: tuple(v) if isinstance(v, list) else v for k, v in flags.items()}
        with dist.rank0_first(ranks):
            if ranks.is_main and again:
                for step in ("step_00000004", "config.json", "tokenizer.json"):
                    old, new = (place / n / "checkpoints" for n in (again, name))
                    if step.endswith(".json"):
                        shutil.copy(old.parent / step, new.parent / step)
                    else:
                        shutil.copytree(old / step, new / step)
        said = []
        Trainer(preset(kind, **flags), place / name, bool(again), said.append, ranks).run()
        if ranks.is_main:
            (place / name / "said").write_text("\\n".join(said))
    dist.stop()
"""
SMALL = {k: FLAGS[k] for k in "vocab_size n_layer n_head n_embd block_size".split()}
SMALL |= {"dataset": ["pydocs"], "dtype": "fp32", "lr": 1e-3, "min_lr": 1e-4, "muon_lr": 1e-3}
CLOCK = {"total_batch": 512, "micro_batch": 2, "max_steps": 8, "eval_every": 4, "save_every": 4}
CLOCK |= {"sample_every": 4, "val_tokens": 2048, "keep_last": 9, "device": "cpu", "compile": "off"}
LLAMA = {"position": "rope", "norm": "rms", "mlp": "swiglu", "bias": False, "tied": False}
SFT = {"dtype": "fp32", "conversations": 60, "block_size": 128, "total_batch": 2048}
TWICE = {"recompute": True}
KINDS = {  # name: preset, flags of both, flags of the split one
    "adamw": ("tiny", SMALL | {"optimizer": "adamw"}, {}),
    "bf16": ("tiny", SMALL | {"dtype": "bf16"}, TWICE),
    "llama": ("tiny", SMALL | LLAMA, TWICE),
    "lora": ("tiny-lora", {"dtype": "fp32", "block_size": 128, "total_batch": 1024}, TWICE),
    "frozen": ("tiny", {"init_from": "tiny", "freeze": ["wte", "h.0"], "block_size": 128,
                        "total_batch": 1024}, {}),
    "questions": ("tiny-sft", SFT, TWICE),
    "compiled": ("tiny", SMALL | {"optimizer": "adamw"}, {"compile": "on"}),
}  # fmt: skip


def split_runs(folder, kinds):
    "Run each kind: {name: [preset, the run to go on with, flags]}."
    (folder / "split.py").write_text(textwrap.dedent(SPLIT), encoding="utf-8")
    places = {"data_dir": str(folder / "data"), "out_dir": str(folder)}
    kinds = {n: [p, again, CLOCK | flags | places] for n, (p, again, flags) in kinds.items()}
    line = [*TORCHRUN, "--standalone", "--nproc_per_node=2", folder / "split.py", folder]
    line = [*map(str, line), json.dumps(kinds)]
    done = warm.run(line, env=ENV, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]


def all_tensors(folder, name):
    found = saved(folder / name)
    files = (checkpoint.MODEL, checkpoint.OPTIM)
    return {f"{file} {n}": t for file in files for n, t in found[file].items()}


def events(folder, name):
    log = RunLog(folder / name / "log.jsonl").read()
    found = {"val": {}, "sample": {}}
    for e in log:
        found.setdefault(e["event"], {})[e.get("step")] = e.get("loss", e.get("texts"))
    return found


def check_split(folder, a, b, weights, losses, bits=False):
    "Two runs have the same tensors under the same names, the same losses and samples."
    x, y = all_tensors(folder, a), all_tensors(folder, b)
    assert x.keys() == y.keys() and len(x) > 20
    for name in x:
        assert x[name].shape == y[name].shape and x[name].dtype == y[name].dtype
        apart = (x[name].double() - y[name].double()).abs().max()
        assert apart <= (0 if bits else weights), f"{name}: {apart}"
    x, y = events(folder, a), events(folder, b)
    for step, loss in y["val"].items():
        assert abs(loss - x["val"][step]) <= losses
    assert 8 in y["val"] and y["sample"].keys() <= x["sample"].keys()
    assert all(texts == x["sample"][step] for step, texts in y["sample"].items())


def test_split_over_two_ranks_a_run_is_that_of_whole_copies(tmp_path):
    muon, shard = SMALL | {"optimizer": "muon"}, {"shard": True}  # with AdamW for the rest
    kinds = {"copies": ("tiny", None, muon), "split": ("tiny", None, muon | shard | TWICE)}
    kinds |= {"again": ("tiny", "split", muon | shard), "there": ("tiny", "copies", muon | shard)}
    split_runs(tmp_path, kinds | {"back": ("tiny", "split", muon)})
    check_split(tmp_path, "copies", "split", 1e-4, 1e-5)
    check_split(tmp_path, "split", "again", 0, 0, bits=True)
    for name in ("there", "back"):
        check_split(tmp_path, "copies", name, 1e-4, 1e-5)
    said = (tmp_path / "split" / "said").read_text(encoding="utf-8").splitlines()
    assert "shard: each of 2 ranks holds its part of every tensor" in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_can_be_split(tmp_path, kind):
    start, flags, more = KINDS[kind]
    kinds = {"copies": (start, None, flags), "split": (start, None, flags | {"shard": True} | more)}
    split_runs(tmp_path, kinds | {"again": (start, "split", kinds["split"][2])})
    exact = kind != "bf16"  # which rounds what differs in the last bit
    check_split(tmp_path, "copies", "split", 1e-4 if exact else 1e-2, 1e-5 if exact else 1e-3)
    check_split(tmp_path, "split", "again", 0, 0, bits=True)


# The peak of each rank over two steps, beside what the plan says.
MEMORY = """
    import ctypes, gc, json, sys
    from pathlib import Path
    import torch
    from benchmarks.timing import status
    from gpt2edu.machine import distributed as dist
    from gpt2edu.model.gpt import GPT, GPTConfig
    from gpt2edu.plan.memory import memory
    from gpt2edu.train.config import preset
    from gpt2edu.train.optim import build_optimizers
    ranks, V = dist.start("cpu"), 896
    def steps(c, n):
        model = GPT(GPTConfig(c.n_layer, c.n_head, c.n_embd, c.block_size, V))
        model.recompute = c.recompute
        forward = dist.shard(model, model.transformer.h, ranks)
        optimizers = build_optimizers(model, c.optimizer)
        n_micro = c.total_batch // (c.micro_batch * c.block_size * ranks.world_size)
        for _ in range(n):
            for i in range(n_micro):
                ids = torch.randint(V, (2, c.micro_batch, c.block_size))
                with dist.sync_if(forward, i == n_micro - 1):
                    (forward(*ids)[1] / n_micro).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for o in optimizers:
                o.step()
                o.zero_grad()
    shape = {"n_embd": 384, "n_head": 6, "n_layer": 8, "shard": True, "micro_batch": 2}
    for i, flags in enumerate([{"total_batch": 1024, "n_layer": 1}, *json.loads(sys.argv[1])]):
        c = preset("small-cpu", **shape | flags)
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        steps(c, 2)
        if ranks.is_main and i:  # the first one loads the libraries
            print("ratio", memory(c, V, 4, 2, cpu=True)["peak"] / (status("VmHWM") - before))
    dist.stop()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_the_plan_knows_what_a_rank_of_a_split_run_holds(tmp_path):
    (tmp_path / "memory.py").write_text(textwrap.dedent(MEMORY), encoding="utf-8")
    adamw = {"optimizer": "adamw"}
    cases = [adamw | {"total_batch": n} | more for n in (1024, 2048) for more in ({}, TWICE)]
    cases += [{"optimizer": "muon", "total_batch": 1024} | TWICE]
    line = [*TORCHRUN, "--standalone", "--nproc_per_node=2", str(tmp_path / "memory.py")]
    env = ENV | {"MALLOC_MMAP_THRESHOLD_": "131072"}  # freed tensors are given back
    env["PYTHONPATH"] = str(Path(__file__).parents[1])  # of benchmarks
    line.append(json.dumps(cases))
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=600)
    ratios = [float(r) for r in re.findall(r"^ratio (.+)$", done.stdout, re.M)]
    assert len(ratios) == len(cases), done.stderr[-2000:]
    assert all(0.9 <= ratio <= 1.1 for ratio in ratios), ratios
