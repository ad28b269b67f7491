"""Signals at any moment: one line, an exit code that says which, and nothing half-written.

Exit codes that may be: 130, 143 and 129 for SIGINT, SIGTERM and SIGHUP; 0 for a command that was
done, and for a training that had taken a step and has saved.
"""

import codecs
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import warm

from gpt2edu.cli.flags import command
from gpt2edu.data.shards import MANIFEST, open_shards, read_manifest
from gpt2edu.machine.signals import Stopped, why
from gpt2edu.model.pretrained import export, from_pretrained
from gpt2edu.text.chat import with_chat
from gpt2edu.text.corpus import stories
from gpt2edu.train import checkpoint

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux's /proc"
)

LIBRARY = Path(__file__).parents[1]
ENV = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(LIBRARY)}
SIZES = "--n_layer 1 --n_head 2 --n_embd 16 --block_size 32 --micro_batch 4 --total_batch 256"
TRAIN = f"train --dataset t.txt --device cpu --choice_items 0 {SIZES}"
# each takes longer than the three seconds, or is a short one
COMMANDS = {
    "train": f"{TRAIN} --max_steps 100000 --eval_every 50 --save_every 7 --keep_last 2",
    "prepare": "prepare --dataset long.txt --num_proc 2 --shard_size 20_000 --val_tokens 1000",
    "generate": "generate --run {place}/runs/ours --max_tokens 100000",
    "eval": "eval --model {place}/runs/ours --tasks val --device cpu",
    "plan": "plan --measure",
    "export": "export --run {place}/runs/ours --out out",
    "chat": "chat --run {place}/talker --device cpu",  # a question for each line of t.txt
    "web": "chat --run {place}/talker --device cpu --web --port 0",
}
# other ways to train, in the long series only
MORE = {
    "sft": "train --preset tiny-sft --init_from tiny --device cpu --max_steps 100000 "
    "--save_every 7 --keep_last 2 --eval_every 50 --choice_items 4 --conversations 50 "
    "--total_batch 1024 --micro_batch 4",
    "lora": f"{TRAIN} --init_from {{place}}/runs/ours --lora_rank 2 --max_steps 100000 "
    "--save_every 7 --keep_last 2 --eval_every 50",
    "reward": "train --preset tiny-grpo --init_from {place}/talker --device cpu --max_steps 100000 "
    "--save_every 2 --keep_last 2 --eval_every 50 --choice_items 4 --total_batch 1024 "
    "--micro_batch 2 --group 2 --answer_tokens 4",
}
ALL = COMMANDS | MORE
# done or saved, or ended by SIGHUP, SIGINT, SIGTERM
CODES = {0, 129, 130, 143}
SCRIPT = """import sys
from gpt2edu.cli.__main__ import {0}
if __name__ == "__main__":
    sys.exit({0}())
"""


def begin(place: Path, folder: Path, line: str, script: bool, **more) -> subprocess.Popen:
    "Start a command as its console script does, or with -m, and wait for its first line."
    name, *flags = line.format(place=place).split()
    if name == "chat":
        more["stdin"] = open(place / "t.txt", encoding="utf-8")
    cmd = [sys.executable, "-m", "gpt2edu", name]
    if script:
        cmd = [sys.executable, place / f"gpt2edu_{name}"]
        cmd[1].write_text(SCRIPT.format("eval_" if name == "eval" else name), encoding="utf-8")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    env = ENV | more.pop("env", {})
    p = subprocess.Popen([*cmd, *flags], cwd=folder, env=env, text=True, **pipes, **more)
    while p.poll() is None and not is_caught(p.pid, signal.SIGTERM):
        time.sleep(0.001)
    return p


