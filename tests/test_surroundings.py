"""What is around a command: a user's own settings, files with the names of modules, lost folders.

Nothing of it is run by mistake, changes a figure or ends a command with a traceback.
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
import warm

from gpt2edu.cli.commands import export, read_train_flags, train
from gpt2edu.cli.settings import read_settings
from gpt2edu.data.cache import all_stories
from gpt2edu.data.sources import local_source
from gpt2edu.evaluate.report import EvalConfig, check_out, tell_of_long
from gpt2edu.plan import report
from gpt2edu.text.chat import with_chat
from gpt2edu.text.corpus import documents, stories
from gpt2edu.text.questions import Question
from gpt2edu.text.tokenizer import Tokenizer
from gpt2edu.train.config import TrainConfig, horizon
from gpt2edu.train.grpo import load_reward, verdict

HERE = Path(__file__).parent
SIZES = "--n_layer 1 --n_head 2 --n_embd 16 --block_size 32 --micro_batch 4 --total_batch 256"
ASKED = Question("file", "Mia has a hat.", "Who has the hat?", "It is with Mia.")


def test_a_matplotlibrc_does_not_reach_the_picture_of_a_run(tmp_path):
    "LaTeX that is not there ended a finished training; letters that the font lacks were told of."
    rc = "text.usetex: True\nsavefig.dpi: 20000\nfont.family: No Such Font\n"
    (tmp_path / "matplotlibrc").write_text(rc, encoding="utf-8")
    (tmp_path / "t.txt").write_text("\n\n".join(s.text for s in stories(400)), encoding="utf-8")
    line = [sys.executable, "-m", "gpt2edu", "train", *SIZES.split(), "--max_steps", "1"]
    line += "--dataset t.txt --choice_items 0 --device cpu --name 模型".split()
    env = os.environ | {"MATPLOTLIBRC": str(tmp_path), "MPLBACKEND": "nosuch"}
    env |= {"PYTHONPATH": str(HERE.parent), "PYTHONWARNINGS": "default"}
    done = warm.run(line, cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (0, ""), done
    picture = (tmp_path / "runs" / "模型" / "loss.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) < 1e6


def test_files_with_the_names_of_modules_are_not_run(tmp_path, monkeypatch):
    for name in ("timeit", "numpy", "random", "gpt2edu"):
        (tmp_path / f"{name}.py").write_text(
            f'open({str(tmp_path / "ran")!r}, "a")\nprint("1 sec per loop")\n',
            encoding="utf-8",
        )
    monkeypatch.chdir(tmp_path)
    assert report.core_peak() != 2 * 384**3  # as timeit.py here would say
    assert all_stories(40, processes=2) == [s.text for s in stories(40)]
    assert not (tmp_path / "ran").exists()


def test_a_python_that_greets_writes_the_same_stories(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text('print("welcome")', encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert all_stories(40, processes=2) == [s.text for s in stories(40)]
    assert report.core_peak() > 0


def test_numpy_that_does_not_run_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text('raise ImportError("no such thing")', encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    why = r"NumPy could not be timed \(ImportError: no such thing\); .*--gpu$"
    with pytest.raises(ValueError, match=why):
        report.core_peak()


@pytest.mark.parametrize("command", ["plan", "train", "prepare", "eval", "generate"])
def test_a_folder_that_was_removed(tmp_path, command):
    env = os.environ | {"PYTHONPATH": str(HERE.parent)}
    line = f"mkdir d && cd d && rmdir ../d && {sys.executable} -m gpt2edu {command}"
    done = warm.shell(line, cwd=tmp_path, env=env)
    what = "the current folder is no longer there; cd to another"
    assert (done.returncode, done.stderr) == (2, f"gpt2edu_{command}: {what}\n"), done


REWARD = """
import os
import torch

def change():
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    os.chdir("/")

change()

def f(question, answer):
    change()
    return len(answer)
