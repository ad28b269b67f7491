"Training on questions: as any run, it resumes bit for bit, and two ranks equal one."

import dataclasses
import json
import random
import re
import signal
import sys
import time

import pytest
import torch
import warm
from small_runs import ENV, TINY, TWO_RANKS, base_run, few_stories, saved, unlike

from gpt2edu.cli.commands import read_train_flags
from gpt2edu.evaluate.answers import answers, grade
from gpt2edu.evaluate.report import EvalConfig, evaluate
from gpt2edu.evaluate.tasks import TASKS
from gpt2edu.text.chat import CHAT, is_chat
from gpt2edu.text.questions import exam, questions_about
from gpt2edu.train import checkpoint, setup
from gpt2edu.train.config import preset
from gpt2edu.train.log import RunLog
from gpt2edu.train.runs import load_run, read_config
from gpt2edu.train.trainer import Trainer

BASE = TINY | {
    "block_size": 192, "vocab_size": 400, "total_batch": 1536, "micro_batch": 4,
    "max_steps": 6, "eval_every": 6, "save_every": 6, "sample_every": 6, "choice_items": 0,
}  # fmt: skip
SFT = {
    "init_from": "base", "block_size": 192, "n_layer": 1, "n_head": 2, "n_embd": 32,
    "conversations": 60, "total_batch": 1536, "micro_batch": 4, "max_steps": 12,
    "warmup_steps": 2, "eval_every": 6, "save_every": 3, "sample_every": 6, "choice_items": 12,
    "device": "cpu", "dtype": "fp32", "compile": "off",
}  # fmt: skip
LITTLE = 96  # tokens of a context that some of the stories do not fit


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A folder with a trained run, runs/base, and one that was trained on questions, runs/whole."
    with few_stories():
        folder = base_run(tmp_path_factory.mktemp("sft"), **BASE)
    Trainer(begin(folder), folder / "runs" / "whole").run()
    return folder


def begin(place, **changes):
    config = preset("tiny-sft", **SFT, out_dir=str(place / "runs"))
    return dataclasses.replace(config, **changes)


def log(folder, event, key):
    return dict(zip(*RunLog(folder / "log.jsonl").curve(event, key), strict=True))


def test_a_run_on_questions(place):
    folder = place / "runs" / "whole"
    _, tokenizer = load_run(folder)
    _, old = load_run(place / "runs" / "base")
    assert is_chat(tokenizer) and not is_chat(old)
    assert tokenizer.n_vocab == old.n_vocab + len(CHAT)
    assert read_config(folder).questions == "stories"
    vals = [e for e in RunLog(folder / "log.jsonl").read() if e["event"] == "val"]
    assert vals[-1]["loss"] < vals[0]["loss"]
    assert {"exact_match", "exact_match_error", "exact_match_unknown"} <= vals[-1].keys()
    done = RunLog(folder / "log.jsonl").read()[-1]
    assert done["floor"] is None and done["exact_match"] == vals[-1]["exact_match"]


def test_it_learns_and_the_start_knows_nothing(place):
    "A few questions by heart: the loop, the mask and the judge fit together."
    config = begin(place, conversations=4, max_steps=250, eval_every=250, choice_items=0)
    config = dataclasses.replace(config, lr=0.02, muon_lr=0.02, warmup_steps=5, save_every=250)
    trainer = Trainer(config, place / "runs" / "by heart")
    kept = trainer.train_shards
    asked = [questions_about(i, "train", 4)[0] for i in range(4)]
    before = grade(asked, answers(trainer.model, trainer.tokenizer, asked))["exact"]
    trainer.run()
    after = grade(asked, answers(trainer.model, trainer.tokenizer, asked))["exact"]
    assert kept.documents == 4 and before["accuracy"] == 0 and after["accuracy"] == 1


def test_resume_is_bit_exact(place, tmp_path):
    half = Trainer(begin(place), tmp_path / "half")
    for _ in range(7):
        half.train_step()
    half.save()
    half.close()
    del half
    Trainer(begin(place), tmp_path / "half", resume=True).run()
    assert unlike(saved(place / "runs" / "whole"), saved(tmp_path / "half")) == []


def test_other_questions_do_not_resume(place, tmp_path):
    Trainer(begin(place, max_steps=3), tmp_path / "a").run()
    with pytest.raises(ValueError, match="trained on other data"):
        Trainer(begin(place, conversations=61), tmp_path / "a", resume=True)
    own = tmp_path / "own.jsonl"
    own.write_text(rows(20), encoding="utf-8")
    config = begin(place, questions=str(own), max_steps=3)
    Trainer(config, tmp_path / "b").run()
    own.write_text(rows(21), encoding="utf-8")
    with pytest.raises(ValueError, match=r"trained on other data.*SHA-256"):
        Trainer(config, tmp_path / "b", resume=True)


