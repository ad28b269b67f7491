"""Disks that are full, read-only or odd, names that are long, streams that are closed.

Each is one line that names path and remedy, or works; nothing temporary is left.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import warm

from gpt2edu.data import cache
from gpt2edu.machine import atomic
from gpt2edu.text.corpus import stories

pytestmark = pytest.mark.skipif(os.name != "posix", reason="shells, links and limits of POSIX")

LIBRARY = Path(__file__).parents[1]
ENV = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(LIBRARY)}
SIZES = "--n_layer 1 --n_head 2 --n_embd 16 --block_size 32 --micro_batch 4 --total_batch 256"
TRAIN = f"train --dataset t.txt --device cpu --choice_items 0 {SIZES}"


def shell(line: str, folder: Path, **env) -> subprocess.CompletedProcess:
    "Run `it COMMAND …` in a shell; `it` is python -m gpt2edu."
    it = f"{shlex.quote(sys.executable)} -m gpt2edu"
    return warm.shell(re.sub(r"\bit (?=[a-z])", f"{it} ", line), cwd=folder, env=ENV | env)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "A text, and a run."
    place = tmp_path_factory.mktemp("disks")
    text = "\n\n".join(s.text for s in stories(400))
    (place / "t.txt").write_text(text, encoding="utf-8")
    done = shell(f"it {TRAIN} --max_steps 2 --name ours", place)
    assert done.returncode == 0, done.stderr
    return place


def no_leftovers(folder: Path):
    left = [str(p) for p in folder.rglob("*") if re.search(r"\.tmp|\.lock", p.name)]
    assert not left


# names


@pytest.mark.parametrize("letter", ["🙂", *(pytest.param(c, marks=pytest.mark.slow) for c in "né")])
def test_a_name_of_255_bytes(place, letter):
    "The temporary files and the lock beside it had longer names than a file system takes."
    name = letter * (255 // len(letter.encode()))
    name += "x" * (255 - len(name.encode()))
    steps = [
        f"it {TRAIN} --max_steps 2 --name {name}",
        f"it train --resume {name} --max_steps 3",
        f"it generate --run {name} --max_tokens 3",
        f"it eval --model runs/{name} --tasks val --device cpu",
        f"it export --run {name}",
    ]
    for line in steps:
        done = shell(line, place)
        assert done.returncode == 0 and done.stderr == "", (line[:20], done.stderr)
    assert (place / "exports" / name / "model.safetensors").exists()
    no_leftovers(place)
    done = shell(f"it {TRAIN} --max_steps 2 --name {name}x", place)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"name={name}x"[:20] in done.stderr and "256 bytes, expected 255 at most" in done.stderr


def test_two_long_names_have_two_locks(tmp_path):
    names = ["n" * 255, "n" * 254 + "m", "n" * 241, "n" * 240]
    locks = {cache.lock_of(tmp_path / name) for name in names}
    assert len(locks) == 4 and all(len(path.name) <= 255 for path in locks)


# links that somebody has planted


def test_a_planted_link_is_not_followed(tmp_path, monkeypatch):
    "In a folder where all may write, a link under the temporary name led our bytes anywhere."
    victim = tmp_path / "victim"
    victim.write_text("precious", encoding="utf-8")
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda n: "guessed")
    for planted in (victim, tmp_path / "not there"):
        link = tmp_path / ".a.json.guessed.tmp"
        link.symlink_to(planted)
        with pytest.raises(OSError, match=r"a\.json: could not write 2 bytes"):
            atomic.write_atomically(tmp_path / "a.json", b"{}")
        assert victim.read_text(encoding="utf-8") == "precious"
        assert sorted(p.name for p in tmp_path.iterdir() if not p.is_symlink()) == ["victim"]
        link.unlink(missing_ok=True)


def test_temporary_names_cannot_be_guessed(tmp_path):
    names = {atomic.temporary(tmp_path / "a.json").name for _ in range(100)}
    assert len(names) == 100
    assert all(re.fullmatch(r"\.a\.json\.[0-9a-f]{16}\.tmp", name) for name in names)


def test_a_planted_lock_is_not_followed(place, tmp_path):
    victim = tmp_path / "victim"
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / ".it.lock").symlink_to(victim)
    shutil.copy(place / "t.txt", tmp_path)
    done = shell(f"it {TRAIN} --max_steps 2 --name it", tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "runs/it: cannot write there" in done.stderr and "--out_dir" in done.stderr
    assert not victim.exists() and not (runs / "it").exists()


# file systems without a flush of folders, from a library that is loaded before the system's

SELDOM = [pytest.param(why, marks=pytest.mark.slow) for why in ("ENOTSUP", "EPERM", "ENOSYS")]
REFUSES = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/stat.h>
int fsync(int fd) {
    struct stat s;
    if (!fstat(fd, &s) && S_ISDIR(s.st_mode)) { errno = WHY; return -1; }
    return ((int (*)(int)) dlsym(RTLD_NEXT, "fsync"))(fd);
}
"""


