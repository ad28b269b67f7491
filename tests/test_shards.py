"""Shards: bytes as llm.c writes them, whole or not there, refused with one line when wrong."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from gpt2edu.data import shards as S
from gpt2edu.text.corpus import stories
from gpt2edu.text.tokenizer import Tokenizer


class Bytes:
    "A stand-in tokenizer: one id per byte."

    name, n_vocab, eot = "bytes", 257, 256
    hash = hashlib.sha256(b"bytes").hexdigest()

    def encode_batch(self, texts, num_threads=2):
        return [list(t.encode()) for t in texts]

    def decode_bytes(self, ids):
        return bytes(ids.tolist())


TEXTS = [f"document {i} " + "abc" * (i % 7) for i in range(200)]


def make(folder, texts=TEXTS, **kw):
    kw = {"shard_size": 500, "val_tokens": 300} | kw
    return S.write_shards(texts, Bytes(), folder, "toy", **kw)


def stream(texts):
    return [i for t in texts for i in [256, *t.encode()]]


def one_line(excinfo, *parts):
    text = str(excinfo.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text, f"{part!r} is not in {text!r}"


# the format


def test_bytes_are_those_of_llm_c(tmp_path):
    "llm.c, dev/data/data_common.py: 256 int32 (magic, version, count), then uint16."
    sha = S.write_shard(tmp_path / "a.bin", [1, 300, 65535])
    raw = (tmp_path / "a.bin").read_bytes()
    assert (
        raw == np.array([20240520, 1, 3] + [0] * 253, "<i4").tobytes() + b"\x01\x00\x2c\x01\xff\xff"
    )
    assert sha == hashlib.sha256(raw).hexdigest()
    tokens = S.read_shard(tmp_path / "a.bin")
    assert (
        isinstance(tokens, np.memmap)
        and tokens.dtype == np.uint16
        and tokens.tolist() == [1, 300, 65535]
    )


def test_npy_of_build_nanogpt(tmp_path):
    np.save(tmp_path / "edufineweb_val_000000.npy", np.arange(9, dtype=np.uint16))
    np.save(tmp_path / "edufineweb_train_000001.npy", np.arange(100, 120, dtype=np.uint16))
    assert S.open_shards(tmp_path, "val")[0:9].tolist() == list(range(9))
    train = S.open_shards(tmp_path, "train", n_vocab=120)
    assert train[3:6].tolist() == [103, 104, 105]
    with pytest.raises(ValueError) as e:
        S.open_shards(tmp_path, "train", n_vocab=119)
    one_line(e, "edufineweb_train_000001.npy", "got id 119", "0 to 118")


@pytest.mark.parametrize(
    "ids,got", [([3, 65536], "65536 at token 1"), ([-1], "-1 at token 0"), ([2**40], 2**40)]
)
def test_ids_that_do_not_fit_are_refused(tmp_path, ids, got):
    with pytest.raises(ValueError) as e:
        S.write_shard(tmp_path / "a.bin", ids)
    one_line(e, tmp_path / "a.bin", got, "0 to 65535")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tokens", [[], [[1, 2]], [0.5], ["a"]])
def test_what_is_not_ids_is_refused(tmp_path, tokens):
    with pytest.raises(ValueError) as e:
        S.write_shard(tmp_path / "a.bin", tokens)
    one_line(e, tmp_path / "a.bin", "list of token ids")


# a folder


def test_every_document_once_and_whole_on_its_side(tmp_path):
    manifest = make(tmp_path)
    val, train = S.open_shards(tmp_path, "val"), S.open_shards(tmp_path, "train")
    n_val = manifest["totals"]["val"]["documents"]
    assert val[0 : len(val)].tolist() == stream(TEXTS[:n_val])
    assert train[0 : len(train)].tolist() == stream(TEXTS[n_val:])
    # stops at the first document that reaches it
    assert len(stream(TEXTS[: n_val - 1])) < 300 <= len(val)
    assert manifest["totals"]["train"]["bytes"] == sum(len(t.encode()) for t in TEXTS[n_val:])
    files = [s["file"] for s in manifest["shards"]]
    assert files == ["toy_val_000000.bin"] + [
        f"toy_train_{i:06d}.bin" for i in range(1, len(files))
    ]
    assert [s["tokens"] for s in manifest["shards"][1:-1]] == [500] * (len(files) - 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*files, "manifest.json"])
    for s in manifest["shards"]:
        assert s["sha256"] == hashlib.sha256((tmp_path / s["file"]).read_bytes()).hexdigest()
    assert (
        json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
        == manifest
        == train.manifest
    )


def test_validation_may_need_several_shards(tmp_path):
    manifest = make(tmp_path, val_tokens=1200)
    assert [s["split"] for s in manifest["shards"]][:4] == ["val", "val", "val", "train"]
    val = S.open_shards(tmp_path, "val")
    assert val[0 : len(val)].tolist() == stream(TEXTS[: manifest["totals"]["val"]["documents"]])


def test_no_validation(tmp_path):
    make(tmp_path, val_tokens=0)
    train = S.open_shards(tmp_path, "train")
    assert train[0 : len(train)].tolist() == stream(TEXTS)
    with pytest.raises(FileNotFoundError) as e:
        S.open_shards(tmp_path, "val")
    one_line(e, tmp_path, "no val shards")


def test_same_documents_same_bytes(tmp_path):
    for name in "ab":
        make(tmp_path / name, source={"dataset": "toy"})
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert len(files) > 5
    for f in files:
        assert (tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes()


def test_slices_across_borders(tmp_path):
    make(tmp_path)
    train = S.open_shards(tmp_path, "train")
    want = np.array(stream(TEXTS[S.read_manifest(tmp_path)["totals"]["val"]["documents"] :]))
    rng = np.random.default_rng(0)
    spans = [
        (499, 501),
        (500, 1000),
        (0, len(train)),
        (7, 7),
        (-3, len(train)),
        *rng.integers(0, len(train), (50, 2)),
    ]
    for a, b in spans:
        got = train[int(a) : int(b)]
        assert got.dtype == np.uint16 and got.tolist() == want[int(a) : int(b)].tolist()


def test_documents_are_streamed(tmp_path):
    """Never more in memory than a shard and a batch of documents.

    The generator is asked for documents between shards.
    """
    shards_when_asked = []

    def texts():
        for _ in range(3000):
            shards_when_asked.append(len(list(tmp_path.glob("toy_*.bin"))))
            yield "x" * 999

    tracemalloc.start()
    make(tmp_path, texts(), shard_size=100_000, val_tokens=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert shards_when_asked[-1] >= 25 and len(list(tmp_path.glob("toy_*.bin"))) == 31
    # all ids as Python lists: 24e6 and more
    assert peak < 12e6, f"{peak:,} bytes for 3,000,000 tokens"


# what can be wrong with a folder


def spoil(path, how):
    raw = bytearray(path.read_bytes())
    if how == "magic":
        raw[:4] = (20240801).to_bytes(4, "little")
    elif how == "version":
        raw[4:8] = (7).to_bytes(4, "little")
    elif how == "short":
        raw = raw[:-10]
    elif how == "header":
        raw = raw[:100]
    elif how == "empty":
        raw = b""
    elif how == "long":
        raw += b"12"
    elif how == "altered":
        raw[-20] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    "how,parts",
    [
        ("magic", ["wrong magic number", "got 20240801", "expected 20240520"]),
        ("version", ["got shard version 7", "expected 1"]),
        ("short", ["cut short", "got 2,014 bytes", "expected 2,024"]),
        ("header", ["cut short", "got 100 bytes", "1,024"]),
        ("empty", ["cut short", "got 0 bytes", "1,024"]),
        ("long", ["too long", "got 2,026 bytes", "expected 2,024"]),
        ("altered", ["altered", "SHA-256", "expected", "prepare the data again"]),
    ],
)
def test_spoiled_shard(tmp_path, how, parts):
    make(tmp_path)
    bad = tmp_path / "toy_train_000002.bin"
    spoil(bad, how)
    with pytest.raises(ValueError) as e:
        S.open_shards(tmp_path, "train")
    one_line(e, bad, *parts)
    assert len(S.open_shards(tmp_path, "val")) >= 300  # the other split is untouched


def test_whole_shard_of_another_length(tmp_path):
    make(tmp_path)
    S.write_shard(tmp_path / "toy_train_000001.bin", [1, 2, 3])
    with pytest.raises(ValueError) as e:
        S.open_shards(tmp_path, "train", verify=False)
    one_line(e, "toy_train_000001.bin", "got 3 tokens", "expected 500")


@pytest.mark.parametrize("how", ["short", "float", "square", "text", "empty"])
def test_spoiled_npy(tmp_path, how):
    path = tmp_path / "a_train_000000.npy"
    arrays = {"float": np.zeros(4), "square": np.zeros((2, 2), np.uint16)}
    np.save(path, arrays.get(how, np.arange(100, dtype=np.uint16)))
    if how == "short":
        path.write_bytes(path.read_bytes()[:-50])
    if how == "text":
        path.write_text("not an array", encoding="utf-8")
    if how == "empty":
        path.write_bytes(b"")
    with pytest.raises(ValueError) as e:
        S.open_shards(tmp_path, "train")
    one_line(e, path, "download or prepare it again")


def test_another_tokenizer(tmp_path):
    make(tmp_path)
    assert len(S.open_shards(tmp_path, "train", tokenizer_hash=Bytes.hash))
    with pytest.raises(ValueError) as e:
        S.open_shards(tmp_path, "train", tokenizer_hash="f" * 64)
    one_line(
        e, tmp_path, "another tokenizer", "got bytes", Bytes.hash[:12], "expected ffffffffffff",
        "prepare",
    )  # fmt: skip


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError) as e:
        S.open_shards(tmp_path / "nowhere", "train")
    one_line(e, tmp_path / "nowhere", "no such folder", "prepare")
    with pytest.raises(FileNotFoundError) as e:
        S.open_shards(tmp_path, "train")
    one_line(e, tmp_path, "no train shards", "_train_", "prepare")
    with pytest.raises(FileNotFoundError) as e:
        S.read_shard(tmp_path / "a.bin")
    one_line(e, tmp_path / "a.bin", "no such shard")
    with pytest.raises(ValueError, match="got no shards, expected at least one path"):
        S.ShardSet([])
    make(tmp_path / "data")
    (tmp_path / "data/toy_train_000001.bin").unlink()
    with pytest.raises(FileNotFoundError) as e:
        S.open_shards(tmp_path / "data", "train")
    one_line(e, tmp_path / "data/toy_train_000001.bin", "no such shard")


NO_SPLIT = '{"tokenizer": {"hash": "x"}, "shards": [{"file": "a"}]}'


@pytest.mark.parametrize("text", ["", "{", "[]", '{"shards": []}', NO_SPLIT])
def test_spoiled_manifest(tmp_path, text):
    make(tmp_path)
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as e:
        S.open_shards(tmp_path, "train")
    one_line(e, tmp_path / "manifest.json", "not a manifest", "prepare the data again")


# what can be wrong while writing


def test_tokenizer_with_ids_beyond_its_vocabulary(tmp_path):
    tokenizer = Bytes()
    tokenizer.encode_batch = lambda texts, num_threads=2: [[1, 300] for _ in texts]
    with pytest.raises(ValueError) as e:
        S.write_shards(["a", "b"], tokenizer, tmp_path, "toy")
    one_line(e, "document 0", "got id 300", "0 to 256")


def test_tokenizer_too_large_for_uint16(tmp_path):
    tokenizer = Bytes()
    tokenizer.n_vocab = 100_277
    with pytest.raises(ValueError) as e:
        S.write_shards(["a"], tokenizer, tmp_path / "out", "toy")
    one_line(e, "n_vocab=100277", "65536")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "texts,got", [([], "got 0 tokens"), (TEXTS[:3], f"got {len(stream(TEXTS[:3]))} tokens")]
)
def test_too_little_text(tmp_path, texts, got):
    with pytest.raises(ValueError) as e:
        make(tmp_path, texts)
    one_line(
        e, tmp_path, "no document is left for training", got, "val_tokens=300", "lower val_tokens"
    )
    assert not (tmp_path / "manifest.json").exists()


def test_one_document_is_cut_for_validation(tmp_path):
    "Issue 11, case 01: a poem, or a text of one line, trains."
    text = "line of a long poem\n" * 100
    manifest = make(tmp_path, [text])
    val, train = (S.open_shards(tmp_path, split)[:].tolist() for split in ("val", "train"))
    assert val + train[1:] == stream([text]) and train[0] == val[0] == Bytes.eot
    assert len(val) == 300
    totals = manifest["totals"]
    assert totals["val"] == {"documents": 1, "tokens": 300, "bytes": 299}
    assert totals["train"]["bytes"] == len(text) - 299
    # the last of several, too
    other = make(tmp_path / "two", ["x" * 100, text])
    assert [other["totals"][s]["documents"] for s in ("val", "train")] == [2, 1]


def test_hidden_files_are_no_shards(tmp_path):
    make(tmp_path)
    (tmp_path / "manifest.json").unlink()
    shard = next(tmp_path.glob("toy_train_*.bin"))
    n = len(S.open_shards(tmp_path, "train"))
    (tmp_path / f"._{shard.name}").write_bytes(b"Mac OS X")
    assert len(S.open_shards(tmp_path, "train")) == n


@pytest.mark.parametrize("kw", [{"shard_size": 0}, {"shard_size": 2**31}, {"val_tokens": -1}])
def test_sizes(tmp_path, kw):
    with pytest.raises(ValueError) as e:
        make(tmp_path / "out", **kw)
    one_line(e, f"{next(iter(kw))}={next(iter(kw.values()))}", "expected")
    assert not (tmp_path / "out").exists()


def whole_or_absent(folder):
    "Every file under a final name is whole; what is not finished is refused."
    for p in folder.glob("toy_*.bin"):
        S.read_shard(p)
    if (
        not (folder / "manifest.json").exists()
        and folder.exists()
        and any(folder.glob("toy_*.bin"))
    ):
        with pytest.raises(ValueError, match="the writer was stopped"):
            S.open_shards(folder, "train")


def test_documents_that_fail(tmp_path):
    def texts():
        yield from TEXTS[:150]
        raise RuntimeError("the network went away")

    with pytest.raises(RuntimeError):
        make(tmp_path, texts())
    whole_or_absent(tmp_path)
    assert make(tmp_path) == make(tmp_path / "fresh")  # a second run needs no cleaning up
    files = [
        sorted(p.name for p in f.iterdir() if p.is_file()) for f in (tmp_path, tmp_path / "fresh")
    ]
    assert files[0] == files[1]


@pytest.mark.parametrize("fail_at", [1, 2, 3, 5])
def test_full_disk(tmp_path, monkeypatch, fail_at):
    "The disk fills up while file number fail_at is flushed (1 is the mark, 2 the first shard)."
    real, calls = os.fsync, [0]

    def fsync(fd):
        if not os.path.isdir(f"/proc/self/fd/{fd}"):
            calls[0] += 1
            if calls[0] == fail_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError) as e:
        make(tmp_path)
    assert e.value.errno == errno.ENOSPC
    one_line(e, tmp_path, "No space left on device", "free some space")
    assert list(tmp_path.glob(".*")) == []
    assert len(list(tmp_path.glob("toy_*.bin"))) == max(0, fail_at - 2)
    whole_or_absent(tmp_path)
    monkeypatch.undo()
    assert make(tmp_path) == make(tmp_path / "fresh")


def test_full_disk_for_real(tmp_path):
    "RLIMIT_FSIZE stands in for a full disk: the write itself fails, half-way."
    code = (
        "import resource, signal, sys; from gpt2edu.data import shards as S\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: S.write_shard(sys.argv[1], range(60_000))\n"
        "except OSError as e: print(e)"
    )
    target = tmp_path / "toy_train_000000.bin"
    S.write_shard(target, [1, 2, 3])
    out = subprocess.run([sys.executable, "-c", code, target], capture_output=True, text=True)
    assert (
        "could not write 121,024 bytes (File too large)" in out.stdout
        and out.stdout.count("\n") == 1
    ), out
    # the old one is whole
    assert os.listdir(tmp_path) == [target.name] and S.read_shard(target).tolist() == [1, 2, 3]


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root may write anywhere")
def test_folder_that_is_not_writable(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError) as e:
        make(tmp_path)
    one_line(e, tmp_path, "choose another folder")


READER = """
import os, sys
from pathlib import Path
from gpt2edu.data import prepare
from gpt2edu.data.cache import prepare_data
from gpt2edu.train.config import preset
values = {"dataset": ("t.txt",), "data_dir": "data", "vocab_size": 300}

