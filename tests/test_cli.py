"""The commands, as a user runs them.

Real processes, one line for every mistake, quiet where nobody looks.
"""

import contextlib
import io
import json
import os
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
import warm

from gpt2edu.cli import commands as cli
from gpt2edu.cli import flags
from gpt2edu.cli.chat import ChatConfig
from gpt2edu.data import cache as prepare
from gpt2edu.data.prepare import PrepareConfig
from gpt2edu.evaluate.report import EvalConfig
from gpt2edu.model.gpt import GPT, GPTConfig
from gpt2edu.model.pretrained import export
from gpt2edu.plan.report import PlanConfig
from gpt2edu.text import corpus
from gpt2edu.text.tokenizer import Tokenizer, get_tokenizer
from gpt2edu.train import config as plan
from gpt2edu.train import runs

BIN = Path(sys.executable).parent
SIZES = "--n_layer 1 --n_head 2 --n_embd 32 --block_size 32 --total_batch 256".split()
SIZES += "--micro_batch 8 --vocab_size 300".split()
SIZES += "--val_tokens 2048 --eval_every 4 --save_every 4 --sample_every 6 --warmup_steps 2".split()
SIZES += "--device cpu --dtype fp32".split()
ENV = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def sh(name, *args, cwd, **kw):
    "Run a console script."
    head = [sys.executable, BIN / name] if isinstance(name, str) else name
    return warm.run([*head, *args], cwd=cwd, env=ENV, timeout=1200, **kw)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    "A folder with one trained run, `runs/first`."
    folder = tmp_path_factory.mktemp("work")
    p = sh(
        "gpt2edu_train", "--dataset", "pydocs", *SIZES, "--max_steps=12", "--name", "first",
        cwd=folder,
    )  # fmt: skip
    assert p.returncode == 0, p.stderr
    (folder / "train.out").write_text(p.stdout, encoding="utf-8")
    (folder / "train.err").write_text(p.stderr, encoding="utf-8")
    return folder


# what a user sees


def test_the_output_is_quiet_and_greppable(work):
    out = (work / "train.out").read_text(encoding="utf-8")
    err = (work / "train.err").read_text(encoding="utf-8")
    assert err == ""
    assert not re.search(r"[\r\x1b\x08]", out) and "%|" not in out
    assert re.findall(
        r"^step (\d+)/12 train [\d.]+ val [\d.]+ tokens/s [\d,]+ left \d+ (?:s|min)$", out, re.M
    ) == [
        "4",
        "8",
        "12",
    ]
    assert re.search(r"^run: runs/first$", out, re.M) and re.search(
        r"^data: writing shards to data/pydocs-", out, re.M
    )
    assert (
        re.search(r"^validation loss +\d+\.\d+ nats/token$", out, re.M) and "\nbigram model " in out
    )
    assert len(re.findall(r"^sample \d: ", out, re.M)) == 3 and "loss.png" in out
    assert re.search(r"^next: gpt2edu_generate ", out, re.M) and re.search(
        r"^next: gpt2edu_train --resume", out, re.M
    )
    last = json.loads(
        (work / "runs" / "first" / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    )
    assert last["event"] == "done" and last["floor"] is None and last["story_choice"] is None


def test_the_next_commands_work(work, monkeypatch, capsys):
    shutil.copytree(work / "runs", work / "next" / "runs")
    shutil.copytree(work / "data", work / "next" / "data")
    monkeypatch.chdir(work / "next")
    for line in re.findall(
        r"^next: gpt2edu_(.*)$", (work / "train.out").read_text(encoding="utf-8"), re.M
    ):
        name, *args = shlex.split(line)
        # this context is 32 tokens
        getattr(cli, name)([a.replace(" Mia and Tom were in the", "") for a in args])
        assert re.search("^--- 3 of 3|^step 24/24 ", capsys.readouterr().out, re.M), line


def test_stories_end_with_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare, "N_STORIES", 300)
    monkeypatch.chdir(tmp_path)
    cli.train([*SIZES, "--max_steps", "4", "--choice_items", "20"])
    out = capsys.readouterr().out
    for row in (
        "validation loss", "bigram model", "floor", "gap to the floor", "story choice",
        "tokens, seconds", "loss curve",
    ):  # fmt: skip
        assert re.search(rf"^{row} ", out, re.M), row
    assert "chance 0.250" in out and "of 20 items" in out and "runs/tiny/loss.png" in out
    cli.train([*SIZES, "--max_steps", "4", "--choice_items", "0"])
    out = capsys.readouterr().out
    assert "prepared before" in out and "run: runs/tiny-2" in out and "story choice" not in out


def test_two_files_for_one_epoch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(
            "\n\n".join(s.text * 4 for s in corpus.stories(10, seed=ord(name))), encoding="utf-8"
        )
    cli.train(["--dataset", "a.txt", "b.txt", *SIZES, "--num_epochs=1"])
    start, *_, done = map(
        json.loads,
        (tmp_path / "runs" / "tiny" / "log.jsonl").read_text(encoding="utf-8").splitlines(),
    )
    assert (
        start["max_steps"] == start["train_tokens"] // 256
        and done["tokens"] == 256 * start["max_steps"]
    )
    manifest = json.loads((tmp_path / start["data"] / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["source"]["dataset"] == ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    "flags,part",
    [
        ("--max_steps=7", "; 7 steps"),
        ("--max-steps 7", "; 7 steps"),
        ("--num_epochs=1", "; 1.0 epochs"),
        ("--num-epochs=0.5", "; 0.5 epochs"),
        ("--max_tokens 4096", "; 4096 tokens"),
        ("--preset gpt2-124m", "124,475,904 parameters"),
        ("--preset=gpt2-124m --max_steps 3", "; 3 steps"),
        ("--n-layer=1 --n_embd=64 --n_head 2 --micro_batch 16", "2 micro-batches"),
        ("", "preset tiny"),
    ],
)
def test_flags(flags, part, capsys):
    with contextlib.suppress(SystemExit):  # the plan is said first; data of GPT-2 are not here
        cli.train([*flags.split(), "--dry_run"])
    assert part in capsys.readouterr().out


def test_the_plan_counts_the_vocabulary_of_the_tokenizer(work, monkeypatch, capsys):
    monkeypatch.chdir(work)
    other = "--shards x --tokenizer runs/first/tokenizer.json --vocab_size 9999 --dry_run".split()
    with pytest.raises(SystemExit):  # the plan is said before the shards are missed
        cli.train([*SIZES, *other])
    said = re.search(r"([\d,]+) parameters", capsys.readouterr().out)[1]
    assert f"model: {said} parameters" in (work / "train.out").read_text(encoding="utf-8")


def test_help_names_every_flag(work):
    from dataclasses import fields

    p = sh("gpt2edu_train", "--help", cwd=work)
    assert p.returncode == 0 and p.stderr == ""
    for f in fields(cli.TrainConfig):
        assert re.search(rf"--{f.name}[ ,]", p.stdout), f.name
    assert re.search(r"--resume \[RUN\] .*resume this run", p.stdout)
    assert re.search(r"--config FILE ", p.stdout) and re.search(r"--version ", p.stdout)
    p = sh("gpt2edu_generate", "--help", cwd=work)
    assert p.returncode == 0 and all(
        re.search(rf"--{f.name}[ ,]", p.stdout) for f in fields(cli.GenerateConfig)
    )


def cold(*words, cwd):
    "A program from its start, where nothing is loaded yet."
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=ENV, capture_output=True, text=True, timeout=1200
    )


