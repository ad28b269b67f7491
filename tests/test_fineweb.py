"""Preparing data: the same bytes whatever fails, is killed or is divided.

One line for what cannot work.
"""

import base64
import hashlib
import io
import json
import multiprocessing
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
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import warm
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from loopback_hub import SHA, serve, words, write_dataset, write_parquet

from gpt2edu.data import encode as P
from gpt2edu.data import hub as H
from gpt2edu.data.cache import hub_folder, prepare_data
from gpt2edu.data.config import DataConfig
from gpt2edu.data.prepare import PrepareConfig, prepare
from gpt2edu.data.shards import (
    MANIFEST,
    SCANNED,
    UNFINISHED,
    open_shards,
    read_shard,
    write_shards,
)
from gpt2edu.data.sources import local_source
from gpt2edu.machine.progress import Progress
from gpt2edu.text.corpus import documents
from gpt2edu.text.tokenizer import Tokenizer, get_tokenizer
from gpt2edu.train.config import preset

GPT2 = get_tokenizer("gpt2")
FLAGS = ("--shard_size", "2e4", "--data_dir", "data", "--num_proc", "1")
TWO = (*FLAGS[:-1], "2")
FOLDER = "data/fineweb-edu-sample-10BT-gpt2"
NO_PROXY = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}


def command(*flags):
    return [sys.executable, "-m", "gpt2edu.cli", "prepare", *map(str, flags)]


def run(cwd, env, *flags, code=0):
    p = warm.run(command(*flags), cwd=cwd, env=env)
    assert p.returncode == code, p.stdout + p.stderr
    return p.stdout + p.stderr


def digest(folder):
    "Every file of a prepared folder, and what is in it, without what a reader remembers there."
    files = [p for p in sorted(Path(folder).iterdir()) if p.name != SCANNED]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def texts_of(root):
    return [
        t
        for p in sorted(Path(root).glob("sample/10BT/*.parquet"))
        for t in pq.read_table(p)["text"].to_pylist()
        if t
    ]