def is_caught(pid: int, number: int) -> bool:
    "Whether a process has a handler for a signal."
    found = re.search(r"SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    return bool(found and int(found[1], 16) >> (number - 1) & 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "A text, a long one, and a trained run."
    place = tmp_path_factory.mktemp("signals")
    text = "\n\n".join(s.text for s in stories(400))
    (place / "t.txt").write_text(text, encoding="utf-8")
    (place / "long.txt").write_text("\n\n".join([text] * 40), encoding="utf-8")
    p = begin(place, place, f"{TRAIN} --max_steps 3 --name ours", True)
    out, err = p.communicate(timeout=600)
    assert p.returncode == 0, (out, err)
    tokenizer = with_chat(from_pretrained("tiny")[1])
    export(from_pretrained("tiny", tokenizer.n_vocab)[0], tokenizer, place / "talker")
    return place


def check_whole(folder: Path):
    "Whether everything in a folder is whole, and nothing temporary is left."
    names = [str(p.relative_to(folder)) for p in folder.rglob("*")]
    assert not [n for n in names if re.search(r"\.tmp|\.lock", n)], names
    for path in folder.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
    for path in folder.rglob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            json.loads(line)
    for path in folder.rglob("step_*"):
        checkpoint.load(path)
    for path in folder.rglob(MANIFEST):
        tokenizer = read_manifest(path.parent)["tokenizer"]["hash"]
        open_shards(path.parent, "train", tokenizer, True)


def check_end(folder: Path, numbers, code: int, out: str, err: str, what: tuple):
    "Whether signals have ended a command in order, or let it save, and all it leaves is whole."
    assert "Traceback" not in err + out and "Exception ignored" not in err, what
    saved = re.search(r"SIG\w+: saved step", out)
    ended = [128 + number for number in numbers if number]
    assert code in ([0] if saved else [0, *ended]), what
    said = [line for line in err.splitlines() if not line.startswith(("(", "chat: "))]
    assert len(said) == (code != 0), what
    check_whole(folder)


def trial(place: Path, folder: Path, name: str, rng: random.Random) -> int:
    "Start a command, send signals in its first three seconds, and look at what it leaves."
    folder.mkdir()
    for text in ("t.txt", "long.txt"):
        (folder / text).hardlink_to(place / text)
    if name == "eval":
        (folder / "data").symlink_to(place / "data")  # prepared already
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    first, second = rng.choice(numbers), rng.choice([None, None, signal.SIGTERM, signal.SIGHUP])
    send = rng.choice([os.kill, os.killpg])  # one process, or all, as a terminal does
    moment, later = rng.uniform(0, 3), rng.choice([0, rng.uniform(0, 0.1), rng.uniform(0, 0.5)])
    what = (name, first.name, second and second.name, send.__name__, round(moment, 3), later)
    p = begin(place, folder, ALL[name], rng.random() < 0.7)
    try:
        time.sleep(moment)
        for number, wait in ((first, later), (second, 0)):
            if number and p.poll() is None:
                send(p.pid, number)
                time.sleep(wait)
        out, err = p.communicate(timeout=300)
    finally:
        if p.poll() is None:
            os.killpg(p.pid, signal.SIGKILL)
    what = (*what, p.returncode, out[-500:], err)
    check_end(folder, (first, second), p.returncode, out, err, what)
    return p.returncode


def trials(place: Path, tmp_path: Path, name: str, n: int, seed: int) -> list[int]:
    "Return the exit codes of n trials."
    codes = []
    for i in range(n):
        sys.stdout.write(f"{name}, seed {seed + i}\n")  # shown where one fails
        codes.append(trial(place, tmp_path / str(i), name, random.Random(seed + i)))
    return codes


@pytest.mark.parametrize("name", ["train", "prepare", "web"])
def test_a_signal_at_any_moment(place, tmp_path, name):
    codes = trials(place, tmp_path, name, 1, random.randrange(10**6))
    assert set(codes) <= CODES, codes


# Python tells of each call and each return, in C too, and at one of them a signal comes
AT_AN_EVENT = """
import signal, sys
what, which, *numbers = sys.argv.pop(1).split(",")
left = int(which)

def count(frame, event, arg):
    global left
    left -= 1
    if left == 0:
        sys.setprofile(None)
        for number in numbers:
            signal.raise_signal(int(number))

def begin(frame, event, arg):
    if event == "return" and frame.f_code.co_name == "end_on_signals":
        sys.setprofile(count)

sys.argv[0] = "gpt2edu_" + what
import gpt2edu.cli.__main__ as commands
sys.setprofile(begin)
getattr(commands, {"eval": "eval_"}.get(what, what))()
"""


def trial_at_an_event(place: Path, folder: Path, line: str, rng: random.Random) -> int:
    "Run a command in a fork, have one or two signals come at an event, and look at what it leaves."
    name, *flags = line.format(place=place).split()
    folder.mkdir()
    for text in ("t.txt", "long.txt"):
        (folder / text).hardlink_to(place / text)
    if name == "eval":
        (folder / "data").symlink_to(place / "data")
    which = int(10 ** rng.uniform(0, 6.5))  # a small training has a million
    first, second = rng.choice([1, 2, 15]), rng.choice([None, None, 1, 15])
    numbers = [number for number in (first, second) if number]
    what = ",".join(map(str, [name, which, *numbers]))
    cmd = [sys.executable, "-c", AT_AN_EVENT, what, *flags]
    said = "Who has the umbrella?\nWhere is it?\n" if name == "chat" else ""
    p = warm.run(cmd, cwd=folder, env=ENV, input=said)
    what = (line, what, p.returncode, p.stdout[-500:], p.stderr)
    check_end(folder, numbers, p.returncode, p.stdout, p.stderr, what)
    return p.returncode


SHORT = {name: re.sub("100000", "8", line) for name, line in ALL.items() if name != "web"}
SHORT["prepare"] = SHORT["prepare"].replace("long.txt", "t.txt")
SHORT["export"] += " --web"
SHORT["dry"] = f"{TRAIN} --dry_run"


def trials_at_events(place, tmp_path, name, seeds) -> list[int]:
    line = SHORT[name]
    return [trial_at_an_event(place, tmp_path / str(i), line, random.Random(i)) for i in seeds]


@pytest.mark.parametrize("name", SHORT)
def test_a_signal_at_an_event(place, tmp_path, name):
    "The same events on every machine."
    codes = trials_at_events(place, tmp_path, name, range(4))
    assert set(codes) <= CODES and set(codes) != {0}, codes


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_signals_at_300_events(place, tmp_path, name):
    n = int(os.environ.get("SIGNALS", 300))
    codes = trials_at_events(place, tmp_path, name, range(10**6, 10**6 + n))
    assert set(codes) <= CODES, codes


@pytest.mark.parametrize("moment", ["call __enter__", "return __enter__", "call __exit__"])
def test_a_signal_while_standard_error_is_redirected(moment):
    "A random moment found it: the line was written into what tyro says, which nobody reads."
    event, function = moment.split()
    code = f"""
import contextlib, signal, sys

def look(frame, event, arg):
    here = event == "{event}" and frame.f_code.co_name == "{function}"
    if here and isinstance(frame.f_locals.get("self"), contextlib.redirect_stderr):
        sys.setprofile(None)
        signal.raise_signal(signal.SIGINT)

from gpt2edu.cli.__main__ import plan
sys.setprofile(look)
plan()
"""
    p = warm.run([sys.executable, "-c", code, "--preset", "tiny", "--device", "cpu"], env=ENV)
    assert (p.returncode, p.stderr) == (130, "gpt2edu_plan: interrupted\n"), p


def test_ctrl_c_is_told_in_one_way():
    "Between the trainer's handlers and its own line, SIGINT was `stopped by SIGINT`."
    assert why(Stopped("SIGINT")) == why(KeyboardInterrupt()) == ("interrupted", 130)
    assert why(Stopped("SIGHUP")) == ("stopped by SIGHUP", 129)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_100_signals_at_any_moment(place, tmp_path, name):
    n = int(os.environ.get("SIGNALS", 100))
    codes = trials(place, tmp_path, name, n, 10**6)
    assert len(codes) == n and set(codes) <= CODES, codes


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "web"])
def test_ctrl_c_in_the_first_moment(place, tmp_path, name):
    "Little is imported yet; the signal waits for the end of the imports, and one line tells of it."
    p = begin(place, tmp_path, COMMANDS[name], name in ("train", "plan"))
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=300)
    assert p.returncode == 130 and "Traceback" not in out, (p.returncode, out, err)
    # `python -m gpt2edu` may not have read the command's name yet, or a training not have begun
    says = ["gpt2edu: interrupted\n", f"gpt2edu_{name}: interrupted\n"]
    if name == "train":
        says += ["gpt2edu_train: SIGINT: stopped before the first step; nothing is lost\n"]
    last = err.splitlines(True)[-1]  # a chat may have looked at a message or two
    assert last in says, err
    assert err == last or name == "chat"


