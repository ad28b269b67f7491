"""The commands, as a user runs them: real processes, one line for every mistake, quiet where nobody looks."""

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
from pathlib import Path

import numpy as np
import pytest

from gpt2edu import cli, corpus, plan, prepare, runs
from gpt2edu.tokenizer import get_tokenizer

BIN = Path(sys.executable).parent
SIZES = "--n_layer 1 --n_head 2 --n_embd 32 --block_size 32 --total_batch 256 --micro_batch 8 --vocab_size 300".split()
SIZES += "--val_tokens 2048 --eval_every 4 --save_every 4 --sample_every 6 --warmup_steps 2".split()
SIZES += "--device cpu --dtype fp32".split()
ENV = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def sh(name, *args, cwd, **kw):
    "Run a console script."
    cmd = [BIN / name, *map(str, args)] if isinstance(name, str) else [*name, *map(str, args)]
    return subprocess.run(cmd, cwd=cwd, env=ENV, capture_output=True, text=True, timeout=120, **kw)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    "A folder with one trained run, `runs/first`."
    folder = tmp_path_factory.mktemp("work")
    p = sh("gpt2edu_train", "--dataset", "pydocs", *SIZES, "--max_steps=12", "--name", "first", cwd=folder)
    assert p.returncode == 0, p.stderr
    (folder / "train.out").write_text(p.stdout, encoding="utf-8")
    (folder / "train.err").write_text(p.stderr, encoding="utf-8")
    return folder


# what a user sees


def test_the_output_is_quiet_and_greppable(work):
    out, err = (work / "train.out").read_text(encoding="utf-8"), (work / "train.err").read_text(encoding="utf-8")
    assert err == ""
    assert not re.search(r"[\r\x1b\x08]", out) and "%|" not in out
    assert re.findall(r"^step (\d+)/12 train [\d.]+ val [\d.]+ tokens/s [\d,]+ left \d+ s$", out, re.M) == [
        "4",
        "8",
        "12",
    ]
    assert re.search(r"^run: runs/first$", out, re.M) and re.search(r"^data: writing shards to data/pydocs-", out, re.M)
    assert re.search(r"^validation loss +\d+\.\d+ nats/token$", out, re.M) and "\nbigram model " in out
    assert len(re.findall(r"^sample \d: ", out, re.M)) == 3 and "loss.png" in out
    assert re.search(r"^next: gpt2edu_generate ", out, re.M) and re.search(r"^next: gpt2edu_train --resume", out, re.M)
    last = json.loads((work / "runs" / "first" / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert last["event"] == "done" and last["floor"] is None and last["story_choice"] is None


def test_the_next_commands_work(work, monkeypatch, capsys):
    shutil.copytree(work / "runs", work / "next" / "runs")
    shutil.copytree(work / "data", work / "next" / "data")
    monkeypatch.chdir(work / "next")
    for line in re.findall(r"^next: gpt2edu_(.*)$", (work / "train.out").read_text(encoding="utf-8"), re.M):
        name, *args = shlex.split(line)
        getattr(cli, name)([a.replace(" Mia and Tom were in the", "") for a in args])  # this context is 32 tokens
        assert re.search("^--- 3 of 3|^step 24/24 ", capsys.readouterr().out, re.M), line


def test_stories_end_with_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare, "N_STORIES", 300)
    monkeypatch.chdir(tmp_path)
    cli.train([*SIZES, "--max_steps", "4", "--choice_items", "20"])
    out = capsys.readouterr().out
    for row in (
        "validation loss",
        "bigram model",
        "floor",
        "gap to the floor",
        "story choice",
        "tokens, seconds",
        "loss curve",
    ):
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
        json.loads, (tmp_path / "runs" / "tiny" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    )
    assert start["max_steps"] == start["train_tokens"] // 256 and done["tokens"] == 256 * start["max_steps"]
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
        ("--n-layer=1 --n_embd=64 --n_head 2", "1 micro-batches"),
        ("", "preset tiny"),
    ],
)
def test_flags(flags, part, capsys):
    cli.train([*flags.split(), "--dry_run"])
    assert part in capsys.readouterr().out


def test_the_plan_counts_the_vocabulary_of_the_tokenizer(work, monkeypatch, capsys):
    monkeypatch.chdir(work)
    other = "--shards x --tokenizer runs/first/tokenizer.json --vocab_size 9999 --dry_run".split()
    cli.train([*SIZES, *other])
    said = re.search(r"([\d,]+) parameters", capsys.readouterr().out)[1]
    assert f"model: {said} parameters" in (work / "train.out").read_text(encoding="utf-8")