@pytest.mark.skipif(not shutil.which("gcc") or sys.platform != "linux", reason="needs gcc, Linux")
@pytest.mark.parametrize("why", ["EINVAL", *SELDOM])
def test_a_file_system_that_flushes_no_folders(place, tmp_path, why):
    (tmp_path / "f.c").write_text(REFUSES, encoding="utf-8")
    shim = tmp_path / "f.so"
    cmd = ["gcc", "-shared", "-fPIC", f"-DWHY={why}", "-o", shim, tmp_path / "f.c", "-ldl"]
    subprocess.run(cmd, check=True)
    shutil.copy(place / "t.txt", tmp_path)
    line = f"it {TRAIN} --max_steps 2 --name it && it export --run it"
    done = shell(line, tmp_path, LD_PRELOAD=str(shim))
    assert done.returncode == 0 and done.stderr == "", done.stderr
    code = "import errno, os\ntry: os.fsync(os.open('.', 0))\nexcept OSError as e: "
    code += f"assert e.errno == errno.{why}\nelse: raise SystemExit('the shim is not at work')"
    env = ENV | {"LD_PRELOAD": str(shim)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True)


def test_a_flush_that_fails_is_a_failure(tmp_path, monkeypatch):
    def broken(fd):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        atomic.sync_folder(tmp_path)


# full, read-only, not permitted

WRITERS = {  # what writes, into {there}
    "train": TRAIN.replace("t.txt", "{place}/t.txt")
    + " --max_steps 3 --out_dir {there}/runs --data_dir {place}/data",
    "train's data": TRAIN.replace("t.txt", "{place}/t.txt") + " --max_steps 3 --data_dir {there}/d",
    "prepare": "prepare --dataset {place}/t.txt --num_proc 1 --out {there}/p",
    "export": "export --run {place}/runs/ours --out {there}/e",
}


def refused(line: str, place: Path, tmp_path: Path, there: Path, *words: str, before: str = ""):
    "One line that names a path there, the reason and a remedy; and nothing is left there."
    done = shell(f"{before}it {line.format(place=place, there=there)}", tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, (done.returncode, done.stderr)
    assert str(there) in done.stderr, done.stderr
    assert any(word in done.stderr for word in words), done.stderr
    assert re.search("free|choose|use another", done.stderr), done.stderr
    no_leftovers(there)


@contextmanager
def disk(there: Path, options: str):
    "Mount a disk of its own in memory."
    there.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", there]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a disk")
    yield there
    subprocess.run(["umount", there], check=True)


@pytest.fixture
def small(tmp_path):
    "A disk of 24 kB."
    with disk(tmp_path / "small", "size=24k") as there:
        yield there


@pytest.fixture
def closed(tmp_path):
    "A folder into which nobody may write, root neither."
    there = tmp_path / "closed"
    there.mkdir()
    there.chmod(0o555)
    if os.access(there, os.W_OK):
        if subprocess.run(["chattr", "+i", there], capture_output=True, check=False).returncode:
            pytest.skip("root may write everywhere, and chattr does not work here")
    yield there
    subprocess.run(["chattr", "-i", there], capture_output=True, check=False)
    there.chmod(0o755)


