"""The launch files and the page of commands.

Real processes; ssh, nvidia-smi and Slurm have stand-ins.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import warm

from gpt2edu.cli import commands as cli
from gpt2edu.cli.flags import Report, parse_both
from gpt2edu.train.config import TrainConfig

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = ROOT / "launch"
FILES = sorted(LAUNCH.iterdir())
FLAGS = shlex.split(
    "--preset tiny --dataset pydocs --name run --choice_items 0 --n_layer 1 --n_head 2 --n_embd 32"
    " --block_size 32 --vocab_size 300 --total_batch 256 --micro_batch 4 --val_tokens 2048"
    " --warmup_steps 2 --eval_every 10 --save_every 10 --sample_every 1000"
)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
OUTSIDE = (
    "RANK WORLD_SIZE LOCAL_RANK MASTER_ADDR MASTER_PORT NPROC REMOTE_SHELL PORT RESTARTS".split()
)


class Place:
    "A folder with data, and the environment of a machine without a GPU."

    def __init__(self, folder, data):
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        (folder / "data").symlink_to(data)
        self.script("nvidia-smi", "exit 9")
        env = {
            k: v for k, v in os.environ.items() if k not in OUTSIDE and not k.startswith("SLURM")
        }
        self.env = env | {
            "PATH": f"{self.bin}:{env['PATH']}",
            "PYTHON": sys.executable,
            "OMP_NUM_THREADS": "1",
        }

    def script(self, name, text):
        (self.bin / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        (self.bin / name).chmod(0o755)

    def forks_ranks(self):
        "Let torchrun, once it has loaded PyTorch, fork its ranks in place of starting Python."
        self.script("python", f'exec {sys.executable} {warm.__file__} "$@"')
        self.env["PYTHON"] = str(self.bin / "python")

    def start(self, *command, **env):
        out = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "start_new_session": True,
        }
        return subprocess.Popen(list(map(str, command)), cwd=self.folder, env=self.env | env, **out)

    def run(self, *command, **env):
        p = self.start(*command, **env)
        try:
            p.out, p.err = p.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)
            raise
        return p

    def events(self, *kinds):
        log = self.folder / "runs" / "run" / "log.jsonl"
        text = log.read_text(encoding="utf-8") if log.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()  # the last may still be written
        return [e for e in map(json.loads, lines) if e["event"] in kinds]

    def wait_for_step(self, step):
        end = time.monotonic() + 600
        while not any(e["step"] >= step for e in self.events("train")):
            assert time.monotonic() < end, f"step {step} was not reached"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")  # the first run prepares it, the others find it


@pytest.fixture
def place(tmp_path, data):
    return Place(tmp_path, data)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return str(s.getsockname()[1])


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_a_launch_file_is_sound_bash(path):
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    assert os.access(path, os.X_OK) or path.suffix == ".sbatch"
    if shellcheck := shutil.which("shellcheck"):
        done = subprocess.run([shellcheck, "-s", "bash", path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


# what is started


def test_one_node_takes_a_process_for_each_gpu(place):
    place.script("nvidia-smi", "for i in 0 1 2 3 4 5 6 7; do echo GPU $i; done")
    p = place.run(LAUNCH / "one_node.sh", "--preset", "tiny", "--dry_run")
    assert p.returncode == 0, p.err
    *said, line = p.out.splitlines()
    assert (
        said[0].startswith("plan: preset tiny") and "check: ranks: 8, each 1 x 4 windows" in p.out
    )
    assert (
        "--standalone --nproc_per_node=8 --max-restarts=3 -m gpt2edu.cli train --preset tiny"
        in line
    )
    # a crash must not begin a second run
    assert "--dry_run" not in line and line.rstrip().endswith("--resume auto")


@pytest.mark.parametrize("name", ["one_node.sh", "hosts.sh 'a b'", "slurm.sbatch"])
def test_the_124m_run_is_the_default_and_data_that_are_missing_start_nothing(place, name):
    place.script("nvidia-smi", "for i in 0 1; do echo GPU $i; done")
    place.script("scontrol", "echo 127.0.0.1")
    for tool in ("srun", "ssh"):
        place.script(tool, "echo started > started")
    script, *more = shlex.split(name)
    env = {"SLURM_JOB_NODELIST": "n", "SLURM_JOB_ID": "1", "SLURM_NNODES": "2"}
    p = place.run("bash", LAUNCH / script, *more, **env)
    assert p.out.startswith("plan: preset gpt2-124m, 124,475,904 parameters")
    assert p.returncode == 2 and p.err.count("\n") == 1 and "fineweb-edu is not prepared" in p.err
    assert not (place.folder / "started").exists()


def test_the_same_flags_are_the_default_everywhere():
    config, folder, _ = cli.read_train_flags(
        ["--preset", "gpt2-124m", "--resume", "auto", "--out_dir", "/nowhere"]
    )
    assert config.preset == "gpt2-124m" and folder is None


def test_several_hosts_get_one_line_each_and_meet_at_the_first(place):
    p = place.run(
        LAUNCH / "hosts.sh", "a b", *FLAGS, "--dry-run",
        NPROC="4", PORT="1234", PYTHON=sys.executable,
    )  # fmt: skip
    assert p.returncode == 0, p.err
    first, second = p.out.splitlines()[-2:]
    for host, line in (("a", first), ("b", second)):
        assert line.startswith(f"ssh {host} 'cd {place.folder} && ")
        assert (
            "--nnodes=2 --nproc_per_node=4" in line
            and "--rdzv_backend=c10d --rdzv_endpoint=a:1234" in line
        )
        assert f" --local-addr={host} " in line


# mistakes end at once, with one line


@pytest.mark.parametrize(
    "command,env,words",
    [
        (
            "one_node.sh --preset tiny",
            {},
            "one_node.sh: no NVIDIA GPU here; for a test on the processor set",
        ),
        ("one_node.sh --preset tinny", {"NPROC": "2"}, "gpt2edu_train: unknown preset 'tinny'"),
        ("hosts.sh --preset tiny", {}, "hosts.sh: name the machines first"),
        ("hosts.sh 'a b' --n_head 7", {}, "gpt2edu_train: n_head=7 must divide n_embd=96"),
        (
            "slurm.sbatch --micro_batch 7",
            {},
            "gpt2edu_train: total_batch=4096 tokens is not a whole number",
        ),
    ],
)
def test_a_mistake_is_said_once_and_nothing_is_started(place, command, env, words):
    place.script("scontrol", "echo 127.0.0.1")
    for name in ("srun", "ssh"):
        place.script(name, "echo started > started")
    name, *flags = shlex.split(command)
    t0 = time.monotonic()
    p = place.run(
        "bash", LAUNCH / name, *flags,
        SLURM_JOB_NODELIST="n", SLURM_JOB_ID="1", SLURM_NNODES="1", **env,
    )  # fmt: skip
    assert p.returncode == 2 and p.err.count("\n") == 1 and words in p.err
    assert time.monotonic() - t0 < 300 and not (place.folder / "started").exists()


# a run, in each of the three ways: started, told to stop, started again with the same line


def check_whole(place, steps):
    "Each event once, no step twice or missing, and a checkpoint at the end."
    taken = [e["step"] for e in place.events("train")]
    assert taken == sorted(set(taken)) and taken[-1] == steps
    assert [e["step"] for e in place.events("val")][-1] == steps
    assert len(place.events("start")) == 2 and len(place.events("done")) == 1
    assert (place.folder / f"runs/run/checkpoints/step_{steps:08}/state.json").exists()


def test_one_node_trains_is_stopped_and_goes_on(place):
    place.forks_ranks()
    line = [LAUNCH / "one_node.sh", *FLAGS, "--max_steps", "400"]
    p = place.start(*line, NPROC="2")
    place.wait_for_step(15)
    p.send_signal(signal.SIGTERM)
    out, err = p.communicate(timeout=600)
    # torchrun's way to say that it was told to stop
    assert p.returncode != 0 and "SignalException" in err
    (last,) = [e["step"] for e in place.events("stopped")]
    assert (
        last < 400 and (place.folder / f"runs/run/checkpoints/step_{last:08}/state.json").exists()
    ), out + err
    done = place.run(*line[:-1], str(last + 20), NPROC="2")
    assert done.returncode == 0, done.err
    check_whole(place, last + 20)


@LINUX
def test_a_crash_begins_no_second_run(place):
    "torchrun starts its line again; that line has to go on with the run it began."
    place.forks_ranks()
    p = place.start(LAUNCH / "one_node.sh", *FLAGS, "--max_steps", "400", NPROC="2")
    place.wait_for_step(15)
    os.kill(warm.ranks(p.pid)[0], signal.SIGKILL)
    out, err = p.communicate(timeout=600)
    assert p.returncode == 0, out + err
    first, again = (e["step"] for e in place.events("start"))
    assert first == 0 and again >= 10 and len(place.events("done")) == 1
    assert [f.name for f in (place.folder / "runs").iterdir() if f.is_dir()] == ["run"]


@pytest.mark.slow
def test_two_hosts_train_as_one_and_stop_together(place):
    # in place of ssh: drop the host, run the command
    place.script("here", 'shift; exec bash -c "$*"')
    env = {
        "REMOTE_SHELL": f"{place.bin}/here",
        "NPROC": "1",
        "PORT": free_port(),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    line = [LAUNCH / "hosts.sh", "127.0.0.1 127.0.0.1", *FLAGS, "--max_steps", "400"]
    before = set(Path("/tmp").glob("gpt2edu-*.pid"))
    p = place.start(*line, **env)
    place.wait_for_step(15)
    pids = set(Path("/tmp").glob("gpt2edu-*.pid")) - before
    assert len(pids) == 2
    p.send_signal(signal.SIGTERM)
    out, err = p.communicate(timeout=600)
    (last,) = [e["step"] for e in place.events("stopped")]
    assert p.returncode != 0 and last < 400
    assert (place.folder / f"runs/run/checkpoints/step_{last:08}/state.json").exists(), out + err
    done = place.run(*line[:-1], str(last + 20), **env | {"PORT": free_port()})
    assert done.returncode == 0, done.err
    check_whole(place, last + 20)
    assert not set(Path("/tmp").glob("gpt2edu-*.pid")) - before  # nor those of the second start


SRUN = """# one task on each node; as with the real srun, SIGTERM to it kills the tasks at once
while [[ $1 == --* ]]; do shift; done
trap 'kill -KILL $(cat tasks); echo srun was killed > killed; exit 137' TERM
: > tasks
for ((i = 0; i < SLURM_NNODES; i++)); do "$@" & echo $! >> tasks; done
code=0; for pid in $(cat tasks); do wait "$pid" || code=$?; done
exit $code"""
SCANCEL = "[[ $1 == --signal=TERM && $2 == 42 ]] && kill -TERM $(cat tasks)"
SCONTROL = (
    'if [[ $1 == requeue ]]; then echo "$2" > requeued; else echo 127.0.0.1; echo 127.0.0.1; fi'
)


def test_slurm_saves_before_its_time_is_up_and_queues_again(place):
    for name, text in (("srun", SRUN), ("scancel", SCANCEL), ("scontrol", SCONTROL)):
        place.script(name, text)
    place.forks_ranks()
    env = {
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_JOB_ID": "42",
        "SLURM_NNODES": "2",
        "NPROC": "1",
        "PORT": free_port(),
    }
    env["GLOO_SOCKET_IFNAME"] = "lo"
    line = ["bash", LAUNCH / "slurm.sbatch", *FLAGS, "--max_steps", "400"]
    p = place.start(*line, **env)
    place.wait_for_step(15)
    p.send_signal(signal.SIGTERM)  # what --signal=B:TERM@300 does
    out, err = p.communicate(timeout=600)
    (last,) = [e["step"] for e in place.events("stopped")]
    assert (
        p.returncode == 0 and (place.folder / "requeued").read_text(encoding="utf-8") == "42\n"
    ), out + err
    assert not (place.folder / "killed").exists()
    assert (
        last < 400 and (place.folder / f"runs/run/checkpoints/step_{last:08}/state.json").exists()
    ), out + err
    (place.folder / "requeued").unlink()
    done = place.run(*line[:-1], str(last + 20), **env | {"PORT": free_port()})
    assert done.returncode == 0 and not (place.folder / "requeued").exists(), done.err
    check_whole(place, last + 20)


# the page of commands


def test_the_tables_of_flags_are_those_of_the_dataclasses():
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "commands.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def examples():
    "The lines that begin with one of our commands, in the pages that a reader copies from."
    for page in (
        ROOT / "book" / "commands.qmd",
        ROOT / "book" / "tough" / "ch22_reproduce_gpt2.md",
    ):
        for block in re.findall(
            r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S
        ):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("gpt2edu_"):
                    yield line.split("#")[0].strip()


@pytest.mark.parametrize("line", sorted(set(examples())))
def test_an_example_is_understood(line):
    name, *flags = shlex.split(line.split(" < ")[0])  # what the shell itself reads comes after it
    if name == "gpt2edu_train":
        assert isinstance(
            cli.read_train_flags(cli.take_flag(flags, "resume", "auto")[1], name)[0], TrainConfig
        )
        return
    classes = {
        "chat": "cli.chat.ChatConfig",
        "generate": "cli.commands.GenerateConfig",
        "export": "cli.commands.ExportConfig",
        "prepare": "data.prepare.PrepareConfig",
    }
    classes |= {"eval": "evaluate.report.EvalConfig", "plan": "plan.report.PlanConfig"}
    module, kind = classes[name.removeprefix("gpt2edu_")].rsplit(".", 1)
    kind = getattr(import_module(f"gpt2edu.{module}"), kind)
    if name == "gpt2edu_plan":
        config = cli.read_train_flags(flags, name, kind, cli.PlanFlags)[0]
    else:
        config = parse_both(kind, Report, flags, name)[0]
    assert isinstance(config, kind)