def rows(n):
    return "\n".join(json.dumps({"question": f"{i} + 1?", "answer": str(i + 1)}) for i in range(n))


def command(place, *more, head=(sys.executable,), **flags):
    values = SFT | {"out_dir": "runs"} | flags
    args = [f"--{k}={v}" for k, v in values.items() if k[:2] != "n_" and k != "block_size"]
    return [*head, "-m", "gpt2edu.cli", "train", "--preset=tiny-sft", *args, *more]


def call(place, *more, **flags):
    line = command(place, *more, **flags)
    return warm.run(line, env=ENV, cwd=place)


def test_the_command_gives_the_same_bits_and_says_what_comes_next(place):
    done = call(place, name="typed")
    assert done.returncode == 0, done.stderr
    assert unlike(saved(place / "runs" / "whole"), saved(place / "runs" / "typed")) == []
    assert "data: questions about 60 stories" in done.stdout
    assert re.search(r"exact match +\d\.\d{3} ± \d\.\d{3} of the held-out questions", done.stdout)
    assert "next: gpt2edu_chat --run runs/typed" in done.stdout


def test_two_ranks_equal_one(place):
    "The shares make it so: each rank has other rows, with other numbers of answers."
    head = (*TWO_RANKS, "--no-python", sys.executable)
    for name, micro in (("two", 4), ("two more", 1)):
        done = call(place, name=name, head=head, micro_batch=micro)
        assert done.returncode == 0, done.stderr[-2000:]
        one, two = (place / "runs" / n for n in ("whole", name))
        a, b = (saved(run)[checkpoint.MODEL] for run in (one, two))
        # float sums in another order; Muon's products enlarge what they differ by
        assert all(torch.allclose(a[k], b[k], atol=1e-3) for k in a)
        for key, event in (("loss", "train"), ("loss", "val")):
            x, y = log(one, event, key), log(two, event, key)
            assert x == pytest.approx(y, abs=1e-3) and len(x) > 1
        assert log(one, "val", "exact_match") == log(two, "val", "exact_match")


def test_killed_at_ten_moments_it_ends_with_the_same_bits(place):
    rng, folder, kills = random.Random(), place / "runs" / "killed", 0
    line = command(place, "--resume=auto", name="killed", save_every=1, eval_every=1)
    while True:
        p = warm.start(line, env=ENV, cwd=place, stderr=warm.PIPE)
        before, moment = checkpoint.latest(folder / "checkpoints"), rng.uniform(0, 0.3)
        began = time.monotonic()
        while kills < 10 and p.poll() is None:  # in turn before a step is done, and after one
            done = checkpoint.latest(folder / "checkpoints") != before
            if done or (kills % 2 == 0 and time.monotonic() - began > moment):
                time.sleep(rng.uniform(0, 0.05) * done)
                p.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.01)
        err = p.communicate(timeout=600)[1]
        if p.returncode != -signal.SIGKILL:
            break
    assert p.returncode == 0, err
    assert kills == 10
    assert unlike(saved(place / "runs" / "whole"), saved(folder)) == []


def test_a_process_that_is_killed_before_it_begins_leaves_no_pipe_open():
    "Else the test above waits for ever on a busy machine."
    for _ in range(5):
        p = warm.start(
            [sys.executable, "-c", "import time; time.sleep(9)"], env=ENV, stderr=warm.PIPE
        )
        p.send_signal(signal.SIGKILL)
        assert p.communicate(timeout=60)[1] == "" and p.returncode == -signal.SIGKILL


def test_questions_of_ones_own(place, tmp_path):
    own = tmp_path / "own.jsonl"
    own.write_text(rows(20), encoding="utf-8")
    done = call(place, name="own", questions=own, max_steps=4)
    assert done.returncode == 0, done.stderr
    assert f"data: {own}, 18 questions, and 2 held out" in done.stdout
    last = RunLog(place / "runs" / "own" / "log.jsonl").read()[-1]
    assert last["event"] == "done" and last["exact_match"] is not None
    # its own file, also under another name: what was held out; another file: all of it
    (tmp_path / "copy.jsonl").write_bytes(own.read_bytes())
    (tmp_path / "other.jsonl").write_text(rows(12), encoding="utf-8")
    for name, n in (("own", 2), ("copy", 2), ("other", 12)):
        said, file = [], tmp_path / f"{name}.jsonl"
        config = EvalConfig(
            model=str(place / "runs" / "own"), questions=str(file), device="cpu", choice_items=5
        )
        assert evaluate(config, said.append)["questions"]["exact"]["n"] == n, name
        note = f"questions: 2 held-out ones of {file}; the run was trained on the others"
        assert (note in said) == (n == 2)
    limited = dataclasses.replace(config, limit=3)
    assert evaluate(limited)["questions"]["exact"]["n"] == 3