def test_nohup_stays_deaf_to_sighup(place, tmp_path):
    (tmp_path / "t.txt").hardlink_to(place / "t.txt")
    signal_off = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    p = begin(place, tmp_path, COMMANDS["train"], True, **signal_off)
    assert not is_caught(p.pid, signal.SIGHUP)
    while "step 1/" not in (line := p.stdout.readline()):
        assert line
    p.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert p.poll() is None
    p.send_signal(signal.SIGTERM)
    out, err = p.communicate(timeout=300)
    assert p.returncode == 0 and "SIGTERM: saved step" in out and err == "", (out, err)


def test_a_closed_terminal_and_a_second_sigterm_save(place, tmp_path):
    (tmp_path / "t.txt").hardlink_to(place / "t.txt")
    p = begin(place, tmp_path, COMMANDS["train"], False)
    while "step 1/" not in (line := p.stdout.readline()):
        assert line
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGTERM):
        p.send_signal(number)
    out, err = p.communicate(timeout=300)
    assert p.returncode == 0 and "SIGHUP: saved step" in out and err == "", (out, err)
    check_whole(tmp_path)


SWALLOW = """
import os, signal, time
from gpt2edu.machine.signals import Stopped, end_on_signals, why

class Object:
    def __del__(self):
        os.kill(os.getpid(), signal.{0})
        time.sleep(0.01)

end_on_signals()
try:
    Object()
    time.sleep(60)
except (KeyboardInterrupt, Stopped) as e:
    print(why(e))
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_that_a_destructor_swallows_comes_again(name):
    cmd = [sys.executable, "-c", SWALLOW.format(name)]
    p = subprocess.run(cmd, env=ENV, capture_output=True, text=True, timeout=300)
    assert p.stderr == "" and str(128 + getattr(signal, name)) in p.stdout, p


def test_a_signal_inside_a_codec_keeps_its_name():
    "The long series found it: Python 3.11 rewords an exception that leaves a codec."

    def cut_off(error):
        raise Stopped("SIGHUP")

    codecs.register_error("cut off", cut_off)
    with pytest.raises(Stopped) as e:
        b"\xff".decode("utf-8-sig", "cut off")
    assert (str(e.value), e.value.code) == ("SIGHUP", 129)


REWORDED = """
import os, signal
from gpt2edu.cli.flags import command
from gpt2edu.machine.signals import end_on_signals