def test_no_torch_where_it_is_not_needed(work):
    p = cold("-c", "import gpt2edu, sys; assert 'torch' not in sys.modules", cwd=work)
    assert p.returncode == 0, p.stderr
    for script, *args in (
        ("gpt2edu_train", "--help"), ("gpt2edu_train", "--dry_run"),
        ("gpt2edu_generate", "--help"), ("gpt2edu_train", "--nope"),
    ):  # fmt: skip
        p = cold("-X", "importtime", BIN / script, *args, cwd=work)
        loaded = {
            line.split("|")[-1].strip().split(".")[0]
            for line in p.stderr.splitlines()
            if "import time" in line
        }
        heavy = {"torch", "matplotlib", "datasets", "transformers", "pyarrow"}
        assert "tyro" in loaded and not loaded & heavy, script


def test_python_m(work):
    module = [sys.executable, "-m", "gpt2edu.cli"]
    assert "preset tiny" in sh(module, "train", "--dry_run", cwd=work).stdout
    for args in ([], ["trane"]):
        p = sh(module, *args, cwd=work)
        assert (
            p.returncode == 2
            and p.stderr.count("\n") == 1
            and "train" in p.stderr
            and p.stdout == ""
        )


def test_resume_by_name_and_bare(work, monkeypatch, capsys):
    shutil.copytree(work / "runs" / "first", work / "resumed" / "a")
    monkeypatch.chdir(work)
    for args in ("--resume --out_dir resumed --max_steps 14", "--resume= --out_dir resumed",
                 "--max_steps=15 --out_dir=resumed --resume=a",
                 "--resume resumed/a"):  # fmt: skip
        cli.train(args.split())
        out = capsys.readouterr().out
        assert "run: resumed/a\n" in out
    assert re.search(r"^resume: .*step 15$", out, re.M)  # the horizon of the last resume holds


# generate


@pytest.fixture
def in_work(work, monkeypatch):
    monkeypatch.chdir(work)
    return work


def generate(*args):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        cli.generate([*map(str, args), "--run", "first"])
    return out.getvalue()


def test_the_same_seed_gives_the_same_text(in_work):
    a = generate("--prompt", "the", "--seed", 1, "--max_tokens", 20)
    p = sh(
        "gpt2edu_generate", "--prompt=the", "--seed=1", "--max-tokens=20", "--run", "runs/first",
        cwd=in_work,
    )  # fmt: skip
    assert (
        p.returncode == 0
        and p.stderr == ""
        and a == p.stdout
        and a.startswith("the")
        and a.endswith("\n")
    )
    assert (
        len({generate("--prompt", "the", "--seed", i, "--max_tokens", 20) for i in range(5)}) == 5
    )
    assert len({generate("--max_tokens", 20) for i in range(5)}) > 1
    assert len({generate("--temperature", 0, "--max_tokens", 20) for i in range(3)}) == 1


def test_weights_of_one_byte_write_too(in_work, capsys, monkeypatch):
    text = generate("--prompt", "the", "--seed", 1, "--max_tokens", 20, "--int8")
    assert text.startswith("the") and len(text) > 20
    found = {}
    for flag in ((), ("--int8",)):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            cli.eval_(
                ["--model", "first", "--tasks", "val", "--val_tokens", "2000", *flag, "--json"]
            )
        found[flag] = json.loads(out.getvalue())
    plain, small = found.values()
    assert small["parameters"] == plain["parameters"]
    assert 0 < abs(small["val_loss_nats_per_token"] / plain["val_loss_nats_per_token"] - 1) < 0.01
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    capsys.readouterr()
    generate("--max_tokens", 2, "--int8")
    line = "gpt2edu_generate: int8 has no fast kernel on cpu; the weights stay in fp32"
    assert line in capsys.readouterr().err


def test_num_seq_both_ways(in_work):
    a = generate("--seed", 1, "--num_seq", 3, "--max_tokens", 10)
    assert a == generate("--seed=1", "--num-seq=3", "--max-tokens=10")
    assert [f"--- {i} of 3" in a for i in (0, 1, 2, 3, 4)] == [False, True, True, True, False]
    texts = re.split(r"--- \d of 3\n", a)[1:]
    assert len(set(texts)) == 3 and texts[0] == generate("--seed", 1, "--max_tokens", 10)


def test_it_streams(in_work, monkeypatch):
    class Terminal(io.StringIO):
        seen = ()

        def flush(self):
            self.seen = (*self.seen, self.getvalue())

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    cli.generate(["--prompt", "the", "--max_tokens", "15", "--seed", "3", "--run", "first"])
    assert len(set(terminal.seen)) > 8 and terminal.seen[0] != terminal.seen[-1]


def test_it_stops(in_work):
    tokenizer = get_tokenizer(in_work / "runs" / "first")
    for seed in range(5):
        text = generate("--seed", seed, "--max_tokens", 5, "--top_k", 10, "--top_p", 0.9)
        assert len(tokenizer.encode(text.rstrip("\n"))) <= 5 + 3 * text.count(
            "\N{REPLACEMENT CHARACTER}"
        )
        assert "<|endoftext|>" not in generate("--seed", seed, "--temperature", 3)


def test_a_reader_that_leaves_is_no_error(in_work):
    cmd = f"{shlex.quote(str(BIN))}/gpt2edu_generate --num_seq 50 --seed 1 --run first | head -c 3"
    p = subprocess.run(cmd, shell=True, env=ENV, capture_output=True, text=True)
    assert p.stderr == "" and len(p.stdout) == 3