@pytest.fixture
def read_only(tmp_path):
    "A disk that is mounted read-only."
    with disk(tmp_path / "ro", "ro,size=1m") as there:
        yield there


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk(place, tmp_path, small, name):
    refused(WRITERS[name], place, tmp_path, small, "No space left", "no room")


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_without_the_right_to_write(place, tmp_path, closed, name):
    refused(WRITERS[name], place, tmp_path, closed, "not permitted", "Permission denied")
    assert not list(closed.iterdir())


@pytest.mark.parametrize("name", WRITERS)
def test_a_read_only_disk(place, tmp_path, read_only, name):
    refused(WRITERS[name], place, tmp_path, read_only, "Read-only file system")


@pytest.mark.parametrize("name", WRITERS)
def test_a_limit_on_the_size_of_files(place, tmp_path, name):
    there = tmp_path / "there"
    there.mkdir()
    refused(WRITERS[name], place, tmp_path, there, "File too large", before="ulimit -f 8; ")


# streams

STREAMS = {
    "train": f"{TRAIN} --max_steps 2 --name {{n}}",
    "prepare": "prepare --dataset t.txt --num_proc 1 --out {n}",
    "generate": "generate --run ours --max_tokens 3 --num_seq 3",
    "eval": "eval --model runs/ours --tasks val --device cpu",
    "plan": "plan",
    "export": "export --run ours --out {n}",
    "help": "{n} --help",
    "json": "plan --json",
}
ODD = {
    "one column": ("COLUMNS=1 {}", [0]),
    "stderr full": ("{} 2>/dev/full", [0]),
    "stdout full": ("{} >/dev/full", [0, 2]),
    "both full": ("{} >/dev/full 2>/dev/full", [0, 2]),
    "closed": ("{} <&- >&- 2>&-", [0]),
    "head": ("set -o pipefail; {} | head -1", [0]),
    "gone": ("set -o pipefail; {} | true", [0]),
}


# each command with every third way, and each way with some commands; all pairs in the slow series
PAIRS = [
    pytest.param(name, how, marks=[pytest.mark.slow] * ((i + j) % 3 > 0))
    for i, name in enumerate(STREAMS)
    for j, how in enumerate(ODD)
]


@pytest.mark.parametrize("name,how", PAIRS)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_odd_streams(place, name, how):
    "No traceback, also none of Python's own end, and an exit code that is ours."
    line = STREAMS[name].format(n="train" if name == "help" else f"{name}-{how}".replace(" ", "-"))
    wrapped, codes = ODD[how]
    done = shell(wrapped.format(f"it {line}"), place)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    assert done.returncode in codes, (done.returncode, done.stderr)
    goes_on = name == "train" and how == "stdout full"
    assert "training continues without it" in done.stderr or not goes_on
    unread = how in ("stderr full", "both full", "closed")
    assert done.stderr.count("\n") == ((done.returncode == 2 or goes_on) and not unread)


@pytest.mark.parametrize("how", ODD)
def test_a_mistake_with_odd_streams(place, how):
    done = shell(ODD[how][0].format("it plan --nonsense"), place)
    unread = how in ("stderr full", "both full", "closed")
    assert done.returncode == 2 and done.stderr.count("\n") == (not unread), done
    assert "Traceback" not in done.stderr


def test_a_figure_without_a_home_is_drawn_in_silence(tmp_path):
    "Matplotlib says where its own files go; what it says after its import is still heard."
    code = """
import logging
from gpt2edu.train.log import blank_figure, picture

open("loss.png", "wb").write(picture(blank_figure))
print(logging.getLogger("matplotlib").level)
"""
    told = ("MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    env = {k: v for k, v in os.environ.items() if k not in told} | {"HOME": "/proc/nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=env | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
    assert (tmp_path / "loss.png").stat().st_size > 1000