def find():
    folder = prepare_data(preset("tiny", **values, max_steps=1))[1]
    more = {"tokenizer": "train", "num_proc": 1}
    return folder, prepare.prepare(prepare.PrepareConfig(**values, **more))

first = find()
for folder in (Path("data"), Path(".")):
    folder.chmod(0o555)
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    Path("data/x").touch()
    sys.exit("this user may write")
except PermissionError:
    assert find() == first
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such rights")
def test_finished_data_that_one_may_only_read():
    "Case 12: the lock was taken beside the shards, where another user may not write."
    with tempfile.TemporaryDirectory() as name:  # tmp_path is for its owner only
        place = Path(name)
        place.chmod(0o755)
        text = "\n\n".join(s.text for s in stories(300))
        (place / "t.txt").write_text(text, encoding="utf-8")
        env = os.environ | {"PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
        command = [sys.executable, "-c", READER]
        p = subprocess.run(command, cwd=name, env=env, capture_output=True, text=True)
        for folder in (place, place / "data"):
            folder.chmod(0o755)
        assert p.returncode == 0, p.stderr
        assert not list(place.rglob(".*.lock"))


def test_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "data").write_text("", encoding="utf-8")
    with pytest.raises(OSError) as e:
        make(tmp_path / "data")
    one_line(e, tmp_path / "data", "choose another folder")