def is_sound(folder):
    """What must hold at every moment.

    Shards under their final names are whole, and the manifest names only those.
    """
    for path in folder.glob("fineweb-edu_*.bin"):
        read_shard(path)
    if not (folder / UNFINISHED).exists():
        return 0
    shards = json.loads((folder / UNFINISHED).read_text(encoding="utf-8"))["shards"]
    for entry in shards:
        assert hashlib.sha256((folder / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
    # at most one is not yet in the manifest
    assert len(list(folder.glob("fineweb-edu_*.bin"))) <= len(shards) + 1
    return len(shards)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    "A dataset of the hub's form, and what a quiet server makes of it."
    root = tmp_path_factory.mktemp("hub")
    write_dataset(root)
    with serve(root) as hub:
        run(root, hub.env, *FLAGS)
        return root, digest(root / FOLDER), len(hub.requests)


# cutting text


class TestCuts:
    def in_chunks(self, text, size, tokenizer=GPT2):
        data, at, ids, chunks = memoryview(text.encode()), 0, [], 0
        while at < len(data):
            end = P.safe_cut(data, at, size, tokenizer)
            assert end > at
            ids += tokenizer.encode(bytes(data[at:end]).decode())
            at, chunks = end, chunks + 1
        return ids, chunks

    hard = st.sampled_from(
        [
            *"ab e's'r'l'd017.!?-_()\n\t \r\x1c\x85\xa0\u180e\u200b\u2028\u3000",
            *"é中文日본ก็ا🙂🇩\u0301\ue000\U0001e900",
            "  ",
            "'re",
            "<|endoftext|>",
        ]
    )

    @example([("\xa0", 2), ("\u180e", 2)], 8)  # white space, then what only some libraries call so
    @given(st.lists(st.tuples(hard, st.integers(1, 30)), max_size=25), st.integers(8, 60))
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    def test_chunks_give_the_ids_of_the_whole(self, runs, size):
        text = "".join(piece * n for piece, n in runs)
        assert self.in_chunks(text, size)[0] == GPT2.encode(text)

    @given(st.text(max_size=300), st.integers(8, 40))
    @settings(max_examples=80, deadline=None)
    def test_any_text(self, text, size):
        text = text.encode("utf-8", "replace").decode()
        assert self.in_chunks(text, size)[0] == GPT2.encode(text)

    @given(
        st.lists(st.sampled_from([*"ab e's'01.\n \té中"]), max_size=200).map("".join),
        st.integers(8, 40),
    )
    @settings(max_examples=60, deadline=None)
    def test_a_small_vocabulary_of_our_own(self, text, size):
        assert self.in_chunks(text, size, SMALL)[0] == SMALL.encode(text)

    @pytest.mark.parametrize(
        "text",
        ["a", "ACGGTTACAT", "'", "!?", " ", "\n", "中", "🙂", "é", "-=", "0", "ab" * 7 + "c"],
    )
    @pytest.mark.parametrize("before,behind", [("", ""), ("x ", "s"), ("'", " b")])
    def test_one_run_that_is_longer_than_many_chunks(self, text, before, behind):
        text = before + text * (3000 // len(text)) + behind
        ids, chunks = self.in_chunks(text, 400)
        # it was cut, not passed in one
        assert ids == GPT2.encode(text) and chunks >= 3000 // 400 // 2

    def test_classes_of_characters_follow_the_pattern(self):
        assert [P.kind(c) for c in "aé中"] == ["L"] * 3 and [P.kind(c) for c in "7½²"] == ["N"] * 3
        assert [P.kind(c) for c in " \n\u3000"] == ["S"] * 3 and [
            P.kind(c) for c in ".'🙂\u0301"
        ] == ["O"] * 4
        assert P.kind("\U0001e900") is None  # a letter of Unicode 9: other versions do not know it

    def test_batches_are_what_plain_encoding_gives(self):
        texts = [t.encode() for t in words(60, 5)] + [b""] + [b"word " * 9000]
        batches = list(P.make_batches(texts, GPT2, size=10_000))
        assert len(batches) > 5 and max(len(text) for text, _, _ in batches) <= 20_000
        got = np.concatenate([P.encode_batch(*b, GPT2) for b in batches]).tolist()
        assert got == [i for t in texts for i in [GPT2.eot, *GPT2.encode(t.decode())]]


SMALL = Tokenizer.train(["abba's 01 ab. \n\n ab a'b  ba é中"] * 3, 280, "small")


# processes


class TestWorkers:
    def test_they_are_spawned_keep_order_and_end(self):
        texts = [t.encode() for t in words(300, 3)]
        with P.Workers(GPT2, 3) as workers:
            assert all(
                isinstance(p, multiprocessing.get_context("spawn").Process)
                for p in workers.processes
            )
            batches = [(i, *b) for i, b in enumerate(P.make_batches(texts, GPT2, 5000))]
            got = list(workers.encode(batches))
        assert [i for i, _ in got] == list(range(len(batches))) and len(batches) > 12
        assert not [p for p in workers.processes if p.is_alive()]

    def test_a_dead_worker_is_one_line(self):
        with pytest.raises(OSError, match="a worker process ended before its work was done") as e:
            with P.Workers(GPT2, 2) as workers:
                batches = [
                    (i, *b)
                    for i, b in enumerate(P.make_batches([b"word " * 100] * 2000, GPT2, 2000))
                ]
                for n, _ in enumerate(workers.encode(batches)):
                    if n == 5:
                        workers.processes[0].kill()
        assert "\n" not in str(e.value)

    def test_text_that_is_not_utf8_is_one_line(self):
        with (
            P.Workers(GPT2, 1) as workers,
            pytest.raises(ValueError, match="unit 7: 'utf-8' codec"),
        ):
            list(workers.encode([("unit 7", b"\xff\xfe", [2], [True])]))

    def test_they_end_when_their_parent_is_killed(self, tmp_path):
        code = (
            "from gpt2edu.data.encode import Workers\n"
            "from gpt2edu.text.tokenizer import Tokenizer\nimport time\n"
            "if __name__ == '__main__':\n"
            "    with Workers(Tokenizer('t', []), 2) as w:\n"
            "        print(*[p.pid for p in w.processes], flush=True); time.sleep(60)\n"
        )
        (tmp_path / "parent.py").write_text(code, encoding="utf-8")
        parent = subprocess.Popen(
            [sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True
        )
        pids = [int(x) for x in parent.stdout.readline().split()]
        parent.kill()
        parent.wait()
        assert len(pids) == 2 and wait_for(lambda: not any(map(alive, pids))), pids


def alive(pid):
    "Whether it runs: one that nobody has waited for yet does not."
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
            != "Z"
        )
    except OSError:
        return False


def nobody_in_group(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def wait_for(what, seconds=200):
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


# the network


class Answer:
    def __init__(self, status, headers=()):
        self.status_code, self.headers = status, dict(headers)


def refusal(status, **headers):
    e = H.HubError(f"answered {status}")
    e.response = Answer(status, headers)
    return e


class TestRetry:
    @pytest.fixture
    def clock(self, monkeypatch):
        "Time that passes only by sleeping."
        now, slept = [0.0], []
        monkeypatch.setattr(H.time, "monotonic", lambda: now[0])
        monkeypatch.setattr(
            H.time, "sleep", lambda s: (slept.append(s), now.__setitem__(0, now[0] + s))
        )
        return slept

    def test_the_server_says_how_long(self, clock):
        errors = [
            refusal(429, **{"Retry-After": "7"}),
            refusal(503, **{"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}),
        ]
        notes = []
        assert (
            H.retry(lambda: raise_(errors.pop()) if errors else "an answer", "x", note=notes.append)
            == "an answer"
        )
        assert clock == [0.0, 7.0] and notes == ["x: answered 429; trying again in 7 s"]

    def test_pauses_double_with_jitter_and_end(self, clock):
        with pytest.raises(
            H.HubError,
            match=r"reading f: no answer for 100 s \(reset\); check the network, then go on",
        ):
            H.retry(lambda: raise_(ConnectionResetError("reset")), "reading f", patience=100)
        assert 8 <= len(clock) <= 10 and sum(clock) <= 100
        for attempt, wait in enumerate(clock):
            longest = min(H.LONGEST, H.FIRST * 2**attempt)
            assert 0.5 * longest <= wait <= longest
        assert len({w / 2**a for a, w in enumerate(clock)}) > 3  # drawn, not fixed

    @pytest.mark.parametrize("error", [refusal(404), refusal(401), KeyError("a bug")])
    def test_what_will_not_pass_is_not_tried_again(self, clock, error):
        with pytest.raises(type(error)):
            H.retry(lambda: raise_(error), "x")
        assert not clock

    @pytest.mark.parametrize(
        "status,passing",
        [(429, True), (500, True), (503, True), (408, True), (403, False), (416, False)],
    )
    def test_statuses(self, status, passing):
        assert H.is_passing(refusal(status)) == passing


def raise_(e):
    raise e


def test_a_card_s_patterns():
    assert H.patterns_of({"data_files": "a/*"}) == {"train": ["a/*"]}
    assert H.patterns_of({"data_files": ["a", "b"], "data_dir": "d"}) == {"train": ["d/a", "d/b"]}
    both = {"data_files": [{"split": "train", "path": ["a", "b"]}, {"split": "test", "path": "c"}]}
    assert H.patterns_of(both) == {"train": ["a", "b"], "test": ["c"]}
    assert H.patterns_of({"config_name": "x"}) == {"train": ["**"]}


def test_a_server_that_fails_in_30_percent_of_requests(dataset, tmp_path):
    root, want, quiet = dataset
    with serve(root, faulty=0.3, seed=1) as hub:
        run(tmp_path, hub.env, *TWO)
    faults = {f for _, _, f in hub.requests if f}
    assert digest(tmp_path / FOLDER) == want
    assert len(faults) >= 3 and len(hub.requests) > quiet


def address(hub, name):
    "The URL under which a hub has a file of the sample."
    folder = f"HuggingFaceFW/fineweb-edu/resolve/{SHA}/sample/10BT"
    return f"{hub.env['HF_ENDPOINT']}/datasets/{folder}/{name}"


@pytest.mark.parametrize("fault", ["429", "503", "reset", "stall", "cut"])
def test_each_fault_alone(dataset, tmp_path, fault, monkeypatch):
    "Half of the requests for a range fail; read in this process, to be quick."
    root, _, _ = dataset
    file = next((root / "HuggingFaceFW/fineweb-edu").glob("sample/10BT/000*"))
    data = file.read_bytes()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    with serve(root, faulty=0.5, faults=(fault,), seed=4) as hub:
        url = address(hub, file.name)
        f = H.HubFile(url, len(data))
        for start, n in ((0, 10), (len(data) - 500, 600), (5000, 70_000), (7, 1)):
            f.seek(start)
            assert f.read(n) == data[start : start + n]
        assert (
            f.seek(-3, io.SEEK_END) == len(data) - 3 and f.read() == data[-3:] and f.read() == b""
        )
    assert fault in {x for _, _, x in hub.requests}


def test_a_file_that_has_changed_is_one_line(dataset):
    root, _, _ = dataset
    with serve(root) as hub:
        url = address(hub, "000_00000.parquet")
        with pytest.raises(ValueError, match="expected 1,000; list the dataset again"):
            H.HubFile(url, 1000).read(10)


# killed, and started again


def ended_or_more(process, folder, shards):
    "Whether a process has ended, or has written more shards than these."
    return process.poll() is not None or len(list(folder.glob("*.bin"))) > shards


def kills(dataset, folder, n, seed):
    "Kill runs n times at random moments, mostly in the middle of the writing; restart to the end."
    root, want, _ = dataset
    rng, target, killed, before = random.Random(seed), folder / FOLDER, 0, 0
    with serve(root) as hub:
        while killed < n:
            p = subprocess.Popen(
                command(*TWO), cwd=folder, env=hub.env, stdout=subprocess.PIPE, text=True
            )
            if rng.random() < 0.8:
                enough = before + rng.randint(0, 2)
                wait_for(partial(ended_or_more, p, target, enough))
                time.sleep(rng.uniform(0, 0.02))
            else:  # perhaps before the first byte
                time.sleep(rng.uniform(0, 2))
            alive = p.poll() is None
            p.kill()
            out = p.communicate()[0]
            if (target / MANIFEST).exists():  # it was too quick: check, and begin again
                assert digest(target).items() >= want.items()
                shutil.rmtree(target)
                before = 0
                continue
            killed += alive
            if f"checking {before} shards" in out:  # a restart begins with all that was whole
                assert f"going on after {before} whole shards" in out or "going on" not in out
            whole = is_sound(target) if target.exists() else 0
            assert whole >= before
            before = whole
        out = run(folder, hub.env, *FLAGS)
    assert digest(target) == want
    assert f"going on after {before} whole shards" in out or not before
    return killed


def test_killed_at_random_times(dataset, tmp_path):
    assert kills(dataset, tmp_path, 2, seed=3) == 2


@pytest.mark.slow
def test_killed_twenty_times(dataset, tmp_path):
    assert kills(dataset, tmp_path, 20, seed=11) == 20


def test_a_restart_reads_on_where_it_stopped(dataset, tmp_path):
    "Only row groups behind the last whole shard are read; an altered shard is not whole."
    root, want, _ = dataset
    with serve(root) as hub:
        run(tmp_path, hub.env, *FLAGS)
        folder = tmp_path / FOLDER
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        keep = next(i for i, s in enumerate(manifest["shards"]) if s["end"][:2] >= [2, 1])
        altered = folder / manifest["shards"][keep + 1]["file"]
        altered.write_bytes(altered.read_bytes()[:-2] + b"\x00\x01")
        (folder / MANIFEST).rename(folder / UNFINISHED)
        (folder / ".fineweb-edu_train_000009.bin.77.tmp").write_bytes(b"half")
        everything = hub.bytes_asked()
        hub.requests.clear()
        out = run(tmp_path, hub.env, *FLAGS)
    assert digest(folder) == want and f"going on after {keep + 1} whole shards" in out
    assert not [path for path, _, _ in hub.requests if "000_00000" in path or "001_00000" in path]
    assert hub.bytes_asked() < everything / 2 and any(
        f"/revision/{SHA}" in path for path, _, _ in hub.requests
    )


def test_ctrl_c_is_one_line_and_leaves_nobody(dataset, tmp_path):
    root, want, _ = dataset
    with serve(root) as hub:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        for _ in range(5):  # where the rest is written before the signal comes
            shutil.rmtree(tmp_path / "data", ignore_errors=True)
            p = subprocess.Popen(
                command(*TWO), cwd=tmp_path, env=hub.env, start_new_session=True, **pipes
            )
            assert wait_for(lambda: list((tmp_path / "data").glob("*/*.bin")))
            os.killpg(p.pid, signal.SIGINT)  # as a terminal does: all processes of the group
            _, err = p.communicate(timeout=600)
            if p.returncode:
                break
        assert (p.returncode, err.strip()) == (130, "gpt2edu_prepare: interrupted")
        assert wait_for(lambda: nobody_in_group(p.pid))
        run(tmp_path, hub.env, *FLAGS)
    assert digest(tmp_path / FOLDER) == want


def test_no_space_in_the_middle(dataset, tmp_path):
    """A limit on the size of files plays a full disk.

    The shards before it stay, and a restart resumes.
    """
    root, want, _ = dataset

    def limit():
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    with serve(root) as hub:
        manifest = json.loads((root / FOLDER / MANIFEST).read_text(encoding="utf-8"))
        val_tokens = manifest["arguments"]["val_tokens"]
        less = ("--max_tokens", "9e4", "--val_tokens", val_tokens)
        first = run(tmp_path, hub.env, *FLAGS, *less)
        assert "train" in first
        p = subprocess.run(
            command(*FLAGS),
            cwd=tmp_path,
            env=hub.env,
            capture_output=True,
            text=True,
            preexec_fn=limit,
        )
        assert p.returncode == 2 and p.stderr.count("\n") == 1
        assert "could not write" in p.stderr and "File too large" in p.stderr
        assert not list((tmp_path / "data").rglob("*.tmp"))
        run(tmp_path, hub.env, *FLAGS)
    assert digest(tmp_path / FOLDER) == want


# divided


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    "The same documents in local files, and what the plain writer of ch05 makes of them."
    root = tmp_path_factory.mktemp("local")
    for i in range(3):
        write_parquet(root / "in" / f"{i}.parquet", [*words(150, i), "", None], rows=20 + i)
    texts = [
        t
        for i in range(3)
        for t in pq.read_table(root / "in" / f"{i}.parquet")["text"].to_pylist()
        if t
    ]
    plain = write_shards(texts, GPT2, root / "plain", "in", shard_size=9000, val_tokens=5000)
    return root / "in", plain


def config(local, tmp_path, **flags):
    flags = {
        "shard_size": 9000,
        "val_tokens": 5000,
        "num_proc": 1,
        "out": str(tmp_path / "out"),
    } | flags
    return PrepareConfig(dataset=(str(local[0]),), **flags)


def shards_of(folder):
    return [
        (s["split"], s["tokens"], s["sha256"])
        for s in json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["shards"]
    ]


@pytest.mark.parametrize("num_proc", [1, 2, 4])
def test_the_number_of_processes_changes_nothing(local, tmp_path, num_proc):
    folder = prepare(config(local, tmp_path, num_proc=num_proc))
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    assert shards_of(folder) == [(s["split"], s["tokens"], s["sha256"]) for s in local[1]["shards"]]
    assert manifest["totals"] == local[1]["totals"]  # documents, tokens and bytes too
    assert open_shards(folder, "train", GPT2.hash)[:1] == [GPT2.eot]


@pytest.mark.parametrize(
    "n,max_tokens", [(3, None), pytest.param(2, 30_001, marks=pytest.mark.slow)]
)
def test_parts_merge_to_the_bytes_of_one_run(local, tmp_path, n, max_tokens):
    one = prepare(config(local, tmp_path, out=str(tmp_path / "one"), max_tokens=max_tokens))
    lines = []
    for i in reversed(range(1, n + 1)):
        prepare(
            config(local, tmp_path, part=f"{i}/{n}", num_proc=1, max_tokens=max_tokens),
            lines.append,
        )
    with pytest.raises(FileNotFoundError, match="no train shards"):
        open_shards(tmp_path / f"out-part-1-of-{n}", "train")
    assert not prepare(
        config(local, tmp_path, merge=True, max_tokens=max_tokens, dry_run=True)
    ).exists()
    folder = prepare(config(local, tmp_path, merge=True, max_tokens=max_tokens), lines.append)
    assert digest(folder) == digest(one)
    assert (
        prepare(config(local, tmp_path, merge=True, max_tokens=max_tokens), lines.append) == folder
        and "prepared before" in lines[-1]
    )


def test_merging_needs_all_parts_and_equal_ones(local, tmp_path):
    prepare(config(local, tmp_path, part="1/2", num_proc=1))
    with pytest.raises(
        ValueError, match=r"no finished part 2/2 beside it; prepare it with --part 2/2"
    ):
        prepare(config(local, tmp_path, merge=True))
    prepare(config(local, tmp_path, part="2/2", num_proc=1, shard_size=8000))
    with pytest.raises(
        ValueError,
        match=r"out-part-2-of-2: holds other shards, of shard_size 8,000, expected 9,000",
    ):
        prepare(config(local, tmp_path, merge=True))


@pytest.mark.slow
def test_a_merge_that_was_stopped_goes_on(local, tmp_path):
    one = prepare(config(local, tmp_path, out=str(tmp_path / "one")))
    for i in (1, 2):
        prepare(config(local, tmp_path, part=f"{i}/2", num_proc=1))
    folder = prepare(config(local, tmp_path, merge=True))
    (folder / MANIFEST).rename(folder / UNFINISHED)
    (
        folder / json.loads((folder / UNFINISHED).read_text(encoding="utf-8"))["shards"][3]["file"]
    ).unlink()
    lines = []
    prepare(config(local, tmp_path, merge=True), lines.append)
    assert digest(folder) == digest(one) and any(
        "going on after 3 whole shards" in line for line in lines
    )


@pytest.mark.slow
def test_parts_that_do_not_reach_max_tokens_are_one_line(local, tmp_path, monkeypatch):
    monkeypatch.setattr("gpt2edu.data.prepare.SLACK", -20_000)
    for i in (1, 2):
        prepare(config(local, tmp_path, part=f"{i}/2", num_proc=1, max_tokens=50_000))
    with pytest.raises(
        ValueError, match=r"the parts hold the first [\d,]+ tokens, fewer than max_tokens=50,000"
    ):
        prepare(config(local, tmp_path, merge=True, max_tokens=50_000))


def test_more_tokens_later_are_the_bytes_of_one_run(local, tmp_path):
    want = digest(prepare(config(local, tmp_path, out=str(tmp_path / "one"), max_tokens=60_000)))
    lines = []
    for n in (31_234, 60_000):
        folder = prepare(config(local, tmp_path, max_tokens=n, num_proc=1), lines.append)
        assert sum(s[1] for s in shards_of(folder)) == n
    assert digest(folder) == want and sum("going on" in line for line in lines) == 1
    with pytest.raises(
        ValueError, match="of max_tokens 60,000, expected 50,000; choose another folder with --out"
    ):
        prepare(config(local, tmp_path, max_tokens=50_000))


def test_a_folder_grows_and_holds_out_what_it_did(local, tmp_path):
    "By default that is a 40th of max_tokens, which would be more the second time."

    def held_out(folder):
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return found["arguments"]["val_tokens"]

    whole = config(local, tmp_path, out=str(tmp_path / "one"), max_tokens=60_000, val_tokens=750)
    want = digest(prepare(whole))
    for n in (30_000, 60_000):
        folder = prepare(config(local, tmp_path, max_tokens=n, val_tokens=None))
        assert held_out(folder) == 750
    assert digest(folder) == want
    with pytest.raises(ValueError, match="of val_tokens 750, expected 900; choose another folder"):
        prepare(config(local, tmp_path, max_tokens=60_000, val_tokens=900))


def test_parts_grow_too_and_a_name_may_hold_what_a_pattern_means(local, tmp_path):
    usual = {"val_tokens": None, "out": str(tmp_path / "out[1]")}
    for n in (30_000, 60_000):
        for part in ("1/2", "2/2"):
            prepare(config(local, tmp_path, part=part, max_tokens=n, **usual))
    folder = prepare(config(local, tmp_path, merge=True, max_tokens=60_000, **usual))
    one = usual | {"out": str(tmp_path / "one"), "val_tokens": 750, "max_tokens": 60_000}
    assert shards_of(folder) == shards_of(prepare(config(local, tmp_path, **one)))


# what a trainer finds


def test_training_finds_what_prepare_has_written(dataset, tmp_path, monkeypatch):
    root, _, _ = dataset
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FileNotFoundError,
        match=f"fineweb-edu is not prepared, expected {FOLDER}; "
        ".* with --shards, or prepare it with: gpt2edu_prepare$",
    ):
        prepare_data(preset("gpt2-124m"))
    with serve(root) as hub:
        out = run(tmp_path, hub.env, "--num_proc", "1")
    assert "next: gpt2edu_train --preset gpt2-124m\n" in out
    tokenizer, folder = prepare_data(preset("gpt2-124m"))
    assert tokenizer.hash == GPT2.hash and str(folder) == FOLDER
    text = GPT2.eot, *GPT2.encode(texts_of(root / "HuggingFaceFW/fineweb-edu")[0])
    assert open_shards(folder, "val", GPT2.hash)[: len(text)].tolist() == [*text]
    # without the network; the shards are whole, so the absent HellaSwag is a line and no error
    alone = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    out = run(tmp_path, os.environ | alone)
    assert out.count("prepared before") == 1
    assert "prepare: Rowan/hellaswag: it is not in the cache, and " in out


def test_an_unfinished_folder_is_not_trained_on(tmp_path):
    folder = hub_folder(str(tmp_path), "fineweb-edu", None, "train", "gpt2", 0)
    folder.mkdir()
    (folder / UNFINISHED).write_text("", encoding="utf-8")
    with pytest.raises(
        FileNotFoundError,
        match="its preparation is not finished; go on with: gpt2edu_prepare --data_dir",
    ):
        prepare_data(preset("gpt2-124m", data_dir=str(tmp_path)))


@pytest.mark.parametrize("form", ["bin", "npy"])
def test_shards_that_others_publish_are_used_as_they_are(tmp_path, form):
    "Written here by hand, as llm.c's data_common.py and build-nanogpt's fineweb.py write them."
    want = {}
    for i, split in enumerate(("val", "train", "train")):
        ids = np.random.default_rng(i).integers(0, 50257, 3000).astype(np.uint16)
        want.setdefault(split, []).append(ids)
        name = tmp_path / f"edufineweb_{split}_{i:06d}"
        if form == "npy":
            np.save(f"{name}.npy", ids)
        else:
            header = np.zeros(256, dtype=np.int32)
            header[:3] = 20240520, 1, len(ids)
            Path(f"{name}.bin").write_bytes(header.tobytes() + ids.tobytes())
    tokenizer, folder = prepare_data(preset("gpt2-124m", shards=str(tmp_path)))
    for split, parts in want.items():
        assert np.array_equal(open_shards(folder, split, tokenizer.hash)[:], np.concatenate(parts))


@pytest.mark.parametrize("name", [pytest.param("stories", marks=pytest.mark.slow), "pydocs"])
def test_embedded_corpora_are_the_shards_that_training_writes(tmp_path, name):
    where = {"dataset": (name,), "tokenizer": "gpt2", "data_dir": str(tmp_path)}
    folder = prepare(PrepareConfig(**where, num_proc=1))
    tokenizer, found = prepare_data(preset("tiny", **where))
    mine = digest(folder)
    assert found == folder and tokenizer.hash == GPT2.hash
    prepare_data(preset("tiny", **where | {"data_dir": str(tmp_path / "b")}))
    theirs = digest(tmp_path / "b" / folder.name)
    assert {k: v for k, v in mine.items() if k != MANIFEST} == {
        k: v for k, v in theirs.items() if k != MANIFEST
    }
    lines = []
    prepare(PrepareConfig(**where | {"data_dir": str(tmp_path / "b")}), lines.append)
    assert "prepared before" in lines[0]


def test_a_tokenizer_is_trained_on_the_first_documents(local, tmp_path):
    folder = prepare(config(local, tmp_path, tokenizer="train", vocab_size=400, num_proc=1))
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.n_vocab == 400 and open_shards(folder, "train", tokenizer.hash)
    (folder / MANIFEST).rename(folder / UNFINISHED)
    want = tokenizer.hash
    prepare(config(local, tmp_path, tokenizer="train", vocab_size=400, num_proc=1))
    assert Tokenizer.load(folder).hash == want


@pytest.mark.skipif(os.name != "posix", reason="Windows cuts paths, not names")
@pytest.mark.parametrize("letter", ["a", "é"])
def test_a_file_may_have_the_longest_name(tmp_path, letter):
    file = tmp_path / (letter * (250 // len(letter.encode())) + ".txt")
    file.write_text("\n\n".join(f"Mia has {i} apples." for i in range(300)), encoding="utf-8")
    data = DataConfig(dataset=(str(file),), vocab_size=300, data_dir=str(tmp_path / "data"))
    tokenizer, folder = prepare_data(data)
    assert len(open_shards(folder, "train", tokenizer.hash))
    with pytest.raises(ValueError, match="not a name in UTF-8"):
        DataConfig(dataset=("caf\udce9.txt",))


def test_two_first_runs_at_once(tmp_path):
    "Defect: both found nothing, and each removed what the other was writing."
    code = (
        "from gpt2edu.train.config import preset; from gpt2edu.data.cache import prepare_data\n"
        "print(prepare_data(preset('tiny', dataset=('pydocs',), tokenizer='gpt2'))[1])"
    )
    line, pipes = [sys.executable, "-c", code], {"stdout": warm.PIPE, "stderr": warm.PIPE}
    both = [warm.start(line, cwd=tmp_path, **pipes) for _ in range(3)]
    outs = [p.communicate(timeout=600) for p in both]
    assert [p.returncode for p in both] == [0] * 3, outs
    assert len({out for out, _ in outs}) == 1 and [
        p.name for p in (tmp_path / "data").iterdir()
    ] == [outs[0][0].strip()[5:]]
    assert open_shards(tmp_path / outs[0][0].strip(), "train", GPT2.hash)


# memory


def tree_memory(pid, peak, stop):
    "Watch the resident memory of a process and its children, in bytes."
    page = os.sysconf("SC_PAGE_SIZE")
    while not stop.is_set():
        total, todo = 0, [pid]
        while todo:
            p = todo.pop()
            try:
                total += int(Path(f"/proc/{p}/statm").read_text(encoding="utf-8").split()[1]) * page
                todo += [
                    int(c)
                    for t in Path(f"/proc/{p}/task").iterdir()
                    for c in (t / "children").read_text(encoding="utf-8").split()
                ]
            except (OSError, IndexError):
                continue
        peak[0] = max(peak[0], total)
        time.sleep(0.02)


def watched(cwd, *flags):
    p = subprocess.Popen(
        command(*flags), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    peak, stop = [0], threading.Event()
    watch = threading.Thread(target=tree_memory, args=(p.pid, peak, stop))
    watch.start()
    out = p.communicate()[0]
    stop.set()
    watch.join()
    assert p.returncode == 0, out
    return peak[0]


def long_document(n_bytes):
    "One document of words, numbers, signs and long runs."
    rng, parts, size = random.Random(0), [], 0
    block = " ".join(words(400, 8))
    while size < n_bytes:
        parts.append(
            f"{block}\n{rng.random()} {'x' * rng.randint(0, 5000)}{' ' * rng.randint(1, 3000)}"
        )
        size += len(parts[-1].encode())
    return parts


def one_long_document(tmp_path, megabytes, limit, form):
    parts = long_document(megabytes << 20)
    (tmp_path / "in").mkdir()
    if form == "parquet":
        pq.write_table(
            pa.table({"text": ["A short one."] * 3 + ["".join(parts)]}),
            tmp_path / "in" / "a.parquet",
        )
    else:
        (tmp_path / "in" / "a.jsonl").write_text(
            "\n".join(json.dumps({"text": t}) for t in ["A short one."] * 3 + ["".join(parts)]),
            encoding="utf-8",
        )
    peak = watched(
        tmp_path, "--dataset", "in", "--out", "out", "--num_proc", "2", "--val_tokens", "8"
    )
    ids = open_shards(tmp_path / "out", "train", verify=False)
    assert len(ids) > 0.1 * (megabytes << 20)
    at, ids = 0, np.concatenate([open_shards(tmp_path / "out", "val")[:], ids[:]])
    for begin in [b"<|endoftext|>A short one."] * 3 + [b"<|endoftext|>"]:
        want = [GPT2.eot, *GPT2.encode(begin.decode().removeprefix("<|endoftext|>"))]
        assert ids[at : at + len(want)].tolist() == want
        at += len(want)
    text = "".join(parts)
    # cut elsewhere than the library does
    cuts = [m.start() for m in re.finditer(r"(?<=[a-z0-9])\n(?=0\.)", text)]
    for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True):
        want = GPT2.encode(text[a:b])
        assert ids[at : at + len(want)].tolist() == want
        at += len(want)
    assert at == len(ids) and peak < limit, f"{peak / 1e6:.0f} MB"
    return peak


def test_a_long_document(tmp_path):
    one_long_document(tmp_path, 8, 700e6, "parquet")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_document_of_300_megabytes(tmp_path, form):
    peak = one_long_document(tmp_path, 300, 1.5e9, form)
    sys.__stderr__.write(f"\n300 MB in one {form} document: {peak / 1e6:.0f} MB resident\n")


@pytest.mark.slow
def test_200_megabytes_with_faults(tmp_path):
    """The size that the issue names.

    200 MB of parquet or more, faults in 30 % of requests, memory of the whole tree.
    """
    root = tmp_path / "hub"
    write_dataset(root, files=4, documents=40_000, rows=1000, length=350)
    assert sum(p.stat().st_size for p in root.rglob("*.parquet")) >= 200e6
    flags = ("--num_proc", "2", "--shard_size", "1e7")
    with serve(root) as hub:
        (tmp_path / "a").mkdir()
        run(tmp_path / "a", hub.env, *flags)
    with serve(root, faulty=0.3, seed=5) as hub:
        (tmp_path / "b").mkdir()
        os.environ.update(
            {k: v for k, v in hub.env.items() if k.startswith("HF_") or k == "NO_PROXY"}
        )
        peak = watched(tmp_path / "b", *flags)
    assert digest(tmp_path / "a" / FOLDER) == digest(tmp_path / "b" / FOLDER)
    counts = {
        f: sum(x == f for _, _, x in hub.requests) for f in ("429", "503", "reset", "stall", "cut")
    }
    sys.__stderr__.write(
        f"\n{len(hub.requests)} requests, faults {counts}, {peak / 1e6:.0f} MB resident\n"
    )
    assert all(counts.values()) and peak < 1.5e9


@pytest.mark.slow
def test_two_processes_are_as_fast_as_two_threads_of_tiktoken(tmp_path):
    root, out = Path(__file__).parent.parent, tmp_path / "here.json"
    command = [sys.executable, "-m", "benchmarks", "run", "--only", "text-to-shards", "--json", out]
    subprocess.run(command, cwd=root, check=True)
    row = json.loads(out.read_text(encoding="utf-8"))["rows"]["text-to-shards"]
    assert row["ratios"]["tiktoken"]["median"] >= 0.9
    assert row["figures"]["ours, resident MB"]["median"] < 1500


# what the user is told


def test_lines_for_a_log_file(tmp_path):
    lines = []
    with Progress(1000, 100, tmp_path, lines.append, every=0) as progress:
        time.sleep(0.01)
        progress.add(400)
    form = r"progress: 500 of about 1,000 tokens \(50\.0%\), [\d,]+ tokens/s, "
    form += r"time left \S.*, disk left [\d.]+ [GM]B"
    assert len(lines) == 1 and re.fullmatch(form, lines[0]), lines


def test_numbers_of_tokens():
    assert PrepareConfig(shard_size=1e8, max_tokens=1e9).shard_size == 100_000_000
    for flags, words_ in (
        (
            {"shard_size": 0},
            "shard_size=0 must be a whole number of tokens, 1 or more; for example 1e8",
        ),
        ({"max_tokens": 1.5}, "max_tokens=1.5 must be a whole number"),
        ({"max_tokens": float("nan")}, "max_tokens=nan"),
        ({"shard_size": 3e9}, "does not fit into a shard's header"),
        ({"num_proc": 0}, "num_proc=0 must be 1 to 1024"),
        ({"part": "4/3"}, "part='4/3' must be i/n with i from 1 to n; for example 2/3"),
        ({"part": "1/2", "merge": True}, "expected one of them"),
        ({"dataset": ()}, "dataset names nothing"),
        ({"dataset": ("caf\udce9.txt",)}, r"dataset='caf\udce9.txt' is not a name in UTF-8"),
    ):
        with pytest.raises(ValueError, match=re.escape(words_)):
            PrepareConfig(**flags)


BAD = {
    "unknown dataset": (["--dataset", "nobody/nothing"], "no dataset 'nobody/nothing' on http"),
    "unknown config": (
        ["--subset", "sample-10bt"],
        "no subset 'sample-10bt'; expected sample-10BT",
    ),
    "unknown split": (["--split", "test"], "no split 'test'; expected train"),
    "unknown revision": (["--dataset", "HuggingFaceFW/fineweb-edu@v9"], "no revision 'v9'"),
    "no text column": (["--text_key", "body"], "no column 'body', got text, id, dump"),
    "column of numbers": (["--text_key", "score"], "column 'score' holds double, expected text"),
    "no such file": (["--dataset", "nothing.jsonl"], "no dataset 'nothing.jsonl'"),
    "cut parquet": (["--dataset", "cut.parquet"], "cut.parquet: not a whole parquet file"),
    "damaged parquet": (
        ["--dataset", "damaged.parquet"],
        "damaged.parquet: not a whole parquet file",
    ),
    "jsonl without text": (["--dataset", "bad.jsonl"], "bad.jsonl, line 2: no text under 'text'"),
    "lone surrogate": (["--dataset", "half.jsonl"], "lone surrogate"),
    "nothing for training": (
        ["--dataset", "tiny.jsonl", "--val_tokens", "1e6"],
        "no document is left for training",
    ),
    "other tokenizer": (
        ["--out", "taken", "--tokenizer", "small.json"],
        "taken: holds other shards, of tokenizer name gpt2, expected small",
    ),
    "other source": (["--out", "taken"], "taken: holds other shards, of source dataset"),
    "other shard size": (
        ["--dataset", "tiny.jsonl", "--out", "taken", "--shard_size", "5"],
        "of shard_size 100,000,000, expected 5",
    ),
    "shards of unknown origin": (
        ["--out", "strange"],
        "strange: holds shards of unknown origin (x_train_000001.bin)",
    ),
    "a broken manifest": (["--out", "broken"], "manifest.json: not a manifest"),
    "no room": (["--max_tokens", "1e15", "--dataset", "tiny.jsonl", "--out", "big"], None),
    "unknown flag": (["--shards_size", "5"], "did you mean"),
    "not a number": (["--shard_size", "big"], "shard"),
    "no parts": (["--merge"], "no finished part 1/n beside it"),
    "a file in the way": (["--out", "tiny.jsonl/x"], "tiny.jsonl"),
}


@pytest.fixture(scope="module")
def mistakes(dataset, tmp_path_factory):
    "All mistakes in one process, to start Python once: exit code and what was printed."
    folder, root = tmp_path_factory.mktemp("bad"), dataset[0]
    write_parquet(folder / "whole.parquet", list(words(300, 1)))
    data = (folder / "whole.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(data[: len(data) // 2])
    (folder / "damaged.parquet").write_bytes(data[:4] + bytes(3000) + data[3004:])
    (folder / "tiny.jsonl").write_text('{"text": "Mia had a ball."}\n' * 50, encoding="utf-8")
    (folder / "bad.jsonl").write_text('{"text": "fine"}\n{"body": 1}\n', encoding="utf-8")
    (folder / "half.jsonl").write_text('{"text": "\\ud800"}\n', encoding="utf-8")
    Tokenizer.train(["a b a b"], 258, "small").save(folder / "small.json")
    (folder / "strange").mkdir()
    (folder / "strange" / "x_train_000001.bin").write_bytes(b"")
    (folder / "broken").mkdir()
    (folder / "broken" / MANIFEST).write_text("{", encoding="utf-8")
    driver = (
        "import contextlib, io, json, os, shutil, sys\n"
        "from gpt2edu.cli import commands as cli; from gpt2edu.machine import progress\n"
        "cases, out, usage = json.loads(sys.argv[1]), {}, shutil.disk_usage\n"
        "cli.prepare(['--dataset', 'tiny.jsonl', '--out', 'taken', '--num_proc', '1'])\n"
        "for name, flags in cases.items():\n"
        "    err, code = io.StringIO(), 0\n"
        "    if name == 'no room':\n"
        "        progress.shutil.disk_usage = lambda p: type('U', (), {'free': 10})\n"
        "    with contextlib.redirect_stderr(err):\n"
        "        try: cli.prepare([*flags, '--num_proc', '1'])\n"
        "        except SystemExit as e: code = e.code\n"
        "    out[name] = code, err.getvalue()\n"
        "    progress.shutil.disk_usage = usage\n"
        "print('RESULT', json.dumps(out))\n"
    )
    with serve(root) as hub:
        cases = json.dumps({k: v[0] for k, v in BAD.items()})
        script = "if __name__ == '__main__':\n" + textwrap.indent(driver, "    ")
        (folder / "driver.py").write_text(script, encoding="utf-8")
        p = warm.run([sys.executable, folder / "driver.py", cases], cwd=folder, env=hub.env)
        assert p.returncode == 0, p.stdout + p.stderr
        return json.loads(p.stdout.split("RESULT ")[1])


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_line(mistakes, name):
    code, err = mistakes[name]
    want = BAD[name][1] or "no room, about"
    assert (
        code == 2 and err.count("\n") == 1 and err.startswith("gpt2edu_prepare: ") and want in err
    ), (code, err)


# every function that asks the hub, and what a caller in Python sees of an error
ASK_THE_HUB = """
import os, sys, time, traceback
from pathlib import Path
from gpt2edu.data import hub
from gpt2edu.evaluate.tasks import get_items
from gpt2edu.model import pretrained
time.sleep = lambda seconds: None
hub.GREETING = 0.2
(Path(sys.argv[1]) / "model.safetensors").touch(), (Path(sys.argv[1]) / "config.json").touch()
url, name, noted = os.environ["HF_ENDPOINT"] + "/datasets/me/mine/x.parquet", "me/mine", []
for ask in (
    lambda: hub.list_files(name, note=noted.append),
    lambda: hub.retry(lambda: hub.HubFile(url, 9).fetch(0, 5), f"reading {url}", 0.2, noted.append),
    lambda: get_items("me/mine"),
    lambda: pretrained.from_pretrained(name),
    lambda: pretrained.from_pretrained(url),
    lambda: pretrained.push(sys.argv[1], name),
):
    try:
        ask()
    except (ValueError, OSError) as e:
        assert len(str(e).splitlines()) == 1, str(e)
        traceback.print_exc(file=sys.stdout)
        print("refused:", e)
print("notes:", noted)
"""
TOKEN = "hf_" + "aBcD1234" * 4


@pytest.mark.parametrize("status", [400, 401, 403, 503])
@pytest.mark.parametrize("how", ["token", "address", "token on two lines"])
def test_a_token_is_in_no_exception(how, status, tmp_path):
    "The server quotes what it was sent, the client what it could not send."
    (tmp_path / "model").mkdir()
    if status == 503 and how == "token on two lines":
        pytest.skip("nothing is sent")
    with serve(tmp_path, faulty=1.0, faults=(f"echo {status}",)) as hub:
        env = {"HF_ENDPOINT": hub.env["HF_ENDPOINT"], "HF_TOKEN": "", "HF_HOME": str(tmp_path)}
        if how == "address":
            env["HF_ENDPOINT"] = env["HF_ENDPOINT"].replace("://", "://me:pass-word@")
        else:
            env["HF_TOKEN"] = TOKEN if how == "token" else f"{TOKEN}\n{TOKEN}"
        if status in (401, 403):  # tokens of other servers have another form
            env["HF_TOKEN"] = env["HF_TOKEN"].replace("hf_", "api-")
        cmd = [sys.executable, "-c", ASK_THE_HUB, str(tmp_path / "model")]
        p = warm.run(cmd, env=hub.env | env)
    assert p.returncode == 0 and p.stdout.count("refused: ") == 6, p.stdout + p.stderr
    assert how == "token on two lines" or len(hub.requests) >= 4
    # the client's own log, on standard error, names addresses as they are
    said = p.stdout if how == "address" else p.stdout + p.stderr
    basic = base64.b64encode(b"me:pass-word").decode()
    for secret in ("pass-word", "aBcD1234", basic, basic.rstrip("=")):
        assert secret not in said, said


def test_without_a_network(tmp_path):
    env = NO_PROXY | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    code = "from gpt2edu.cli import commands\nfrom gpt2edu.data import hub\n"
    code += "hub.GREETING = 0.5\ncommands.main(['prepare'])"
    p = warm.run([sys.executable, "-c", code], cwd=tmp_path, env=env)
    assert (
        p.returncode == 2
        and p.stderr.count("\n") == 1
        and "asking http://127.0.0.1:9 for HuggingFaceFW/fineweb-edu: no answer" in p.stderr
    )
    p = warm.run([sys.executable, "-c", code], cwd=tmp_path, env=env | {"HF_HUB_OFFLINE": "1"})
    assert p.returncode == 2 and "HF_HUB_OFFLINE is set" in p.stderr and p.stderr.count("\n") == 1


def test_a_server_whose_name_is_unknown(tmp_path):
    "Laptops without a network: nothing is tried twice."
    env = NO_PROXY | {"HF_ENDPOINT": "http://hub.invalid", "HF_HOME": str(tmp_path / "cache")}
    for args, what in (
        ("prepare", "its name is not known here"),
        ("generate --run gpt2", "not in the cache"),
    ):
        line = [sys.executable, "-m", "gpt2edu.cli", *args.split()]
        p = warm.run(line, cwd=tmp_path, env=env)
        assert (
            p.returncode == 2
            and p.stderr.count("\n") == 1
            and "http://hub.invalid" in p.stderr
            and what in p.stderr
        )


def test_one_writer_for_a_folder(local, tmp_path):
    from gpt2edu.data.cache import one_writer

    with (
        one_writer(tmp_path / "out"),
        pytest.raises(ValueError, match="another process is writing there"),
    ):
        prepare(config(local, tmp_path))


def test_a_dry_run_writes_nothing(local, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = []
    prepare(PrepareConfig(dataset=(str(local[0]),), dry_run=True), lines.append)
    assert not list(tmp_path.iterdir()) and any("would write" in line for line in lines)


def test_local_files_of_all_kinds(tmp_path):
    (tmp_path / "a.txt").write_text("Mia had a ball.\n\n" * 200, encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "Tom had a kite."}\n' * 30, encoding="utf-8")
    write_parquet(tmp_path / "c.parquet", ["The end."] * 10, rows=3)
    source = local_source((str(tmp_path),), {}, 0)
    got = [bytes(d).decode() for u in source.units((0, 0)) for d in u.read(0)]
    assert got == list(documents([str(tmp_path)]))
    assert [
        bytes(d) for u in source.units((2, 1)) for d in u.read(1 if u.key == (2, 1) else 0)
    ] == [b"The end."] * 6


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()]
)
def test_columns_of_other_text_types(tmp_path, kind):
    pq.write_table(
        pa.table({"text": pa.array(["a", "", None, "é"], pa.string()).cast(kind)}),
        tmp_path / "a.parquet",
    )
    source = local_source((str(tmp_path / "a.parquet"),), {}, 0)
    assert [bytes(d).decode() for u in source.units((0, 0)) for d in u.read(0)] == ["a", "é"]