def test_training_goes_on_when_nobody_reads(work):
    flags = shlex.join(["--dataset", "pydocs", *SIZES, "--max_steps", "8", "--name", "unread"])
    p = subprocess.run(
        f"{shlex.quote(str(BIN))}/gpt2edu_train {flags} | head -n 1",
        shell=True,
        cwd=work,
        env=ENV,
        capture_output=True,
    )
    assert p.stdout.count(b"\n") == 1 and p.stderr == b""
    assert (
        json.loads(
            (work / "runs" / "unread" / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        )["event"]
        == "done"
    )


def test_a_full_disk_for_the_output(work):
    "A training goes on and says so; a command whose output is all there is fails."
    with open("/dev/full", "w", encoding="utf-8") as full:
        cmd = [BIN / "gpt2edu_train", "--dataset", "pydocs", *SIZES]
        cmd += ["--max_steps", "4", "--name", "full"]
        p = subprocess.run(cmd, cwd=work, env=ENV, stdout=full, stderr=subprocess.PIPE, text=True)
        assert (
            p.returncode == 0 and p.stderr.count("\n") == 1 and "training continues" in p.stderr
        ), p.stderr
        cmd = [BIN / "gpt2edu_plan"]
        p = subprocess.run(cmd, cwd=work, env=ENV, stdout=full, stderr=subprocess.PIPE, text=True)
        assert p.returncode == 2 and p.stderr.count("\n") == 1, p.stderr
    assert (
        json.loads(
            (work / "runs" / "full" / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        )["event"]
        == "done"
    )


def test_an_output_that_cannot_show_a_character(work):
    cmd = [BIN / "gpt2edu_generate", "--run", "first", "--prompt", "über", "--max_tokens", "3"]
    p = subprocess.run(
        cmd, cwd=work, env=ENV | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True
    )
    assert p.returncode == 0 and p.stdout.startswith("?ber"), p.stderr


def test_one_run_has_one_writer(in_work, capsys):
    with prepare.one_writer(Path("runs/busy")), pytest.raises(SystemExit) as e:
        cli.train(["--dataset", "pydocs", *SIZES, "--max_steps", "2", "--name", "busy"])
    assert (
        e.value.code == 2
        and "runs/busy: another process is writing there" in capsys.readouterr().err
    )


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_the_lock_is_on_the_folder_whatever_it_is_called(in_work, tmp_path, capsys, monkeypatch):
    "Two trainings of one run destroy each other; `.` and a link had a lock of their own."
    shutil.copytree(in_work / "runs" / "first", tmp_path / "runs" / "it")
    (tmp_path / "link").symlink_to("runs/it")
    (tmp_path / "linked").symlink_to("runs")
    names = ["runs/it", "link", "linked/it", "runs/../link", tmp_path / "runs" / "it", "../it", "."]
    for held in names[:3]:
        for name in names:
            monkeypatch.chdir(tmp_path)
            with prepare.one_writer(Path(held)), pytest.raises(SystemExit) as e:
                monkeypatch.chdir(tmp_path / "runs/it" if str(name).startswith(".") else tmp_path)
                cli.train(["--resume", str(name), "--max_steps", "14"])
            err = capsys.readouterr().err
            assert e.value.code == 2 and err.count("\n") == 1, (held, name, err)
            assert "another process is writing there" in err
    monkeypatch.chdir(tmp_path / "runs/it")
    cli.train(["--resume", ".", "--max_steps", "13", "--data_dir", str(in_work / "data")])
    assert "step_00000012, step 12" in capsys.readouterr().out
    assert not [p for p in tmp_path.rglob(".*.lock")]


def test_a_text_edited_since_the_run_began(tmp_path, monkeypatch, capsys):
    "Case 14, and the same with a folder of texts."
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    for i in range(3):
        text = "\n\n".join(s.text for s in corpus.stories(120, start=200 * i))
        Path(f"texts/{i}.txt").write_text(text, encoding="utf-8")
    shutil.copy("texts/0.txt", "t.txt")
    for data, file, what in (("t.txt", "t.txt", "file"), ("texts", "texts/1.txt", "files")):
        sizes = [*SIZES, "--choice_items", "0", "--val_tokens", "512"]
        cli.train(["--dataset", data, *sizes, "--max_steps", "1", "--name", what])
        before = Path(file).read_text(encoding="utf-8")
        prepared = sorted(Path("data").iterdir())
        Path(file).write_text(before + "one more line\n", encoding="utf-8")
        capsys.readouterr()
        with pytest.raises(SystemExit) as e:
            cli.train(["--resume", what, "--max_steps", "2"])
        err = capsys.readouterr().err
        assert e.value.code == 2 and err.count("\n") == 1, err
        assert f"{data}: the {what} changed since the run began" in err
        with pytest.raises(SystemExit):  # nor is the model judged by another text
            cli.eval_(["--model", what, "--tasks", "val", "--device", "cpu"])
        assert f"{data}: the {what} changed since the run began" in capsys.readouterr().err
        assert sorted(Path("data").iterdir()) == prepared
        Path(file).write_text(before, encoding="utf-8")
        cli.train(["--resume", what, "--max_steps", "2"])
        assert "step_00000001, step 1" in capsys.readouterr().out
        cli.eval_(["--model", what, "--tasks", "val", "--device", "cpu"])
        assert "validation loss" in capsys.readouterr().out


def test_the_last_of_two_presets_counts(capsys):
    cli.train(["--preset", "tiny", "--preset", "small-cpu", "--dry_run"])
    assert "preset small-cpu, 3,487,232 parameters" in capsys.readouterr().out


def test_what_is_left_of_a_run_keeps_its_name(tmp_path):
    (tmp_path / "tiny" / "checkpoints").mkdir(parents=True)
    assert runs.new_run(plan.preset("tiny", out_dir=str(tmp_path))) == tmp_path / "tiny-2"


def test_a_terminal_sees_a_bar_and_ctrl_c_ends_in_order(work):
    fcntl, pty, termios = map(pytest.importorskip, ("fcntl", "pty", "termios"))  # not on Windows
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 150, 0, 0))
    cmd = [BIN / "gpt2edu_train", "--dataset", "pydocs", *SIZES]
    cmd += ["--max_steps", "100000", "--name", "pty"]
    p = subprocess.Popen(
        cmd, cwd=work, env=ENV, stdin=side, stdout=side, stderr=side, start_new_session=True
    )
    os.close(side)
    seen, end, sent = b"", time.time() + 600, False
    while time.time() < end:
        if not sent and re.search(
            rb"[1-9]\d*/100000 \[[\d:]+<[\d:]+.*loss \d\.\d+, [\d,]+ tokens/s", seen
        ):
            p.send_signal(signal.SIGINT)
            sent = True
        if select.select([main], [], [], 0.2)[0]:
            try:
                seen += os.read(main, 65536)
            except OSError:
                break
        elif p.poll() is not None:
            break
    os.close(main)
    assert sent, seen[-1000:]
    assert p.wait(30) == 0 and b"SIGINT: saved step" in seen and b"Traceback" not in seen


# versions, files of flags, answers in JSON

COMMANDS = ("prepare", "plan", "train", "eval", "generate", "export", "chat")


def test_version_is_one_line(work, capsys):
    import platform
    from importlib import metadata

    import gpt2edu

    versions = f"Python {platform.python_version()}, torch {metadata.version('torch')}"
    want = f"gpt2edu {gpt2edu.__version__}, {versions}\n"
    for module in (
        [BIN / "gpt2edu_train"],
        [sys.executable, "-m", "gpt2edu"],
        [sys.executable, "-m", "gpt2edu.cli"],
    ):
        p = sh(module, "--version", cwd=work)
        assert (p.returncode, p.stdout, p.stderr) == (0, want, "")
    for name in COMMANDS:
        with pytest.raises(SystemExit) as e:
            cli.main([name, "--num_seq", "3", "--version"])
        assert e.value.code == 0 and capsys.readouterr().out == want


def test_the_package_is_a_program(work):
    module = [sys.executable, "-m", "gpt2edu"]
    bare, asked = sh(module, cwd=work), sh(module, "--help", cwd=work)
    assert (
        bare.returncode == asked.returncode == 0
        and bare.stdout == asked.stdout
        and bare.stderr == ""
    )
    assert (
        re.findall(r"^  (\w+)", bare.stdout, re.M) == list(COMMANDS)
        and len(bare.stdout.splitlines()) == 8
    )
    one, other = (
        sh([sys.executable, "-m", m], "train", "--dry_run", cwd=work)
        for m in ("gpt2edu", "gpt2edu.cli")
    )
    assert one.returncode == 0 and one.stdout == other.stdout and "preset tiny" in one.stdout
    p = sh(module, "trane", cwd=work)
    assert (
        p.returncode == 2
        and p.stderr.count("\n") == 1
        and "'trane'; expected one of prepare, plan" in p.stderr
    )


def read(*args):
    return cli.read_train_flags(list(map(str, args)))[0]


