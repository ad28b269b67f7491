"Every numeric flag of every command with every odd number: one line or work, never a traceback."

import io
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import warm

from gpt2edu.cli import chat, commands
from gpt2edu.data.prepare import PrepareConfig
from gpt2edu.evaluate.report import EvalConfig
from gpt2edu.model.pretrained import export, from_pretrained
from gpt2edu.plan.report import PlanConfig
from gpt2edu.text.chat import with_chat
from gpt2edu.train.config import TrainConfig

VALUES = ("0", "-1", "1e400", "nan", "inf", "true", "", "1" + "0" * 30, "1.5")
TEXT = "\n\n".join(f"Paragraph {i}. " + "The quick brown fox jumps. " * 30 for i in range(30))
SMALL = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 32, "total_batch": 256}
SMALL |= {"micro_batch": 8, "optimizer": "adamw", "choice_items": 0, "val_tokens": 512}
SMALL |= {"vocab_size": 300, "max_steps": 1, "device": "cpu", "dataset": "t.txt"}
QUICK = {"device": "cpu", "choice_items": 4, "dry_run": None}
# the dataclass of a command's flags, and what makes it quick; `work` is for the slow series
COMMANDS = {
    "train": (TrainConfig, SMALL | {"dry_run": None}),
    "plan": (PlanConfig, SMALL | {"gpu": "a100"}),
    "prepare": (PrepareConfig, {"dataset": "t.txt", "dry_run": None}),
    "generate": (commands.GenerateConfig, {"run": "base", "max_tokens": 3, "device": "cpu"}),
    "eval_": (EvalConfig, {"model": "base", "tasks": "val", "device": "cpu"}),
    "export": (commands.ExportConfig, {"run": "base"}),
    "chat": (chat.ChatConfig, {"run": "talker", "max_tokens": 3, "device": "cpu"}),
    # where the newer flags have an effect
    "train by questions": (TrainConfig, {"preset": "tiny-sft"} | QUICK),
    "train by reward": (TrainConfig, {"preset": "tiny-grpo", "init_from": "talker"} | QUICK),
    "train an adapter": (TrainConfig, {"preset": "tiny-lora"} | QUICK),
}
ONLY = {
    "train by questions": "conversations choice_items block_size total_batch micro_batch",
    "train by reward": "group answer_tokens updates clip kl conversations micro_batch",
    "train an adapter": "lora_rank lora_alpha n_layer n_head n_embd block_size",
}


def numeric(kind):
    "List the flags of a dataclass that take a number."
    hints = get_type_hints(kind)
    return [name for name, hint in hints.items() if {int, float} & {hint, *get_args(hint)}]


def tried(command):
    "List the flags that are tried: of a variant, those that mean something there."
    every = numeric(COMMANDS[command][0])
    some = ONLY[command].split() if command in ONLY else every
    assert set(some) <= set(every)
    return some


FLAGS = [(command, name) for command in COMMANDS for name in tried(command)]


def flags(command, name, value):
    "Write a command's quick flags, and the one that is tried."
    base = dict(COMMANDS[command][1])
    base.pop(name, None)
    if name in ("max_tokens", "num_epochs"):
        base.pop("max_steps", None)  # exactly one horizon
    words = [w for k, v in base.items() for w in ([f"--{k}"] if v is None else [f"--{k}", str(v)])]
    return [*words, f"--{name}", value]


@contextmanager
def an_end(seconds):
    "Fail where the work does not come to an end."

    def late(*_):
        raise AssertionError(f"still at work after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    "A folder with a text and a run."
    folder = tmp_path_factory.mktemp("numbers")
    (folder / "t.txt").write_text(TEXT, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        commands.train(
            [w for k, v in (SMALL | {"name": "base"}).items() for w in (f"--{k}", f"{v}")]
        )
        tokenizer = with_chat(from_pretrained("tiny")[1])
        export(from_pretrained("tiny", tokenizer.n_vocab)[0], tokenizer, "talker")
    return folder


def try_values(command, name, capsys, seconds, more=()):
    "Run a command with each of the values; count those that it takes."
    taken, run = [], chat.chat if command == "chat" else getattr(commands, command.split()[0])
    for value in VALUES:
        args = [a for a in flags(command, name, value) if a not in more]
        capsys.readouterr()
        with an_end(seconds), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO("Who?\n"))
            try:
                run(args)
                taken.append(value)
            except SystemExit as e:
                err = capsys.readouterr().err
                assert e.code == 2 and err.count("\n") == 1 and err.strip(), (value, err)
                assert name in err or name.replace("_", "-") in err, (value, err)
    return taken


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no alarm here")
@pytest.mark.parametrize(("command", "name"), FLAGS, ids=["-".join(f) for f in FLAGS])
def test_every_number_of_every_flag(command, name, base, monkeypatch, capsys):
    monkeypatch.chdir(base)
    taken = try_values(command, name, capsys, 60)
    assert not {"1e400", "nan", "inf", "true", "", "-1"} & set(taken)


@pytest.mark.slow
@pytest.mark.parametrize("name", numeric(TrainConfig))
def test_so_it_is_in_a_whole_training(name, base, monkeypatch, capsys):
    "What the parser takes is trained with, for one step or as long as the flag says."
    monkeypatch.chdir(base)
    if name == "num_epochs":
        pytest.skip("10^30 epochs is a horizon like any other, and a training says how long it is")
    try_values("train", name, capsys, 300, more=("--dry_run",))


SAMPLE = [
    ("train", "lr", "nan", 2),
    ("train", "n_layer", "1" + "0" * 30, 2),
    ("train", "n_embd", "1e18", 2),
    ("plan", "price", "1e400", 2),
    ("prepare", "shard_size", "1.5", 2),
    ("generate", "temperature", "nan", 2),
    ("eval_", "batch_size", "9e18", 2),
    ("chat", "top_p", "nan", 2),
    ("train", "warmup_steps", "0", 0),
]


@pytest.mark.parametrize(("command", "name", "value", "code"), SAMPLE)
def test_through_the_real_process(command, name, value, code, base):
    args = [a for a in flags(command, name, value) if (command, a) != ("train", "--dry_run")]
    words = [sys.executable, "-m", "gpt2edu.cli", command.strip("_"), *args]
    done = warm.run(words, cwd=base)
    assert done.returncode == code, done.stderr
    assert code == 0 or done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr and Path(base / "runs").is_dir()