def test_finished_shards_are_not_overwritten(tmp_path):
    make(tmp_path)
    with pytest.raises(ValueError) as e:
        make(tmp_path)
    one_line(e, tmp_path, "manifest.json is there already", "choose another folder")


def test_shards_of_others_are_not_overwritten(tmp_path):
    S.write_shard(tmp_path / "toy_train_000001.bin", [1, 2, 3])
    with pytest.raises(ValueError) as e:
        make(tmp_path)
    one_line(e, tmp_path, "toy_train_000001.bin", "choose another")
    assert S.open_shards(tmp_path, "train")[0:3].tolist() == [1, 2, 3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("moment", range(1, 37, 5))
def test_killed_writer(tmp_path, moment):
    "SIGKILL just before the moment-th write to the disk that counts: a flush or a rename."
    pid = os.fork()
    if pid == 0:
        calls = [0]

        def killing(real):
            def run(*args):
                calls[0] += 1
                if calls[0] == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args)

            return run

        os.fsync, os.replace = killing(os.fsync), killing(os.replace)
        make(tmp_path)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    whole_or_absent(tmp_path)
    if (tmp_path / "manifest.json").exists():
        whole = S.read_manifest(tmp_path)
    else:
        whole = make(tmp_path)
        assert sorted(os.listdir(tmp_path)) == sorted(
            [*(s["file"] for s in whole["shards"]), "manifest.json"]
        )
    assert make(tmp_path / "fresh") == whole


