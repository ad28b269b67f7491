"""The trainer in several processes gives the run of one, whatever is killed, stopped or changed.

gloo, CPU.
"""

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
import safetensors.torch
import torch

from gpt2edu.train import checkpoint
from gpt2edu.train.log import RunLog

SET_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
ENV = {k: v for k, v in os.environ.items() if k not in SET_BY_TORCHRUN} | {"OMP_NUM_THREADS": "1"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
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
    done = subprocess.run(line, env=ENV, cwd=place, capture_output=True, text=True, timeout=600)
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


def weights(place, name):
    path = checkpoint.latest(place / "runs" / name / "checkpoints")
    return path.name, {
        n: safetensors.torch.load((path / n).read_bytes())
        for n in (checkpoint.MODEL, checkpoint.OPTIM)
    }


def same(a, b):
    assert a[0] == b[0]
    for file in a[1]:
        assert a[1][file].keys() == b[1][file].keys() and len(a[1][file]) > 3
        for name in a[1][file]:
            assert torch.equal(a[1][file][name], b[1][file][name]), f"{file}: {name}"


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


def children(pid):
    return [
        int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    ]


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
    p = subprocess.Popen(
        line, env=ENV, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    done = 0
    while done < kills and p.poll() is None:
        before = checkpoint.latest(folder)
        wait_for(
            lambda b=before: p.poll() is not None or checkpoint.latest(folder) not in (None, b)
        )
        time.sleep(rng.uniform(0, 0.3))
        if p.poll() is None and (ranks := children(p.pid)):
            os.kill(rng.choice(ranks), signal.SIGKILL)
            done += 1
            checkpoint.load(checkpoint.latest(folder))  # at no time is there one that does not load
            time.sleep(0.5)
    _, err = p.communicate(timeout=600)
    assert p.returncode == 0, err[-3000:]
    same(want, weights(place, name))
    assert done == kills, f"only {done} kills came before the end"


def test_a_killed_rank_changes_nothing(two):
    check_kills(two[0], 1, random.Random(), weights(two[0], "two"))


@pytest.mark.slow
def test_twenty_killed_ranks_change_nothing(one):
    other = {"max_steps": 2000, "eval_every": 500, "keep_last": 2}
    train(one, 2, "whole20", **other)
    check_kills(one, 20, random.Random(), weights(one, "whole20"), **other)


def check_term(place, name, rng):
    "SIGTERM at a random time: exit 0 at once, and a resume that ends with the very weights."
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    p = subprocess.Popen(command(place, 0, name), env=ENV, cwd=place, **pipes)
    p.stdout.readline()  # from the first line on; before it, Python itself is starting
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
    assert time.monotonic() - t0 < 50
    saved = out.splitlines()[-1].startswith("SIGTERM: ")
    assert ended or early or saved or "next: gpt2edu_generate" in out
    train(place, 0, name, resume="auto")
    same(weights(place, "one"), weights(place, name))
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
    done = subprocess.run(line, env=ENV, cwd=one, capture_output=True, text=True, timeout=600)
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
    done = subprocess.run(
        line, env=ENV | env, cwd=place, capture_output=True, text=True, timeout=600
    )
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