def plan(args):
    try:
        os.kill(os.getpid(), getattr(signal, os.environ["SENT"]))
        signal.pause()
    except BaseException as e:
        error = ValueError(f"cannot read: {e}")
    raise error

end_on_signals()
command(plan)()
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_of_which_a_library_has_made_its_own_error(name, code):
    "As safetensors does, which reads through Python."
    env = os.environ | {"SENT": name}
    done = subprocess.run([sys.executable, "-c", REWORDED], env=env, capture_output=True, text=True)
    said = "interrupted" if code == 130 else "stopped by SIGTERM"
    assert (done.returncode, done.stderr) == (code, f"gpt2edu_plan: {said}\n")


def test_a_signal_while_a_class_is_made(capsys):
    "The long series found it in dataclasses: Python 3.11 makes a RuntimeError of it."

    class Cut:
        def __set_name__(self, owner, name):
            raise Stopped("SIGTERM")

    with pytest.raises(SystemExit) as e:
        command(lambda args: type("Made", (), {"part": Cut()}), "gpt2edu_chat")([])
    assert e.value.code == 143 and capsys.readouterr().err == "gpt2edu_chat: stopped by SIGTERM\n"


BROKEN = """
import signal
from gpt2edu.cli import commands, flags

def work(*_):
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        object().lock

{0}
"""


@pytest.mark.parametrize(
    ("name", "how", "said"),
    [
        ("plan", "end_on_signals(); flags.command(work, 'gpt2edu_plan')()", "stopped by SIGTERM"),
        (
            "train",
            "commands.say = work; commands.train()",
            "SIGTERM: stopped before the first step; nothing is lost",
        ),
    ],
)
def test_a_signal_that_breaks_a_library(tmp_path, name, how, said):
    "The events found it: tqdm let go of a lock that the signal had kept it from making."
    code = BROKEN.format(f"from gpt2edu.machine.signals import end_on_signals\n{how}")
    p = warm.run([sys.executable, "-c", code], env=ENV, cwd=tmp_path)
    assert (p.returncode, p.stderr) == (143, f"gpt2edu_{name}: {said}\n"), p


def test_a_signal_while_a_stream_changes_its_encoder():
    "A random moment found it: standard error was left without an encoder."
    code = """
import signal, sys

def look(frame, event, arg):
    outer = frame.f_back
    if outer and outer.f_code.co_name == "prepare_output" and outer.f_locals["name"] == "stderr":
        sys.setprofile(None)
        signal.raise_signal(signal.SIGINT)

from gpt2edu.cli.__main__ import plan
sys.setprofile(look)
plan()
"""
    p = warm.run([sys.executable, "-c", code], env=ENV)
    assert (p.returncode, p.stderr) == (130, "gpt2edu_plan: interrupted\n"), p