"""


def test_what_a_reward_sets_does_not_last(tmp_path):
    (tmp_path / "r.py").write_text(REWARD, encoding="utf-8")
    before = (torch.is_grad_enabled(), torch.get_default_dtype(), os.getcwd())
    assert before[:2] == (True, torch.float32)
    reward = load_reward(f"{tmp_path}/r.py:f")
    assert (torch.is_grad_enabled(), torch.get_default_dtype(), os.getcwd()) == before
    assert verdict(reward, ASKED, "four") == 4.0
    assert (torch.is_grad_enabled(), torch.get_default_dtype(), os.getcwd()) == before


def test_a_verdict_may_be_numpys_true():
    assert verdict(lambda q, a: np.mean([1, 2]) > 1, ASKED, "yes") == 1.0


def test_a_report_takes_the_place_of_a_report_only(tmp_path):
    out = tmp_path / "out.json"
    check_out(EvalConfig(out=str(out)))
    for mine in ("{}", "[1]", "3", '{"story": "a", "question": "b"}\n', "text", "[" * 9999, "\0"):
        out.write_text(mine, encoding="utf-8")
        with pytest.raises(ValueError, match="is not a report of gpt2edu_eval; name another file"):
            check_out(EvalConfig(out=str(out)))
        assert out.read_text(encoding="utf-8") == mine
    for fine in ("", json.dumps({"model": "m", "parameters": 1, "tasks": [], "dtype": "x"})):
        out.write_text(fine, encoding="utf-8")
        check_out(EvalConfig(out=str(out)))


def test_questions_that_do_not_fit_are_told_of():
    tokenizer = with_chat(Tokenizer.load(HERE / "old" / "run"))
    told, task = [], SimpleNamespace(name="questions")
    for size in (8, 500):
        model = SimpleNamespace(config=SimpleNamespace(block_size=size))
        subject = SimpleNamespace(model=model, tokenizer=tokenizer)
        tell_of_long(task, subject, [ASKED, ASKED], told.append)
    fit = "do not fit block_size=8 tokens, and count as wrong"
    assert told == [f"questions: 2 of 2 questions {fit}"]


def test_two_columns_of_one_name(tmp_path):
    texts = ["a text", "another"]
    table = pyarrow.table([texts, texts], names=["text", "text"])
    pyarrow.parquet.write_table(table, path := tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="2 columns are called 'text'; rename all but one"):
        list(documents((str(path),)))


def test_a_named_dataset_stands_alone(tmp_path):
    (tmp_path / "t.txt").write_text("a text", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="'stories': a dataset of that name stands alone"):
        list(documents((str(tmp_path / "t.txt"), "stories")))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rows_without_text_are_told_of_in_every_format(tmp_path, suffix):
    rows, path = [None, "a text", "", "another"] * 50, tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": rows}), path, row_group_size=40)
    else:
        lines = (json.dumps({"text": row}) for row in rows)
        path.write_text("\n".join(lines), encoding="utf-8")
    told = []
    source = local_source((str(path),), {}, 1, note=told.append)
    assert len([text for unit in source.units((0, 0)) for text in unit.read(0)]) == 100
    assert told == [f"{path}: left out 100 rows whose 'text' is empty or null"]


DRY = {
    "out_dir": ("--out_dir t.txt", "t.txt is not a folder; choose another one with --out_dir"),
    "data_dir": ("--data_dir t.txt/x", "t.txt is not a folder; choose another one with --data_dir"),
    "a loop": ("--out_dir loop/x", "loop is not a folder; choose another one with --out_dir"),
    "few ids": ("--vocab_size 100", "vocab_size=100 is too small: 256 bytes and <|endoftext|> "),
    "beside": ("--dataset stories t.txt", "no dataset 'stories': a dataset of that name stands "),
}


@pytest.mark.parametrize("case", DRY)
def test_a_dry_run_refuses_what_the_run_would(tmp_path, case, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("a text", encoding="utf-8")
    Path("loop").symlink_to("loop")
    flags, says = DRY[case]
    with pytest.raises(SystemExit) as e:
        train([*flags.split(), "--dry_run", "--device", "cpu"])
    err = capsys.readouterr().err
    assert e.value.code == 2 and err.startswith(f"gpt2edu_train: {says}"), err
    assert err.count("\n") == 1


def test_a_dataset_beside_shards():
    with pytest.raises(ValueError, match="--dataset changes nothing beside --shards here"):
        read_train_flags("--shards here --tokenizer gpt2 --dataset pydocs".split())
    assert read_train_flags("--shards here --tokenizer gpt2".split())[0].shards == "here"


@pytest.mark.parametrize(
    "flags,says",
    [
        ("--optimizer adamw --muon_lr 0.1", "--muon_lr changes nothing with --optimizer adamw"),
        ("--conversations 5", "--conversations changes nothing without --questions"),
    ],
)
def test_a_flag_that_changes_nothing_is_refused(flags, says):
    with pytest.raises(ValueError, match=says):
        read_train_flags(flags.split())


def test_a_list_of_a_file_holds_no_flags(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('dataset = ["stories", "--n_layer=5"]', encoding="utf-8")
    with pytest.raises(ValueError, match="dataset has '--n_layer=5'; a flag is a key of its own"):
        read_settings(str(file), TrainConfig, "gpt2edu_train")


def test_a_name_that_no_hub_takes_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as e:
        export(["--run", "tiny", "--push_to_hub", "bad name"])
    assert e.value.code == 2 and not list(tmp_path.iterdir())


def test_a_push_without_a_connection(tmp_path):
    env = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "x", "HF_HUB_OFFLINE": "0"}
    env |= {"PYTHONPATH": str(HERE.parent), "HF_HOME": str(tmp_path / "hub")}
    line = [sys.executable, "-m", "gpt2edu", "export", "--run", "tiny", "--push_to_hub", "me/mine"]
    done = warm.run(line, cwd=tmp_path, env=env)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done
    assert done.stderr.startswith("gpt2edu_export: could not push to me/mine: ")
    assert done.stderr.endswith("; check the connection and try again\n")


def test_epochs_without_end():
    config = TrainConfig(max_steps=None, num_epochs=1e308)
    with pytest.raises(ValueError, match=r"num_epochs=1e\+308 has no number of steps"):
        horizon(config, 1000)