@pytest.mark.parametrize("name", plan.PRESETS)
def test_the_config_of_a_run_is_a_file_of_flags(name, tmp_path):
    "As the trainer writes it: every field, `null` among them."
    # its start is a run that is to be trained first
    start = {"init_from": "tiny"} if name == "tiny-grpo" else {}
    config = plan.preset(name, **start, dataset=("a.txt", "b.txt"), lr=2e-3, seed=7)
    (file := tmp_path / "config.json").write_text(
        json.dumps(asdict(config), indent=1), encoding="utf-8"
    )
    assert read("--config", file) == config
    assert read("--config", file, "--lr=1e-2", "--max_tokens", "1e6") == plan.preset(
        name, **start, dataset=("a.txt", "b.txt"), lr=1e-2, seed=7, max_tokens=1_000_000
    )


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path):
    (file := tmp_path / "a.toml").write_text(
        '\ufeffpreset = "small-cpu"\nn-embd = 128\nout_dir = "there"\nlr = 1\nmin_lr = 0\n'
        'dry-run = true\ntracker = "None"\ndataset = ["x.txt"]\nmax_tokens = 2e6\n'
        'name = "from-file"\n',
        encoding="utf-8",
    )
    config = read("--config", file)
    assert (config.preset, config.n_layer, config.n_embd, config.lr) == ("small-cpu", 4, 128, 1.0)
    assert config.max_steps is None and config.max_tokens == 2_000_000
    assert config.dry_run is True and config.tracker is None
    config = read(
        "--n_embd", 64, "--config", file, "--no_dry_run", "--dataset", "y.txt", "z.txt",
        "--name", "mine",
    )  # fmt: skip
    assert config.n_embd == 64 and config.dry_run is False
    assert config.dataset == ("y.txt", "z.txt") and config.name == "mine"
    assert read("--config", file, "--preset", "tiny", "--n_head", 4).n_layer == 2
    assert read("--config", file, "--num-epochs=2").max_tokens is None
    assert read("--config", file, "--out-dir", "here").out_dir == "here"
    assert type(read("--config", file, "--lr=2").lr) is type(config.lr) is float


# flags that take text but no place, and those whose ~ is read with the place itself
WORDS = "freeze lora_parts text_key separator name subset split part prompt tasks system"
READ_LATER = ("dataset", "shards", "tokenizer")
CONFIGS = (
    plan.TrainConfig, PlanConfig, PrepareConfig, cli.GenerateConfig, cli.ExportConfig, EvalConfig,
    ChatConfig, flags.General, cli.TrainFlags,
)  # fmt: skip