def test_help_names_every_flag(work):
    from dataclasses import fields

    p = sh("gpt2edu_train", "--help", cwd=work)
    assert p.returncode == 0 and p.stderr == ""
    for f in fields(cli.TrainConfig):
        assert re.search(rf"--{f.name}[ ,]", p.stdout), f.name
    assert "--resume" in p.stdout
    p = sh("gpt2edu_generate", "--help", cwd=work)
    assert p.returncode == 0 and all(f"--{f.name} " in p.stdout for f in fields(cli.GenerateConfig))


def test_no_torch_where_it_is_not_needed(work):
    p = sh([sys.executable, "-c"], "import gpt2edu, sys; assert 'torch' not in sys.modules", cwd=work)
    assert p.returncode == 0, p.stderr
    for script, *args in (("gpt2edu_train", "--help"), ("gpt2edu_train", "--dry_run"), ("gpt2edu_generate", "--help"),
                          ("gpt2edu_train", "--nope")):  # fmt: skip
        p = sh([sys.executable, "-X", "importtime", BIN / script], *args, cwd=work)
        loaded = {line.split("|")[-1].strip().split(".")[0] for line in p.stderr.splitlines() if "import time" in line}
        assert "tyro" in loaded and not loaded & {"torch", "matplotlib", "datasets", "transformers", "pyarrow"}, script


def test_python_m(work):
    module = [sys.executable, "-m", "gpt2edu.cli"]
    assert "preset tiny" in sh(module, "train", "--dry_run", cwd=work).stdout
    for args in ([], ["trane"]):
        p = sh(module, *args, cwd=work)
        assert p.returncode == 2 and p.stderr.count("\n") == 1 and "train" in p.stderr and p.stdout == ""


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
    p = sh("gpt2edu_generate", "--prompt=the", "--seed=1", "--max-tokens=20", "--run", "runs/first", cwd=in_work)
    assert p.returncode == 0 and p.stderr == "" and a == p.stdout and a.startswith("the") and a.endswith("\n")
    assert len({generate("--prompt", "the", "--seed", i, "--max_tokens", 20) for i in range(5)}) == 5
    assert len({generate("--max_tokens", 20) for i in range(5)}) > 1
    assert len({generate("--temperature", 0, "--max_tokens", 20) for i in range(3)}) == 1


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
        assert len(tokenizer.encode(text.rstrip("\n"))) <= 5 + 3 * text.count("\N{REPLACEMENT CHARACTER}")
        assert "<|endoftext|>" not in generate("--seed", seed, "--temperature", 3)


def test_a_reader_that_leaves_is_no_error(in_work):
    cmd = f"{BIN}/gpt2edu_generate --num_seq 50 --seed 1 --run first | head -c 3"
    p = subprocess.run(cmd, shell=True, env=ENV, capture_output=True, text=True)
    assert p.stderr == "" and len(p.stdout) == 3


def test_training_goes_on_when_nobody_reads(work):
    flags = shlex.join(["--dataset", "pydocs", *SIZES, "--max_steps", "8", "--name", "unread"])
    p = subprocess.run(f"{BIN}/gpt2edu_train {flags} | head -n 1", shell=True, cwd=work, env=ENV, capture_output=True)
    assert p.stdout.count(b"\n") == 1 and p.stderr == b""
    assert (
        json.loads((work / "runs" / "unread" / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])["event"]
        == "done"
    )


def test_a_full_disk_for_the_output(work):
    "A training goes on and says so; a command whose output is all there is fails."
    with open("/dev/full", "w", encoding="utf-8") as full:
        cmd = [BIN / "gpt2edu_train", "--dataset", "pydocs", *SIZES, "--max_steps", "4", "--name", "full"]
        p = subprocess.run(cmd, cwd=work, env=ENV, stdout=full, stderr=subprocess.PIPE, text=True)
        assert p.returncode == 0 and p.stderr.count("\n") == 1 and "training goes on" in p.stderr, p.stderr
        p = subprocess.run([BIN / "gpt2edu_plan"], cwd=work, env=ENV, stdout=full, stderr=subprocess.PIPE, text=True)
        assert p.returncode == 2 and p.stderr.count("\n") == 1, p.stderr
    assert (
        json.loads((work / "runs" / "full" / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])["event"]
        == "done"
    )


def test_an_output_that_cannot_show_a_character(work):
    cmd = [BIN / "gpt2edu_generate", "--run", "first", "--prompt", "über", "--max_tokens", "3"]
    p = subprocess.run(cmd, cwd=work, env=ENV | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True)
    assert p.returncode == 0 and p.stdout.startswith("?ber"), p.stderr