WRITER = """
import sys; sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_shards import *
print("go", flush=True)
make(Path(sys.argv[1]), (t * 50 for t in TEXTS * 10), shard_size=20_000, val_tokens=20_000)
"""


@pytest.mark.slow
def test_killed_writer_at_random_moments(tmp_path):
    "SIGKILL 25 times: files under final names are whole; the next run ends with the very bytes."
    rng, wanted, folder = np.random.default_rng(0), tmp_path / "unbroken", tmp_path / "broken"

    def start(out):
        p = subprocess.Popen(
            [sys.executable, "-c", WRITER, out, os.path.dirname(__file__)], stdout=subprocess.PIPE
        )
        assert p.stdout.readline() == b"go\n"
        return p

    p, t0 = start(wanted), time.time()
    assert p.wait() == 0
    took, seen = time.time() - t0, set()
    for _ in range(25):
        p = start(folder)
        time.sleep(rng.uniform(0, took))
        p.kill()
        p.communicate()
        whole_or_absent(folder)
        if (folder / "manifest.json").exists():
            shutil.rmtree(folder)
        seen.add(len(list(folder.glob("toy_*.bin"))))
    assert len(seen) > 3, seen
    assert start(folder).wait() == 0
    assert sorted(os.listdir(folder)) == sorted(os.listdir(wanted))
    for path in wanted.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()