def texts(kind):
    "The fields of a dataclass that may hold any text."
    hints = get_type_hints(kind)
    return [k for k, hint in hints.items() if {str, tuple[str, ...]} & {hint, *get_args(hint)}]


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_a_tilde_is_the_home_directory_in_every_place(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    names = set(texts(kind)) - {"push_to_hub", *WORDS.split(), *READ_LATER}
    assert names <= flags.PLACES
    if kind in (flags.General, cli.TrainFlags):  # --config and --resume, which come first
        return
    horizon = kind(max_steps=1) if issubclass(kind, plan.TrainConfig) else None
    for name in names:
        more = ["--questions", "x.jsonl"] if name == "reward" else []
        Path("home.toml").write_text(f'{name} = "~/x y"\n', encoding="utf-8")
        for args in ([f"--{name}=~/x y"], [f"--{name}", "~/x y"], ["--config=~/home.toml"]):
            config, _ = flags.parse_both(kind, flags.General, [*more, *args], "x", horizon)
            assert getattr(config, name) == str(tmp_path / "x y"), (name, args)


def test_a_tilde_is_read_before_a_run_is_looked_for(work, monkeypatch):
    monkeypatch.setenv("HOME", str(work))
    monkeypatch.setenv("USERPROFILE", str(work))
    found = cli.read_train_flags(["--resume=~/runs/first"])
    assert found[1] == work / "runs" / "first"
    assert cli.read_train_flags(["--resume=first", "--out_dir=~/runs"])[1] == found[1]
    config = read("--init_from=~/runs/first", "--out_dir=~/other")
    assert (config.init_from, config.out_dir) == (str(found[1]), str(work / "other"))
    assert config.n_embd == 32


def test_a_run_on_questions_can_be_told_to_read_a_text():
    config = read("--preset", "tiny-sft", "--dataset", "x.txt", "--questions", "None")
    assert config.questions is None and config.dataset == ("x.txt",)


def test_values_that_only_go_together(tmp_path):
    "A check of several values sees the file and the flags together."
    (file := tmp_path / "a.json").write_text('{"n_head": 7, "max_steps": 5}', encoding="utf-8")
    assert read("--config", file, "--n_embd", 196).n_embd == 196
    with pytest.raises(ValueError, match="n_head=7 must divide n_embd=96"):
        read("--config", file)


def test_every_command_reads_a_file(in_work, capsys):
    Path("gen.toml").write_text(
        'prompt = "the"\nmax-tokens = 10\nseed = 1\nrun = "first"\n', encoding="utf-8"
    )
    cli.generate(["--config", "gen.toml", "--num_seq", "2"])
    out = capsys.readouterr().out
    cli.generate("--prompt the --max_tokens 10 --seed 1 --run first --num_seq 2".split())
    assert out == capsys.readouterr().out and out.startswith("--- 1 of 2\nthe")
    Path("prep.json").write_text(
        '{"dataset": ["pydocs"], "max_tokens": 1e6, "dry_run": true}', encoding="utf-8"
    )
    cli.prepare(["--config", "prep.json"])
    assert "prepare: would write data/pydocs-" in capsys.readouterr().out
    Path("export.toml").write_text('run = "first"\nout = "exports/mine"', encoding="utf-8")
    cli.export(["--config", "export.toml"])
    assert Path("exports/mine/model.safetensors").is_file()


def test_resume_with_a_file(in_work, capsys):
    shutil.copytree("runs/first", "runs/again")
    Path("same.toml").write_text("n_layer = 1\nmax_steps = 14\nlr = 0.005\n", encoding="utf-8")
    cli.train("--resume again --config same.toml".split())
    assert re.search(r"^step 14/14 ", capsys.readouterr().out, re.M)
    for args in (
        "--resume again --config runs/again/config.json",
        "--config=runs/first/config.json --resume=again",
    ):
        assert cli.read_train_flags([*args.split(), "--name", "again"])[1] == Path("runs/again")
    Path("other.toml").write_text("n_layer = 2\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"begun with n_layer=1, not 2; take n_layer out of the file"
    ):
        cli.read_train_flags("--resume again --config other.toml".split())


def one_object(text):
    "Parse a whole standard output, by the letter of the standard."

    def no_such_number(word):
        raise AssertionError(f"{word} is not JSON")

    found = json.loads(text, parse_constant=no_such_number)
    assert isinstance(found, dict)
    return found


def test_json_is_all_there_is_on_standard_output(work):
    p = sh("gpt2edu_plan", "--preset", "gpt2-124m", "--gpus", "8", "--json", cwd=work)
    found = one_object(p.stdout)
    assert (
        (p.returncode, p.stderr) == (0, "")
        and found["parameters"] == 124_475_904
        and found["fits"] is True
    )
    assert found["weights_bytes"] == 4 * found["parameters"] and found["speed_from"] == "data sheet"
    rough = one_object(sh("gpt2edu_plan", "--json", *SIZES, cwd=work).stdout)
    assert rough["seconds"] > 0 and rough["cost_dollars"] is None and rough["device"] == "cpu"

    args = "--run first --tasks val,stories --choice_items 8 --device cpu --json".split()
    p = sh("gpt2edu_eval", *args, cwd=work)
    assert p.returncode == 0 and "validation loss" in p.stderr
    found = one_object(p.stdout)
    assert 1 < found["val_loss_nats_per_token"] < 7 and found["stories"]["acc"]["items"] == 8

    flags = (
        "--dataset", "pydocs", "--tokenizer", "runs/first/tokenizer.json", "--num_proc", "1",
        "--out", "shards",
    )  # fmt: skip
    dry = one_object(sh("gpt2edu_prepare", *flags, "--json", "--dry_run", cwd=work).stdout)
    assert not dry["finished"] and dry["expected_tokens"] > 1000 and dry["train_tokens"] is None
    p = sh("gpt2edu_prepare", *flags, "--json", cwd=work)
    found = one_object(p.stdout)
    manifest = json.loads((work / "shards" / "manifest.json").read_text(encoding="utf-8"))
    assert p.returncode == 0 and p.stderr.startswith("prepare: ") and found["finished"]
    assert (
        found["train_tokens"] == manifest["totals"]["train"]["tokens"]
        and found["tokenizer_ids"] == 300
    )
    assert one_object(sh("gpt2edu_prepare", *flags, "--json", cwd=work).stdout) == found | {
        "expected_tokens": None
    }


def test_the_keys_are_documented(in_work, capsys):
    page = (Path(__file__).parent.parent / "book" / "commands.qmd").read_text(encoding="utf-8")
    page = page[page.index("{#json}") : page.index("{#completion}")]
    documented = set(re.findall(r"`(\w+)`", page)) | {
        f"val_{k}" for k in ("tokens", "documents", "text_bytes")
    }
    for line in (
        "plan --json",
        "prepare --json --dry_run --dataset pydocs",
        "eval --json --run first --tasks val,stories --choice_items 4 --device cpu",
    ):
        name, *args = line.split()
        cli.main([name, *args])
        assert one_object(capsys.readouterr().out).keys() <= documented


@pytest.mark.parametrize(
    "line", ["plan --gpu b200", "eval --run nowhere", "prepare --dataset nothere.txt"]
)
def test_a_mistake_leaves_no_json(line, in_work, capsys):
    name, *args = line.split()
    with pytest.raises(SystemExit) as e:
        cli.main([name, *args, "--json"])
    out, err = capsys.readouterr()
    assert (
        e.value.code == 2
        and out == ""
        and err.count("\n") == 1
        and err.startswith(f"gpt2edu_{name}: ")
    )


def test_nan_is_null():
    found = flags.strict(
        {"a": float("nan"), "b": [1.5, (float("inf"), {"c": -float("inf")})], "d": True}
    )
    assert found == {"a": None, "b": [1.5, [None, {"c": None}]], "d": True}


def test_a_plan_is_quick_and_measures_only_when_asked(work, monkeypatch):
    "What makes it slow is PyTorch; a machine's speed is none of a test's business."
    for args in (["--preset", "gpt2-124m"], ["--preset", "gpt2-1558m", "--gpu", "h100"], []):
        p = cold("-X", "importtime", BIN / "gpt2edu_plan", *args, cwd=work)
        loaded = {
            line.split("|")[-1].strip().split(".")[0]
            for line in p.stderr.splitlines()
            if "import time" in line
        }
        assert (
            p.returncode == 0
            and "tyro" in loaded
            and not loaded & {"torch", "numpy", "pyarrow", "datasets"}
        ), args
    assert re.search(r"^  time +.*rough: .*--measure", p.stdout, re.M)


def test_a_driver_without_a_gpu(work, monkeypatch):
    "The driver's tool is here, PyTorch finds nothing: the plan is that of a machine without a GPU."
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    (tool := work / "nvidia-smi").write_text("#!/bin/sh\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setitem(ENV, "PATH", f"{work}{os.pathsep}{ENV['PATH']}")
    for args, word in ((["--preset", "gpt2-124m"], "A100"), ([], "this processor")):
        p = sh("gpt2edu_plan", *args, cwd=work)
        assert p.returncode == 0 and word in p.stdout.splitlines()[0]


# the terminal


def on_a_terminal(cmd, cwd, **env):
    "Run a command whose three streams are a terminal; all that it writes."
    fcntl, pty, termios = map(pytest.importorskip, ("fcntl", "pty", "termios"))  # not on Windows
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    everything = (
        {k: v for k, v in ENV.items() if k != "NO_COLOR"} | {"TERM": "xterm-256color"} | env
    )
    p = subprocess.Popen(cmd, cwd=cwd, env=everything, stdin=side, stdout=side, stderr=side)
    os.close(side)
    seen = b""
    with contextlib.suppress(OSError):  # EIO: the other side is closed
        while piece := os.read(main, 65536):
            seen += piece
    os.close(main)
    return p.wait(60), seen


def test_colour_is_for_terminals_that_want_it(work):
    train = BIN / "gpt2edu_train"
    code, seen = on_a_terminal([train, "--help"], work)
    assert code == 0 and b"\x1b[" in seen  # so that the rest of this test can fail
    # empty does not count, no-color.org says
    assert b"\x1b" in on_a_terminal([train, "--help"], work, NO_COLOR="")[1]
    for args in (
        ["--help"],
        ["--version"],
        ["--dry_run"],
        ["--devise", "cpu"],
        ["--device", "tpu"],
        ["--lr", "x"],
    ):
        code, seen = on_a_terminal([train, *args], work, NO_COLOR="1")
        assert seen and b"\x1b" not in seen, (args, seen)
    assert b"\x1b" not in on_a_terminal([BIN / "gpt2edu_plan"], work)[1]
    assert "\x1b" not in sh(train.name, "--help", cwd=work).stdout


def test_a_mistake_is_one_plain_line_on_a_terminal_too(work):
    "tyro draws its frame in red there, and so the message was not found in it."
    for args, part in (
        (["--devise", "cpu"], b"did you mean --device?"),
        (["--lr", "x"], b"--lr"),
        (["--device", "tpu"], b"device='tpu' is not known; use auto, cpu, cuda or mps;"),
    ):
        code, seen = on_a_terminal([BIN / "gpt2edu_train", *args], work)
        assert code == 2 and seen.count(b"\n") == 1 and part in seen and b"\x1b" not in seen, seen


ESC = "\x1b]0;title\x07\x1b[31m"  # what a terminal would obey


@pytest.fixture(scope="module")
def escapes(tmp_path_factory):
    "A model that writes nothing but escape sequences, in a folder whose name holds one too."
    place = tmp_path_factory.mktemp("escapes")
    tokenizer = Tokenizer.train([f"{ESC} words "] * 50, 300, "ours")
    (token,) = (i for i in range(tokenizer.n_vocab) if tokenizer.decode([i]) == "\x1b")
    model = GPT(GPTConfig(1, 1, 8, 32, tokenizer.n_vocab))
    with torch.no_grad():  # a last layer that asks for one token, whatever came before
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.zero_()[0] = 1
        model.transformer.wte.weight[:, 0] = 0
        model.transformer.wte.weight[token, 0] = 100
    export(model, tokenizer, place / f"m{ESC}")
    (place / f"t{ESC}.txt").write_text("some words\n\n" * 400, encoding="utf-8")
    return place


@pytest.mark.skipif(os.name != "posix", reason="such names are not allowed on Windows")
def test_a_terminal_sees_no_control_character(escapes):
    args = ["--run", f"m{ESC}", "--prompt", f"a{ESC}b", "--max_tokens", "9", "--temperature", "0"]
    code, seen = on_a_terminal([BIN / "gpt2edu_generate", *args], escapes)
    text = seen.decode()
    assert code == 0 and text.count("\ufffd") >= 9 and text.startswith("a\ufffd]0;title\ufffd")
    assert not re.search("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f]", text), seen
    p = sh("gpt2edu_generate", *args, cwd=escapes)  # to a pipe unchanged
    assert p.returncode == 0 and p.stdout == f"a{ESC}b{9 * chr(27)}\n"
    for command, *args in (
        ["gpt2edu_generate", "--run", f"nowhere{ESC}"],
        ["gpt2edu_eval", "--model", f"nowhere{ESC}"],
        ["gpt2edu_train", "--dataset", f"nowhere{ESC}.txt"],
        ["gpt2edu_train", "--dataset", f"t{ESC}.txt", "--dry_run"],
        ["gpt2edu_train", "--preset", ESC],
        ["gpt2edu_plan", "--name", f"a/{ESC}"],
        ["gpt2edu_prepare", "--dataset", f"t{ESC}.txt", "--dry_run"],
        ["gpt2edu_export", "--run", f"{ESC}"],
    ):
        code, seen = on_a_terminal([BIN / command, *args], escapes, NO_COLOR="1")
        left = re.sub(rb"\x1b\[A|[\r\n]", b"", seen)  # of a progress bar
        assert seen and not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", left), (command, args, seen)
        assert re.search(r"\ufffd|\\x1b", seen.decode()), (command, args, seen)


@pytest.mark.skipif(os.name != "posix", reason="such names are not allowed on Windows")
@pytest.mark.filterwarnings("error:Glyph")  # matplotlib's warning quotes the character
def test_names_in_lines_and_in_json(escapes, monkeypatch, capsys):
    monkeypatch.chdir(escapes)
    args = ["--model", f"m{ESC}", "--tasks", "stories", "--choice_items", "4", "--device", "cpu"]
    cli.eval_(args)
    said = capsys.readouterr()
    line = next(line for line in said.out.splitlines() if line.startswith("model: "))
    assert line.startswith("model: m\ufffd]0;title\ufffd\ufffd[31m, ") and "\x1b" not in said.err
    cli.eval_([*args, "--json"])
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err and "\\u001b" in said.out
    assert json.loads(said.out)["model"] == f"m{ESC}"
    flags = [*SIZES, "--dataset", f"t{ESC}.txt", "--max_steps", "2", "--name", f"r{ESC}"]
    cli.train(flags)
    said = capsys.readouterr()
    assert "run: runs/r\ufffd" in said.out and "\x1b" not in said.out + said.err
    cli.plan([*flags, "--json"])
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err and json.loads(said.out)
    cli.prepare(["--dataset", f"t{ESC}.txt", "--tokenizer", "train", "--out", f"o{ESC}"])
    said = capsys.readouterr()
    assert "o\ufffd" in said.out and "\x1b" not in said.out + said.err


COMPLETE = """
source "$1"; shift
complete -p "$1" > /dev/null || exit 1
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"_tyro_$1"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not here")
def test_bash_completes(work):
    "A real bash loads the script and calls the function that it would call at the Tab key."
    from gpt2edu import choices
    from gpt2edu.plan.report import GPUS

    def complete(name, *words):
        script = work / f"{name}.bash"
        if not script.exists():
            p = sh(name, "--tyro-write-completion", "bash", script, cwd=work)
            assert (p.returncode, p.stdout, p.stderr) == (0, "", "")
        env = ENV | {"PATH": f"{BIN}{os.pathsep}{ENV['PATH']}"}
        cmd = ["bash", "-c", COMPLETE, "bash", script, name, *words]
        p = subprocess.run(cmd, cwd=work, env=env, capture_output=True, text=True, timeout=300)
        assert p.returncode == 0 and p.stderr == "", p.stderr
        return sorted(p.stdout.split())

    for flag, kind in (
        ("device", choices.Device),
        ("dtype", choices.Dtype),
        ("compile", choices.Compile),
        ("optimizer", choices.Optimizer),
        ("tracker", choices.Tracker | None),
    ):
        found = complete("gpt2edu_train", f"--{flag}", "")
        assert set(found) - {"None"} == set(choices.options(kind)), flag
    assert complete("gpt2edu_train", "--preset", "") == sorted(plan.PRESETS)
    assert complete("gpt2edu_train", "--seed", "3", "--preset", "gpt2-3") == ["gpt2-350m"]
    assert complete("gpt2edu_train", "--res") == ["--resume"] and complete(
        "gpt2edu_plan", "--js"
    ) == ["--json"]
    assert complete("gpt2edu_plan", "--gpu", "") == sorted(["auto", "this", *GPUS])
    (work / "kept.toml").touch()
    assert complete("gpt2edu_train", "--config", "kept") == ["kept.toml"]
    assert complete("gpt2edu_eval", "--convention", "h") == ["harness"]


def test_help_and_check_know_the_same_words(capsys):
    for flag, words in (("preset", plan.PRESETS), ("device", ("auto", "cpu", "cuda", "mps"))):
        with pytest.raises(SystemExit):
            cli.main(["train", "--help"])
        shown = re.sub(r"[\s│]+", "", capsys.readouterr().out)  # a long list is wrapped
        assert f"--{flag}{{{','.join(words)}}}" in shown
        with pytest.raises(ValueError) as e:
            cli.read_train_flags([f"--{flag}", "x"])
        assert all(word in str(e.value) for word in words)


# bad input: one line and exit code 2

FILES = {
    "empty.txt": b"",
    "bad.jsonl": b'{"text": "one"}\n{"text": "tw\n',
    "nokey.jsonl": b'{"text": "one"}\n{"body": "two"}\n',
    "latin.txt": b"caf\xe9 " * 1000,
    "short.txt": b"Mia had a ball.\n",
    "blank.txt": b"\n\n   \n",
    "x.pdf": b"%PDF",
    "broken.parquet": b"PAR1 and then nothing",
    "key.toml": b"n_layers = 3",
    "type.toml": b"n_layer = true",
    "part.json": b'{"max_steps": 1.5}',
    "nan.toml": b"lr = nan",
    "nan.json": b'{"lr": NaN}',
    "huge.json": b'{"max_tokens": 1e400}',
    "long.json": b'{"seed": ' + b"9" * 5000 + b"}",
    "list.toml": b'dataset = "stories"',
    "items.toml": b'dataset = ["stories", 3]',
    "word.toml": b'device = "tpu"',
    "table.toml": b"[model]\nn_layer = 3",
    "twice.toml": b"n_layer = 3\nn-layer = 4",
    "twice.json": b'{"seed": 3, "seed": 4}',
    "broken.toml": b"n_layer = ",
    "broken.json": b'{"n_layer": 3',
    "deep.json": b"[" * 100_000,
    "array.json": b"[1, 2]",
    "latin.toml": b'name = "caf\xe9"',
    "resume.toml": b'resume = "first"',
    "none.toml": b"",
}
BAD = {
    "unknown preset": ("train --preset huge", "'huge'", "gpt2-124m"),
    "unknown flag": ("train --n_layers 3", "--n_layers"),
    "unknown flag with a value": ("train --max_step=3", "--max_step"),
    "stray word": ("train stories", "stories"),
    "FineWeb-Edu": (
        "train --preset gpt2-124m --micro_batch 4",
        "fineweb-edu is not prepared",
        "--shards",
    ),
    "not a number": ("train --max_steps many", "max_steps", "'many'"),
    "zero": ("train --n_layer 0", "n_layer=0"),
    "negative": ("train --lr -1", "lr=-1"),
    "nan": ("train --lr nan", "lr=nan"),
    "n_head": ("train --n_head 7", "n_head=7 must divide n_embd=", "try"),
    "micro-batch": ("train --total_batch 1000", "total_batch=1000", "micro_batch=", "try --"),
    "two horizons": ("train --max_steps 5 --num_epochs 1", "max_steps=5 and num_epochs=1.0"),
    "no dataset": ("train --dataset", "dataset"),
    "missing file": ("train --dataset nothere.txt", "'nothere.txt'"),
    "empty file": ("train --dataset empty.txt", "empty.txt", "empty"),
    "blank file": ("train --dataset blank.txt", "blank", "text"),
    "short file": ("train --dataset short.txt", "short", "give more text"),
    "not JSON": ("train --dataset bad.jsonl", "bad.jsonl, line 2", "not JSON"),
    "missing text key": (
        "train --dataset nokey.jsonl",
        "nokey.jsonl, line 2",
        "'text'",
        "body",
        "--text_key",
    ),
    "not UTF-8": ("train --dataset latin.txt", "latin.txt", "UTF-8"),
    "not text": ("train --dataset x.pdf", "x.pdf", ".txt, .jsonl, .parquet"),
    "broken parquet": ("train --dataset broken.parquet", "broken.parquet"),
    "tokenizer": ("train --tokenizer nothere.json", "nothere.json"),
    "vocabulary": ("train --dataset pydocs --vocab_size 100", "vocab_size=100"),
    "device": ("train --device tpu", "'tpu'", "cuda"),
    "dtype": ("train --dtype fp8", "'fp8'", "bf16"),
    "wrong magic": (
        "train --shards magic --tokenizer runs/first/tokenizer.json",
        "magic/",
        "wrong magic",
    ),
    "shard cut short": (
        "train --shards cut --tokenizer runs/first/tokenizer.json",
        "cut/",
        "cut short",
    ),
    "shard altered": (
        "train --shards altered --tokenizer runs/first/tokenizer.json",
        "altered/",
        "SHA-256",
    ),
    "shard missing": (
        "train --shards gone --tokenizer runs/first/tokenizer.json",
        "gone/",
        "no such shard",
    ),
    "manifest altered": (
        "train --shards manifest --tokenizer runs/first/tokenizer.json",
        "manifest/manifest.json",
    ),
    "another tokenizer": ("train --shards DATA --tokenizer gpt2", "another tokenizer"),
    "no shards": ("train --shards nowhere --tokenizer gpt2", "nowhere", "no such folder"),
    "checkpoint cut short": ("train --resume ckcut", "model.safetensors", "cut short"),
    "checkpoint altered": ("train --resume ckaltered", "model.safetensors", "altered"),
    "optimizer altered": ("train --resume ckoptim", "optim.safetensors", "altered"),
    "state altered": ("train --resume ckstate", "state.json", "altered"),
    "config altered": ("train --resume ckconfig", "ckconfig/config.json"),
    "checkpoint of another config": ("train --resume first --n_layer 2", "n_layer=1", "not 2"),
    "checkpoint of another width": ("train --resume first --n_embd 64", "n_embd=32", "not 64"),
    "resume on another dataset": (
        "train --resume first --dataset gone.txt",
        "runs/first",
        "--dataset",
    ),
    "resume under another name": ("train --resume first --name other", "runs/first", "--name"),
    "half a step": ("train --max_steps 1.5", "max_steps: expected a whole number, got '1.5'"),
    "unknown tracker": ("train --tracker mlflow", "tracker='mlflow'", "trackio"),
    "empty dataset": ("train --dataset=", "dataset names nothing"),
    "a number without end": ("train --max_steps 1e400", "max_steps", "whole number"),
    "too many processes": ("prepare --num_proc 1e9", "num_proc=1000000000", "1024"),
    "a folder of something else": (
        "prepare --dataset pydocs --out runs/first",
        "runs/first",
        "holds other things",
    ),
    "no such run": ("train --resume nothere", "nothere"),
    "config: unknown key": (
        "train --config key.toml",
        "key.toml: unknown key 'n_layers'; did you mean n_layer?",
    ),
    "config: a bool": (
        "train --config type.toml",
        "type.toml: n_layer = true, expected a whole number; for example",
    ),
    "config: half a step": (
        "train --config part.json",
        "part.json: max_steps = 1.5, expected a whole number",
    ),
    "config: nan": ("train --config nan.toml", "nan.toml: lr = NaN, expected a number"),
    "config: NaN": ("train --config nan.json", "nan.json: not JSON (NaN is not a number of JSON)"),
    "config: 1e400": (
        "train --config huge.json",
        "huge.json: not JSON (the number 1e400 is too large)",
    ),
    "config: 5000 digits": ("train --config long.json", "long.json: not JSON"),
    "config: no list": (
        "train --config list.toml",
        'dataset = "stories", expected a list of text',
        '["stories"]',
    ),
    "config: wrong item": (
        "train --config items.toml",
        'dataset = ["stories", 3], expected a list of text',
    ),
    "config: unknown word": (
        "train --config word.toml",
        'device = "tpu", expected one of auto, cpu, cuda or mps',
    ),
    "config: table": ("train --config table.toml", "[model] is a table"),
    "config: twice": ("train --config twice.toml", "n_layer is there twice"),
    "config: twice in JSON": ("train --config twice.json", "'seed' is there twice"),
    "config: broken TOML": ("train --config broken.toml", "broken.toml: not TOML"),
    "config: broken JSON": ("train --config broken.json", "broken.json: not JSON", "line 1"),
    "config: deep": ("train --config deep.json", "deep.json: not JSON (nested too deeply)"),
    "config: array": ("train --config array.json", "holds [1, 2], expected an object"),
    "config: not UTF-8": ("train --config latin.toml", "latin.toml: not UTF-8"),
    "config: no field": ("train --config resume.toml", "unknown key 'resume'"),
    "config: no such file": ("train --config gone.toml", "gone.toml: No such file"),
    "config: folder": ("train --config runs", "expected a file that ends in .toml or .json"),
    "config: no file": ("train --config", "--config got no file"),
    "config: a fixed field": (
        "train --resume first --config runs/gone/config.json",
        "config.json: No such file",
    ),
    "config: generate": (
        "generate --config key.toml",
        "unknown key 'n_layers'",
        "gpt2edu_generate --help",
    ),
    "config: subset": ("prepare --config sample-100BT", "--config sample-100BT", ".toml or .json"),
    "completion: no shell": (
        "train --tyro-print-completion",
        "needs the name of a shell: bash, zsh",
    ),
    "completion: unknown shell": (
        "train --tyro-print-completion nosh",
        "needs the name of a shell",
    ),
    "completion: no folder": (
        "train --tyro-write-completion bash nofolder/x.bash",
        "nofolder/x.bash",
    ),
    "no run to resume": ("train --resume --out_dir norun", "norun", "gpt2edu_train"),
    "no epochs": ("train --num_epochs 0", "num_epochs=0.0 must be above 0"),
    "name with a slash": ("train --name a/b", "name='a/b'", "--out_dir"),
    "name that leads away": ("train --name=..", "name='..'", "--out_dir"),
    "another preset": (
        "train --resume first --preset small-cpu",
        "runs/first",
        "preset='tiny', not 'small-cpu'",
    ),
    "a flag that changes nothing": (
        "train --lora_parts c_attn",
        "--lora_parts changes nothing without --lora_rank; add that, or leave --lora_parts out",
    ),
    "a text beside questions": (
        "train --preset tiny-sft --dataset short.txt",
        "--dataset names a text, and questions=stories are learned in place of one",
        "or add --questions None",
    ),
    "name taken": ("train --name first", "runs/first", "--resume"),
    "not writable": ("train --out_dir empty.txt", "empty.txt", "--out_dir"),
    "data not writable": ("train --dataset pydocs --data_dir empty.txt", "empty.txt", "--data_dir"),
    "generate: no run": ("generate --out_dir norun", "norun", "gpt2edu_train"),
    "generate: no such run": ("generate --run nothere", "nothere"),
    "generate: no checkpoint": ("generate --run nockpt", "nockpt", "gpt2edu_train --resume"),
    "generate: prompt too long": (
        "generate --run first --prompt LONG",
        "tokens and the context holds 32",
        "shorten",
    ),
    "generate: temperature": ("generate --run first --temperature -1", "temperature=-1"),
    "generate: temperature nan": ("generate --run first --temperature=nan", "temperature=nan"),
    "generate: top_k": ("generate --run first --top_k 0", "top_k=0"),
    "generate: top_p": ("generate --run first --top_p 2", "top_p=2"),
    "generate: num_seq": ("generate --run first --num_seq 0", "num_seq=0"),
    "generate: seed": (
        "generate --run first --seed 99999999999999999999",
        "whole number, got '99999999999999999999';",
    ),
    "generate: max_tokens": ("generate --run first --max_tokens 0", "max_tokens=0"),
    "generate: unknown flag": ("generate --promt x", "--promt"),
    "generate: cut short": ("generate --run ckcut", "model.safetensors", "cut short"),
    "generate: altered": ("generate --run ckaltered", "model.safetensors", "altered"),
    "generate: tokenizer altered": ("generate --run cktok", "tokenizer.json", "altered"),
    "generate: another tokenizer": (
        "generate --run cktok2",
        "cktok2/tokenizer.json",
        "is not the tokenizer",
    ),
}


@pytest.fixture(scope="module")
def bad(work):
    "Lay out everything that is broken; the arguments of each case."
    for name, content in FILES.items():
        (work / name).write_bytes(content)
    (data,) = (work / "data").glob("pydocs-*")
    for name in ("magic", "cut", "altered", "gone", "manifest"):
        shutil.copytree(data, work / name)
        (shard,) = (work / name).glob("*_train_*.bin")
        raw = bytearray(shard.read_bytes())
        if name == "magic":
            raw[0] ^= 1
        if name == "altered":
            raw[5000] ^= 1
        shard.write_bytes(raw[: len(raw) // 2] if name == "cut" else raw)
        if name == "gone":
            shard.unlink()
    (work / "manifest" / "manifest.json").write_text('{"shards": []}', encoding="utf-8")
    run = work / "runs" / "first"
    for name in (
        "ckcut", "ckaltered", "ckoptim", "ckstate", "ckconfig", "cktok", "cktok2", "nockpt",
    ):  # fmt: skip
        copy = work / "runs" / name
        shutil.copytree(run, copy)
        for step in (copy / "checkpoints").glob("step_*"):
            file = step / {"ckoptim": "optim.safetensors", "ckstate": "state.json"}.get(
                name, "model.safetensors"
            )
            raw = bytearray(file.read_bytes())
            raw[len(raw) // 2] ^= 1
            if name == "ckcut":
                file.write_bytes(raw[:-7])
            elif name in ("ckaltered", "ckoptim", "ckstate"):
                file.write_bytes(raw)
    shutil.rmtree(work / "runs" / "nockpt" / "checkpoints")
    (work / "runs" / "ckconfig" / "config.json").write_text(
        '{"dataset": ["pydocs"], "n_layers": 3}', encoding="utf-8"
    )
    tokenizer = work / "runs" / "cktok" / "tokenizer.json"
    tokenizer.write_text(
        tokenizer.read_text(encoding="utf-8")
        .replace('"name": "pydocs"', '"name": "other"', 1)
        .replace("Ġt", "Ġz", 1),
        encoding="utf-8",
    )
    get_tokenizer("gpt2").save(work / "runs" / "cktok2")

    return {name: case[0].replace("DATA", str(data)).split() for name, case in BAD.items()}


def check_bad(name, code, err):
    command, *parts = BAD[name]
    assert code == 2, (code, err[-2000:])
    assert err.count("\n") == 1 and err.startswith(f"gpt2edu_{command.split()[0]}: "), err
    for part in parts:
        assert part in err, err
    assert not re.search(r"Traceback|^gpt2edu_\w+: Error|\[Errno|[╭│]", err), err
    assert len(err) < 500, err


def words(args):
    return ["word " * 100 if a == "LONG" else a for a in args]


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2(bad, name, capsys, in_work):
    command, *args = bad[name]
    before = set(Path("runs").iterdir())
    with pytest.raises(SystemExit) as e:
        getattr(cli, command)(words(args))
    check_bad(name, e.value.code, capsys.readouterr().err)
    assert set(Path("runs").iterdir()) == before  # no empty folder is left behind


def check_processes(bad, work, names):
    "Run console scripts, two at a time."

    def answer(name):
        command, *args = bad[name]
        return sh(f"gpt2edu_{command}", *words(args), cwd=work)

    with ThreadPoolExecutor(2) as pool:
        for name, p in zip(names, pool.map(answer, names), strict=True):
            check_bad(name, p.returncode, p.stderr)


def test_bad_input_of_real_commands(bad, work):
    check_processes(
        bad, work, ["unknown flag", "not JSON", "checkpoint altered", "generate: prompt too long"]
    )


@pytest.mark.slow
def test_all_bad_input_of_real_commands(bad, work):
    check_processes(bad, work, list(BAD))


def test_a_mistake_leaves_no_run(bad, work):
    "Only runs that began have a config; `latest run` still is a good one."
    runs = {p.parent.name for p in (work / "runs").glob("*/config.json")}
    assert not {r for r in runs if re.fullmatch(r"tiny(-\d+)?", r)}, runs


def test_a_cut_checkpoint_is_passed_over_for_a_whole_one(in_work, capsys):
    "A kill cannot cut one (it is renamed when whole), a disk can; the one before is taken."
    copy = in_work / "runs" / "onecut"
    shutil.copytree(in_work / "runs" / "first", copy)
    model = max((copy / "checkpoints").glob("step_*")) / "model.safetensors"
    whole = model.read_bytes()
    model.write_bytes(whole[:100])
    cli.train(["--resume", "onecut"])
    assert "step_00000008, step 8\n" in capsys.readouterr().out
    assert model.read_bytes() == whole


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root may write anywhere")
def test_a_read_only_folder(work, tmp_path):
    tmp_path.chmod(0o500)
    p = sh("gpt2edu_train", "--dataset", "pydocs", "--out_dir", tmp_path, cwd=work)
    assert p.returncode == 2 and p.stderr.count("\n") == 1 and "Permission denied" in p.stderr


def test_shards_in_llm_c_format_without_a_manifest(in_work, tmp_path, capsys):
    "What others publish loads as it is."
    rng = np.random.default_rng(0)
    for split, n in (("val", 3000), ("train", 9000)):
        header = np.zeros(256, "<i4")
        header[:3] = 20240520, 1, n
        tokens = rng.integers(0, 290, n).astype("<u2")
        (tmp_path / f"x_{split}_000000.bin").write_bytes(header.tobytes() + tokens.tobytes())
    tokenizer = in_work / "runs" / "first" / "tokenizer.json"
    args = [
        "--shards", tmp_path, "--tokenizer", tokenizer, *SIZES, "--max_steps", 4, "--name", "llmc",
    ]  # fmt: skip
    cli.train(list(map(str, args)))
    assert "validation loss" in capsys.readouterr().out


ENCODING = """
import json, sys, warnings
warnings.filterwarnings("error", category=EncodingWarning, module=r"gpt2edu(\\.|$)")
from gpt2edu.cli import commands as cli
for words in json.loads(sys.argv[1]):
    try:
        cli.main(words)
    except SystemExit as e:
        assert not e.code, words
"""


def test_no_command_lets_the_machine_choose_an_encoding(work, tmp_path):
    "Windows takes another one than UTF-8 where none is named; Python can say where that is."
    python = [sys.executable, "-X", "warn_default_encoding", "-c", ENCODING]
    flags = [*SIZES, "--max_steps", "2", "--dataset", "pydocs", "--name", "encoding"]
    resume = ["--resume", "runs/encoding", "--max_steps", "3"]
    out = ["--out", str(tmp_path / "out")]
    again = (
        ["generate", "--max_tokens", "3"],
        ["plan"],
        ["export", *out],
        ["eval", "--tasks", "val"],
    )
    words = json.dumps((["train", *flags], ["train", *resume], *again))
    p = subprocess.run([*python, words], cwd=work, env=ENV, capture_output=True, text=True)
    assert p.returncode == 0, p.stderr