def test_the_command_judges_by_kind(place):
    line = [sys.executable, "-m", "gpt2edu.cli", "eval", "--run=runs/whole", "--choice_items=16"]
    done = warm.run(line, env=ENV, cwd=place)
    assert done.returncode == 0, done.stderr
    for name in ("exact", "thing", "unknown", "wording", "longer"):
        assert re.search(rf"^questions +plain +{name} +0\.\d+ ± 0\.\d+", done.stdout, re.M), name
    assert "validation loss" not in done.stdout  # it was trained on no text


def test_more_stories_than_memory_holds_are_refused_before_any_is_written():
    flags = ["--preset", "tiny-sft", "--conversations"]
    with pytest.raises(ValueError, match="must be 1,000,000 or less; try 12000"):
        read_train_flags([*flags, "1e18"])
    assert read_train_flags([*flags, "1e6"])[0].conversations == 1_000_000


def test_stories_that_are_too_long_are_counted(place, tmp_path):
    said, config = [], begin(place, block_size=LITTLE, total_batch=16 * LITTLE)
    data = setup.open_questions(config, place / "runs" / "whole", said.append)
    lines = [line for line in said if line.startswith("data: left out ")]
    what = rf"data: left out (\d+) of (60|400) stories, too long .* block_size={LITTLE} tokens"
    left = {int(m[2]): int(m[1]) for m in (re.fullmatch(what, line) for line in lines)}
    assert left == {60: 60 - data.train.documents, 400: 400 - data.val.documents}
    said.clear()
    setup.open_questions(begin(place, conversations=9), place / "runs" / "whole", said.append)
    assert said[0] == "data: questions about 9 stories" and "of 9 stories" not in "".join(said)


def test_nobody_is_judged_by_nothing():
    for judge in (lambda: grade([], []), lambda: answers(None, None, [])):
        with pytest.raises(ValueError, match="got no questions, expected at least one"):
            judge()


def test_an_exam_is_shared_by_ranks(place):
    model, tokenizer = load_run(place / "runs" / "whole")
    asked = exam(20)
    whole = answers(model, tokenizer, asked)
    # without a process group a rank answers its own share, and says nothing of the others
    parts = [answers(model, tokenizer, asked, 4, rank, 2) for rank in range(2)]
    assert [a or b for a, b in zip(*parts, strict=True)] == whole


BAD = {
    "no file": ("--questions=none.jsonl", "no file none.jsonl; expected a .jsonl file"),
    "line": ("--questions=bad.jsonl", "bad.jsonl, line 2: answer is missing"),
    "one": ("--questions=one.jsonl", "one.jsonl: holds one question, expected two at least"),
    "long": ("--questions=long.jsonl", "does not fit block_size=192 tokens"),
    "start": ("--init_from=nowhere", "init_from='nowhere' is not a run in runs/"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2(place, name):
    good = '{"question": "Who?", "answer": "Mia."}\n'
    (place / "bad.jsonl").write_text(good + '{"question": "Who?"}\n', encoding="utf-8")
    (place / "one.jsonl").write_text(good, encoding="utf-8")
    words = json.dumps({"question": "Who ran? " * 200, "answer": "Mia."})
    (place / "long.jsonl").write_text(good + words, encoding="utf-8")
    flag, why = BAD[name]
    flags = {} if name != "start" else {"init_from": flag.split("=")[1]}
    done = call(place, *([] if flags else [flag]), name=f"bad {name}", **flags)
    assert done.returncode == 2 and why in done.stderr, done.stderr
    assert len(done.stderr.strip().split("\n")) == 1
    assert not (place / "runs" / f"bad {name}").exists()


def test_a_run_without_a_start_and_without_a_tokenizer_is_refused(place, tmp_path):
    with pytest.raises(ValueError, match="name one to begin with: --init_from tiny"):
        Trainer(begin(place, init_from=None), tmp_path / "none")


def test_a_model_without_a_chat_is_not_asked(place):
    line = [sys.executable, "-m", "gpt2edu.cli", "eval", "--run=runs/base", "--tasks=questions"]
    done = warm.run(line, env=ENV, cwd=place)
    assert done.returncode == 2 and "has no chat template" in done.stderr
    assert len(done.stderr.strip().split("\n")) == 1


def test_who_is_asked(place):
    task = TASKS["questions"]
    assert task.applies(begin(place)) and not task.applies(preset("tiny"))
    assert not TASKS["stories"].applies(begin(place))