def test_one_run_has_one_writer(in_work, capsys):
    with prepare.one_writer(Path("runs/busy")), pytest.raises(SystemExit) as e:
        cli.train(["--dataset", "pydocs", *SIZES, "--max_steps", "2", "--name", "busy"])
    assert e.value.code == 2 and "runs/busy: another process is writing there" in capsys.readouterr().err


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
    cmd = [BIN / "gpt2edu_train", "--dataset", "pydocs", *SIZES, "--max_steps", "100000", "--name", "pty"]
    p = subprocess.Popen(cmd, cwd=work, env=ENV, stdin=side, stdout=side, stderr=side, start_new_session=True)
    os.close(side)
    seen, end, sent = b"", time.time() + 60, False
    while time.time() < end:
        if not sent and re.search(rb"[1-9]\d*/100000 \[[\d:]+<[\d:]+.*loss \d\.\d+, [\d,]+ tokens/s", seen):
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
}
BAD = {
    "unknown preset": ("train --preset huge", "'huge'", "gpt2-124m"),
    "unknown flag": ("train --n_layers 3", "--n_layers"),
    "unknown flag with a value": ("train --max_step=3", "--max_step"),
    "stray word": ("train stories", "stories"),
    "FineWeb-Edu": ("train --preset gpt2-124m --micro_batch 4", "fineweb-edu is not prepared", "--shards"),
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
    "missing text key": ("train --dataset nokey.jsonl", "nokey.jsonl, line 2", "'text'", "body", "--text_key"),
    "not UTF-8": ("train --dataset latin.txt", "latin.txt", "UTF-8"),
    "not text": ("train --dataset x.pdf", "x.pdf", ".txt, .jsonl, .parquet"),
    "broken parquet": ("train --dataset broken.parquet", "broken.parquet"),
    "tokenizer": ("train --tokenizer nothere.json", "nothere.json"),
    "vocabulary": ("train --dataset pydocs --vocab_size 100", "vocab_size=100"),
    "device": ("train --device tpu", "'tpu'", "cuda"),
    "dtype": ("train --dtype fp8", "'fp8'", "bf16"),
    "wrong magic": ("train --shards magic --tokenizer runs/first/tokenizer.json", "magic/", "wrong magic"),
    "shard cut short": ("train --shards cut --tokenizer runs/first/tokenizer.json", "cut/", "cut short"),
    "shard altered": ("train --shards altered --tokenizer runs/first/tokenizer.json", "altered/", "SHA-256"),
    "shard missing": ("train --shards gone --tokenizer runs/first/tokenizer.json", "gone/", "no such shard"),
    "manifest altered": ("train --shards manifest --tokenizer runs/first/tokenizer.json", "manifest/manifest.json"),
    "another tokenizer": ("train --shards DATA --tokenizer gpt2", "another tokenizer"),
    "no shards": ("train --shards nowhere --tokenizer gpt2", "nowhere", "no such folder"),
    "checkpoint cut short": ("train --resume ckcut", "model.safetensors", "cut short"),
    "checkpoint altered": ("train --resume ckaltered", "model.safetensors", "altered"),
    "optimizer altered": ("train --resume ckoptim", "optim.safetensors", "altered"),
    "state altered": ("train --resume ckstate", "state.json", "altered"),
    "config altered": ("train --resume ckconfig", "ckconfig/config.json"),
    "checkpoint of another config": ("train --resume first --n_layer 2", "n_layer=1", "not 2"),
    "checkpoint of another width": ("train --resume first --n_embd 64", "n_embd=32", "not 64"),
    "resume on another dataset": ("train --resume first --dataset gone.txt", "runs/first", "--dataset"),
    "resume under another name": ("train --resume first --name other", "runs/first", "--name"),
    "half a step": ("train --max_steps 1.5", "max_steps: expected a whole number, got '1.5'"),
    "unknown tracker": ("train --tracker mlflow", "tracker='mlflow'", "trackio"),
    "empty dataset": ("train --dataset=", "dataset names nothing"),
    "a number without end": ("train --max_steps 1e400", "max_steps", "whole number"),
    "too many processes": ("prepare --num_proc 1e9", "num_proc=1000000000", "1024"),
    "a folder of something else": ("prepare --dataset pydocs --out runs/first", "runs/first", "holds other things"),
    "no such run": ("train --resume nothere", "nothere"),
    "no run to resume": ("train --resume --out_dir norun", "norun", "gpt2edu_train"),
    "no epochs": ("train --num_epochs 0", "num_epochs=0.0 must be above 0"),
    "name with a slash": ("train --name a/b", "name='a/b'", "--out_dir"),
    "name that leads away": ("train --name=..", "name='..'", "--out_dir"),
    "another preset": ("train --resume first --preset small-cpu", "runs/first", "preset='tiny', not 'small-cpu'"),
    "name taken": ("train --name first", "runs/first", "--resume"),
    "not writable": ("train --out_dir empty.txt", "empty.txt", "--out_dir"),
    "data not writable": ("train --dataset pydocs --data_dir empty.txt", "empty.txt", "--data_dir"),
    "generate: no run": ("generate --out_dir norun", "norun", "gpt2edu_train"),
    "generate: no such run": ("generate --run nothere", "nothere"),
    "generate: no checkpoint": ("generate --run nockpt", "nockpt", "gpt2edu_train --resume"),
    "generate: prompt too long": ("generate --run first --prompt LONG", "tokens and the context holds 32", "shorten"),
    "generate: temperature": ("generate --run first --temperature -1", "temperature=-1"),
    "generate: temperature nan": ("generate --run first --temperature=nan", "temperature=nan"),
    "generate: top_k": ("generate --run first --top_k 0", "top_k=0"),
    "generate: top_p": ("generate --run first --top_p 2", "top_p=2"),
    "generate: num_seq": ("generate --run first --num_seq 0", "num_seq=0"),
    "generate: seed": ("generate --run first --seed 99999999999999999999", "whole number, got '99999999999999999999';"),
    "generate: max_tokens": ("generate --run first --max_tokens 0", "max_tokens=0"),
    "generate: unknown flag": ("generate --promt x", "--promt"),
    "generate: cut short": ("generate --run ckcut", "model.safetensors", "cut short"),
    "generate: altered": ("generate --run ckaltered", "model.safetensors", "altered"),
    "generate: tokenizer altered": ("generate --run cktok", "tokenizer.json", "altered"),
    "generate: another tokenizer": ("generate --run cktok2", "cktok2/tokenizer.json", "is not the tokenizer"),
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
    for name in ("ckcut", "ckaltered", "ckoptim", "ckstate", "ckconfig", "cktok", "cktok2", "nockpt"):
        copy = work / "runs" / name
        shutil.copytree(run, copy)
        for step in (copy / "checkpoints").glob("step_*"):
            file = step / {"ckoptim": "optim.safetensors", "ckstate": "state.json"}.get(name, "model.safetensors")
            raw = bytearray(file.read_bytes())
            raw[len(raw) // 2] ^= 1
            if name == "ckcut":
                file.write_bytes(raw[:-7])
            elif name in ("ckaltered", "ckoptim", "ckstate"):
                file.write_bytes(raw)
    shutil.rmtree(work / "runs" / "nockpt" / "checkpoints")
    (work / "runs" / "ckconfig" / "config.json").write_text('{"dataset": ["pydocs"], "n_layers": 3}', encoding="utf-8")
    tokenizer = work / "runs" / "cktok" / "tokenizer.json"
    tokenizer.write_text(
        tokenizer.read_text(encoding="utf-8").replace('"name": "pydocs"', '"name": "other"', 1).replace("Ġt", "Ġz", 1),
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
    check_processes(bad, work, ["unknown flag", "not JSON", "checkpoint altered", "generate: prompt too long"])


@pytest.mark.slow
def test_all_bad_input_of_real_commands(bad, work):
    check_processes(bad, work, list(BAD))


def test_a_mistake_leaves_no_run(bad, work):
    "Only runs that began have a config; `latest run` still is a good one."
    runs = {p.parent.name for p in (work / "runs").glob("*/config.json")}
    assert not {r for r in runs if re.fullmatch(r"tiny(-\d+)?", r)}, runs


def test_a_cut_checkpoint_is_passed_over_for_a_whole_one(in_work, capsys):
    "A kill cannot cut one (it is renamed when whole), but a disk can; the run goes on from the one before."
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
    args = ["--shards", tmp_path, "--tokenizer", tokenizer, *SIZES, "--max_steps", 4, "--name", "llmc"]
    cli.train(list(map(str, args)))
    assert "validation loss" in capsys.readouterr().out


ENCODING = """
import sys, warnings
warnings.filterwarnings("error", category=EncodingWarning, module=r"gpt2edu(\\.|$)")
from gpt2edu import cli
cli.main(sys.argv[1:])
"""


def test_no_command_lets_the_machine_choose_an_encoding(work, tmp_path):
    "Windows takes another one than UTF-8 where none is named; Python can say where that is."
    python = [sys.executable, "-X", "warn_default_encoding", "-c", ENCODING]
    flags = [*SIZES, "--max_steps", "2", "--dataset", "pydocs", "--name", "encoding"]
    resume, out = ["--resume", "runs/encoding", "--max_steps", "3"], ["--out", str(tmp_path / "out")]
    again = (["generate", "--max_tokens", "3"], ["plan"], ["export", *out], ["eval", "--tasks", "val"])
    for words in (["train", *flags], ["train", *resume], *again):
        p = subprocess.run([*python, *words], cwd=work, env=ENV, capture_output=True, text=True)
        assert p.returncode == 0, p.stderr