# memory


def resident(code, *args):
    """MB that running `code` adds to a fresh process.

    Resident (all), and anonymous (what the system cannot drop).
    """
    setup = """
import sys, numpy as np; from gpt2edu.data import shards as S
def status():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return np.array([int(lines[k].split()[0]) / 1024 for k in ("VmRSS", "RssAnon")])
before = status()
"""
    command = [sys.executable, "-c", f"{setup}{code}\nprint(*(status() - before))", *args]
    out = subprocess.run(command, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return [float(v) for v in out.stdout.split()]


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
def test_100m_tokens_cost_under_50_mb(tmp_path):
    path = tmp_path / "big_train_000000.bin"
    rng = np.random.default_rng(0)
    sha = S.write_shard(path, np.tile(rng.integers(0, 50257, 1_000_000, dtype=np.uint16), 100))
    manifest = {"tokenizer": {"name": "x", "hash": "0" * 64, "n_vocab": 50257, "eot": 0}}
    manifest["shards"] = [
        {"file": path.name, "split": "train", "tokens": 100_000_000, "sha256": sha}
    ]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    for verify in (False, True):
        code = f"s = S.open_shards(sys.argv[1], 'train', verify={verify})\n"
        code += "assert len(s) == 100_000_000"
        assert max(resident(code, tmp_path)) < 50
        code += "\nfor i in range(0, 10**8, 10**6): s[i:i + 1025]"
        # pages of the map are the file's: the system may drop them
        assert resident(code, tmp_path)[1] < 50
    # the measure sees a copy
    assert min(resident("s = np.array(S.read_shard(sys.argv[1]))", path)) > 150


def test_a_shard_is_scanned_again_only_when_it_has_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(S, "FRESH", 600 * 10**9)  # a slow disk takes seconds to write it
    tokenizer = Tokenizer.train(["a few words of text"], 260, "few")
    S.write_shards(["some text " * 50] * 20, tokenizer, tmp_path, "d", val_tokens=100)

    def opened():
        return S.open_shards(tmp_path, "train")

    whole = opened()[:]
    assert not (tmp_path / ".scanned.json").exists()  # too fresh to be sure
    (path,) = opened().paths
    an_hour_ago = time.time_ns() - 3600 * 10**9
    os.utime(path, ns=(an_hour_ago, an_hour_ago))
    assert (opened()[:] == whole).all()
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(an_hour_ago, an_hour_ago))
    assert (opened()[:-1] == whole[:-1]).all()  # the same size and time: not read again
    os.utime(path, ns=(an_hour_ago, an_hour_ago + 1))
    with pytest.raises(ValueError, match="altered since it was written, got SHA-256"):
        opened()
    path.write_bytes(data[:-2] + (data[-2] ^ 1).to_bytes() + data[-1:])
    for bad in (b"[]", b"{", b'{"d": 3}'):
        (tmp_path / ".scanned.json").write_bytes(bad)
        assert (opened()[:] == whole).all()
