"""Learning by reward: the loss is the paper's, answers side by side are as if alone, runs resume.

Real processes and files; the models are small and random.
"""

import itertools
import json
import math
import os
import random
import re
import signal
import sys
import time
from pathlib import Path

import numpy
import pytest
import safetensors.torch
import torch
import warm
from small_runs import ENV, TWO_RANKS, saved, unlike

from gpt2edu.machine.signals import Stopped
from gpt2edu.model.generate import next_token_probs, pick
from gpt2edu.model.gpt import GPT, IGNORE, GPTConfig
from gpt2edu.model.pretrained import export
from gpt2edu.text.chat import with_chat
from gpt2edu.text.questions import NOBODY_KNOWS, Question, questions
from gpt2edu.text.tokenizer import Tokenizer
from gpt2edu.train import checkpoint, grpo, start
from gpt2edu.train.config import padded, preset
from gpt2edu.train.log import RunLog
from gpt2edu.train.runs import load_model

TRAIN = [sys.executable, "-m", "gpt2edu.cli", "train"]


def loud_model(seed=0, **sizes):
    "A model whose odds are far from equal."
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 40, "vocab_size": 64} | sizes
    model = GPT(GPTConfig(**shape), torch.Generator().manual_seed(seed)).eval()
    for p in model.parameters():
        p.data *= 4
    return model


def asked(lengths, G, L, seed=0):
    g = torch.Generator().manual_seed(seed)
    prompts = [torch.randint(1, 60, (n,), generator=g).tolist() for n in lengths]
    return prompts, torch.rand(len(prompts), G, L, dtype=torch.float64, generator=g)


# answers side by side


@pytest.mark.parametrize("lengths", [(2,), (7, 7), (30, 2, 11)])
@pytest.mark.parametrize("G", [1, 5])
def test_answers_in_one_row_are_those_of_rows_of_their_own(lengths, G):
    model = loud_model()
    prompts, draws = asked(lengths, G, 8)
    answers = grpo.sample_groups(model, prompts, draws, end=0, n_vocab=60)
    assert answers.shape[:2] == (len(prompts), G) and answers.max() < 60
    logp = grpo.log_probs(model, prompts, answers)
    for p, a in itertools.product(range(len(prompts)), range(G)):
        ids = [i for i in answers[p, a].tolist() if i != IGNORE]
        assert 0 not in ids[:-1] and (ids[-1] == 0 or len(ids) == answers.shape[2])
        logits = model(torch.tensor([prompts[p] + ids]))[0][0, len(prompts[p]) - 1 : -1]
        alone = logits.log_softmax(1)[range(len(ids)), ids]
        assert torch.allclose(logp[p, a, : len(ids)], alone, atol=1e-4)
        assert not logp[p, a, len(ids) :].any()
        u = draws[p, a, : len(ids), None]
        assert pick(next_token_probs(logits, n_vocab=60), u)[:, 0].tolist() == ids


def test_the_context_ends_an_answer():
    model = loud_model()
    prompts, draws = asked((38, 3), 2, 8)
    assert grpo.sample_groups(model, prompts, draws, 0, 60).shape[2] <= 3


def test_an_answer_sees_no_other_and_learns_from_its_prompt_alone():
    "By gradients: no slope of one answer's tokens leads to another answer or another prompt."
    model = loud_model()
    prompts, draws = asked((6, 4), 3, 5)
    answers = grpo.sample_groups(model, prompts, draws, 0, 60)
    rows = grpo.lay_prompts(prompts, 3, answers.shape[2])
    S = rows.ids.shape[1]
    seen = {}
    embed = model.embed

    def spy(*args):
        seen["x"] = embed(*args).detach().requires_grad_()
        return seen["x"]

    model.embed = spy
    for p, a in itertools.product(range(2), range(3)):
        grpo.log_probs(model, prompts, answers)[p, a].sum().backward()
        there = seen["x"].grad.abs().sum(2) > 0  # (P, T)
        own = {S + i for i in range(answers.shape[2] * 3) if i % 3 == a}
        allowed = {(p, i) for i in {*range(len(prompts[p]) - 1)} | own}
        assert {tuple(i) for i in there.nonzero().tolist()} <= allowed
        assert there[p, : len(prompts[p]) - 1].all()


# the loss


def by_loops(logp, old, start, counts, advantage, clip, kl):
    P, G, L = logp.shape
    answers = []
    for i, j in itertools.product(range(P), range(G)):
        tokens = []
        for t in range(L):
            if counts[i, j, t]:
                ratio = torch.exp(logp[i, j, t] - old[i, j, t])
                A = advantage[i, j]
                r = torch.exp(start[i, j, t] - logp[i, j, t])
                gain = torch.minimum(ratio * A, ratio.clamp(1 - clip, 1 + clip) * A)
                tokens.append(kl * (r - 1 - torch.log(r)) - gain)
        answers.append(sum(tokens) / len(tokens))
    return sum(answers) / len(answers)


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_and_every_slope_are_those_of_a_loop_over_tokens(seed):
    g = torch.Generator().manual_seed(seed)
    logp = torch.randn(3, 4, 5, dtype=torch.float64, generator=g).requires_grad_()
    old, start = (logp.detach() + 0.4 * torch.randn(3, 4, 5, generator=g) for _ in range(2))
    counts = torch.arange(5) < torch.randint(1, 6, (3, 4, 1), generator=g)
    A = grpo.advantages(torch.randn(3, 4, generator=g, dtype=torch.float64))
    slopes, values = [], []
    for f in (grpo.grpo_loss, by_loops):
        logp.grad = None
        f(logp, old, start, counts, A, 0.2, 0.05).backward()
        slopes.append(logp.grad)
        values.append(f(logp, old, start, counts, A, 0.2, 0.05).item())
    assert values[0] == pytest.approx(values[1], abs=1e-12)
    assert torch.allclose(*slopes, atol=1e-12)
    assert not slopes[0][~counts].any() and slopes[0][counts].any()


def test_on_its_own_answers_the_slope_is_the_policy_gradient():
    "Exactly: all answers of one token, weighed by their odds, give the slope of the mean reward."
    scores = torch.randn(6, dtype=torch.float64, requires_grad=True)
    reward = torch.rand(6, dtype=torch.float64)
    logp = scores.log_softmax(0)
    (logp.exp() * reward).sum().backward()
    want, scores.grad = scores.grad, None
    logp = scores.log_softmax(0)
    each = logp[:, None, None]  # six questions with one answer of one token
    counts = torch.ones_like(each, dtype=torch.bool)
    weighed = (logp.detach().exp() * reward * 6)[:, None]
    grpo.grpo_loss(each, each.detach(), each.detach(), counts, weighed, kl=0.0).backward()
    assert torch.allclose(-scores.grad, want, atol=1e-12)


def test_advantages_have_no_mean_and_unit_deviation_and_equal_rewards_none():
    rewards = torch.tensor([[1.0, 0, 0, 0], [5, 5, 5, 5], [-300, 0, 300, 0]])
    A = grpo.advantages(rewards)
    assert torch.allclose(A.mean(1), torch.zeros(3), atol=1e-6)
    assert torch.allclose(A.std(1, correction=0), torch.tensor([1.0, 0, 1]), atol=1e-3)
    assert torch.equal(grpo.advantages(rewards, scale=False)[0], rewards[0] - 0.25)


def test_the_estimate_of_kl_is_right_on_average_and_never_negative():
    p, s = torch.randn(2, 50, dtype=torch.float64).log_softmax(1)
    each = grpo.kl_estimate(p, s)
    assert each.min() >= 0
    assert (p.exp() * each).sum().item() == pytest.approx((p.exp() * (p - s)).sum().item())


# rewards

PARK = Question("person", "", "Where is Tom?", "He is at the park.")


@pytest.mark.parametrize(
    "said, pays",
    [
        ("He is at the park.", (1, 1)),
        ("He is at the park. …", (0, -1)),
        ("He is at the zoo.", (0, -1)),
        (NOBODY_KNOWS, (0, 0)),
        ("", (0, -1)),
    ],
)
def test_rewards(said, pays):
    assert tuple(grpo.verdict(grpo.REWARDS[k], PARK, said) for k in ("exact", "severe")) == pays


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "1", torch.tensor(1.0), 10**400, 1e10])
def test_a_verdict_that_is_no_finite_number_is_refused(value):
    def mine(question, said):
        return value

    with pytest.raises(ValueError, match=r"the reward mine is .* expected a finite number") as e:
        grpo.verdict(mine, PARK, "He is at the zoo.")
    assert "\n" not in str(e.value)


FAILS = {
    "f = lambda q, said: {}['x']": "(fails.py, line 1: KeyError: 'x')",
    "def f(q, said):\n    raise ValueError('a\\nb')": "(fails.py, line 2: ValueError: a b)",
    "f = lambda q: 1": "TypeError: <lambda>() takes 1 positional argument but 2 were given)",
    "def f(q, said):\n    return f(q, said)": "RecursionError: maximum recursion depth exceeded",
    "import sys\nsys.exit(3)": "cannot be loaded (fails.py, line 2: SystemExit: 3); mend it",
    "raise OSError(28, 'full')": "cannot be loaded (fails.py, line 1: OSError: [Errno 28] full)",
    "def f(": "cannot be loaded ('(' was never closed (fails.py, line 1)); mend it",
}


@pytest.mark.parametrize("code", FAILS)
def test_a_reward_that_fails_is_one_line(code, tmp_path):
    (tmp_path / "fails.py").write_text(code, encoding="utf-8")
    with pytest.raises(ValueError) as e:
        grpo.verdict(grpo.load_reward(f"{tmp_path}/fails.py:f"), PARK, "He is at the zoo.")
    assert FAILS[code] in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["mine", "json"])
def test_a_file_of_rewards_may_hold_a_dataclass_and_hides_no_module(tmp_path, name):
    code = """
        from __future__ import annotations
        from dataclasses import dataclass
        @dataclass
        class Pay:
            right: float = 2.0
        def f(question, said):
            return Pay().right
    """
    lines = "\n".join(line[8:] for line in code.splitlines())
    (tmp_path / f"{name}.py").write_text(lines, encoding="utf-8")
    assert grpo.load_reward(f"{tmp_path}/{name}.py:f")(PARK, "x") == 2.0
    assert sys.modules["json"] is json


def test_a_large_seed_draws_too_and_a_small_one_draws_as_ever():
    g = torch.Generator().manual_seed((3 << 40) + 7)
    small = torch.rand(2, 3, dtype=torch.float64, generator=g)
    assert torch.equal(grpo.draws_of([7], 2, 3, seed=3)[0], small)
    assert all(grpo.draws_of([7], 2, 3, seed).min() >= 0 for seed in (2**24, 2**32, 2**63))


def test_a_signal_in_a_reward_is_no_failure_of_it():
    def slow(question, said):
        raise Stopped("SIGTERM")

    with pytest.raises(Stopped):
        grpo.verdict(slow, PARK, "He is at the zoo.")
    assert grpo.verdict(lambda q, said: numpy.float32(2), PARK, "x") == 2.0


# runs


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A chat model of a moment, random, and rewards that it can climb."
    folder = tmp_path_factory.mktemp("grpo")
    texts = [f"{q.prompt} {q.answer}" for q in questions(300)]
    tokenizer = with_chat(Tokenizer.train(texts, 400, "stories"))
    sizes = {"n_layer": 1, "block_size": 256, "vocab_size": padded(tokenizer.n_vocab)}
    export(loud_model(**sizes), tokenizer, folder / "chat")
    rewards = """
        def short(question, said):
            return -len(said) / 20
        def broken(question, said):
            return float("nan") if "e" in said else 0.0
        def leaves(question, said):
            raise SystemExit("bye")
        number = 3
    """
    lines = "\n".join(line[8:] for line in rewards.splitlines())
    (folder / "mine.py").write_text(lines, encoding="utf-8")
    return folder


FLAGS = {
    "questions": "stories", "conversations": 20, "choice_items": 8, "init_from": "chat",
    "reward": "mine.py:short", "total_batch": 1024, "micro_batch": 2, "group": 4,
    "answer_tokens": 8, "kl": 0.1, "lr": 3e-3, "min_lr": 1e-3, "muon_lr": 3e-3, "max_steps": 24,
    "eval_every": 12, "save_every": 4, "sample_every": 100, "device": "cpu", "dtype": "fp32",
    "compile": "off", "keep_last": 9,
}  # fmt: skip


def command(name, head=(), **other):
    given = FLAGS | {"name": name} | other
    line = [*head, *(TRAIN[1:] if head else TRAIN)]
    return [*line, *(f"--{k}={v}" for k, v in given.items() if v is not None)]


def train(place, name, head=(), code=0, **other):
    line = command(name, head, **other)
    done = warm.run(line, env=ENV, cwd=place)
    assert done.returncode == code, done.stderr[-2000:]
    return done.stdout if code == 0 else done.stderr


def curve(place, name, field):
    return RunLog(place / "runs" / name / "log.jsonl").curve("train", field)[1]


@pytest.fixture(scope="module")
def whole(place):
    return train(place, "whole")


def test_a_run_climbs_its_reward_and_logs_what_it_saw(place, whole):
    events = RunLog(place / "runs" / "whole" / "log.jsonl").read()
    lines = [e for e in events if e["event"] == "train"]
    assert [e["step"] for e in lines] == [10, 20, 24]
    for key in ("reward", "right", "kl", "length", "spread", "norm", "answers_per_s"):
        assert all(math.isfinite(e[key]) for e in lines), key
    assert lines[-1]["reward"] > lines[0]["reward"] and 0 < lines[0]["kl"] < lines[-1]["kl"]
    assert all(1 <= e["length"] <= 8 for e in lines)
    assert "step 1/24 reward -" in whole and "step 24/24 reward -" in whole
    assert "answers/s" in whole and "ln V" not in whole


def test_two_updates_with_the_same_answers_are_other_steps(place, whole):
    train(place, "twice", updates=2, max_steps=4)
    one, two = (RunLog(place / "runs" / n / "log.jsonl") for n in ("whole", "twice"))
    assert saved(place / "runs" / "twice")["name"] == "step_00000004"
    path = place / "runs" / "whole" / "checkpoints" / "step_00000004" / checkpoint.MODEL
    first = safetensors.torch.load(path.read_bytes())
    other = saved(place / "runs" / "twice")[checkpoint.MODEL]
    assert any(not torch.equal(first[n], other[n]) for n in first)
    assert one.path != two.path


def trainer(place, name, monkeypatch, say=print, **changes):
    "A run in this process."
    monkeypatch.chdir(place)
    flags = FLAGS | {"choice_items": 0, "eval_every": 99, "val_tokens": 256} | changes
    config = start.fitted(preset("tiny-grpo", **flags), "chat")
    return grpo.RewardTrainer(config, place / "runs" / name, say=say)


def test_each_update_has_the_rate_of_its_step(place, monkeypatch):
    t = trainer(place, "rates", monkeypatch, updates=3, max_steps=5, warmup_steps=4)
    seen, update = [], t.update

    def watched(finite):
        seen.append([g["lr"] / g["peak_lr"] for o in t.optimizers for g in o.param_groups])
        update(finite)

    t.update = watched
    for _ in range(2):
        t.train_step()
    assert [{*rates} for rates in seen] == [{1 / 4}] * 3 + [{2 / 4}] * 3


def test_a_profile_knows_the_parts_of_a_step(place, monkeypatch):
    said = []
    trainer(place, "watched", monkeypatch, said.append, profile=2, max_steps=8).run()
    line = next(line for line in said if line.startswith("profile: data "))
    found = {name: int(n) for name, n in re.findall(r"(\w+) (\d+)%", line)}
    assert all(found[name] > 0 for name in ("data", "forward", "backward"))
    assert 95 <= sum(found.values()) <= 105  # of the whole step, each rounded


def test_an_adapter_that_learned_by_reward_is_written(place, monkeypatch, tmp_path):
    said, lora = [], {"lora_rank": 2, "optimizer": "adamw"}
    t = trainer(place, "adapted", monkeypatch, said.append, max_steps=2, **lora)
    t.run()
    folder = t.folder / "adapter"
    assert f"adapter: {folder}" in said
    # the tables of a run have rows that no token uses
    adapted, of_run = (load_model(str(path))[0].state_dict() for path in (folder, t.folder))
    assert all(torch.allclose(p, of_run[k][: len(p)], atol=1e-6) for k, p in adapted.items())


def test_a_resumed_run_ends_with_the_very_weights(place, whole):
    train(place, "halves", max_steps=24, save_every=4, eval_every=12)
    folder = place / "runs" / "halves" / "checkpoints"
    for path in sorted(folder.iterdir())[3:]:
        for f in path.iterdir():
            f.unlink()
        path.rmdir()
    line = [*TRAIN, "--resume", "halves"]
    done = warm.run(line, env=ENV, cwd=place)
    assert done.returncode == 0 and "step 12" in done.stdout
    assert unlike(saved(place / "runs" / "whole"), saved(place / "runs" / "halves")) == []


def check_kills(place, whole, name, kills):
    rng, hit = random.Random(), 0
    for n in range(kills):
        line = command(name) if n == 0 else [*TRAIN, "--resume", name]
        p = warm.start(line, env=ENV, cwd=place, stdout=warm.PIPE)
        for text in p.stdout:
            if text.startswith(("time:", "step ", "resume:")):
                break
        time.sleep(rng.uniform(0, 0.4))
        p.send_signal(signal.SIGKILL)
        hit += p.wait() == -signal.SIGKILL
        p.stdout.close()
    assert hit, "no kill came before the end"
    line = [*TRAIN, "--resume", name]
    done = warm.run(line, env=ENV, cwd=place)
    assert done.returncode == 0, done.stderr[-2000:]
    assert unlike(saved(place / "runs" / "whole"), saved(place / "runs" / name)) == []


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_a_run_ends_with_the_very_weights(place, whole, kills):
    check_kills(place, whole, f"killed{kills}", kills)


def test_two_ranks_are_one(place, whole):
    train(place, "ranks", head=TWO_RANKS)
    for field in ("reward", "right", "kl", "length", "spread", "norm"):
        one, two = (curve(place, name, field) for name in ("whole", "ranks"))
        assert two == pytest.approx(one, rel=1e-3, abs=1e-4), field
    one, two = (saved(place / "runs" / name)[checkpoint.MODEL] for name in ("whole", "ranks"))
    assert all(torch.allclose(one[n], two[n], atol=2e-3) for n in one)


# bad input: one line, exit code 2


@pytest.mark.parametrize(
    "other, want",
    [
        ({"reward": "mine.py:broken"}, "the reward broken is nan for the answer "),
        ({"reward": "mine.py:leaves"}, "the reward leaves fails for the answer "),
        ({"reward": "good"}, "reward='good' is not known; use exact, severe, or FILE.py:NAME"),
        ({"reward": "no.py:f"}, "reward='no.py:f': there is no file no.py"),
        ({"reward": "mine.py:number"}, "reward='mine.py:number': mine.py has no function number"),
        ({"init_from": None}, "reward=mine.py:short needs a model that answers; name one that can"),
        ({"reward": "exact", "questions": None}, "reward=exact judges answers to questions; add"),
        ({"init_from": "tiny"}, "tiny has no chat template: its tokenizer"),
        (
            {"init_from": "tiny-sft"},
            "init_from='tiny-sft' is not a run in runs/, nor a folder with a model, nor any of "
            "gpt2, gpt2-medium, gpt2-large, gpt2-xl, tiny; train a run with: "
            "gpt2edu_train --preset tiny-sft",
        ),
        ({"clip": 1.5}, "clip=1.5 must be above 0 and below 1; try 0.2"),
        ({"group": 1}, "group=1 leaves an answer nothing to be compared with, so nothing is"),
    ],
    ids=lambda v: "-".join(f"{k}" for k in v) if isinstance(v, dict) else None,
)
def test_a_mistake_is_one_line(place, other, want):
    name = "bad-" + "".join(filter(str.isalnum, want))[:50]
    said = train(place, name, code=2, **other)
    (line,) = [line for line in said.splitlines() if line.startswith("gpt2edu_train: ")]
    assert line.startswith(f"gpt2edu_train: {want}") and said.strip() == line
    assert not (place / "runs" / name).exists()  # the name is free, and no run is the latest


def test_a_reward_that_fails_ends_two_ranks_and_leaves_no_run(place):
    said = train(place, "bad-ranks", head=TWO_RANKS, code=1, reward="mine.py:broken")
    assert said.count("the reward broken is nan for the answer ") == 1
    assert "rank 1 stops: rank 0 failed before it" in said
    assert not (place / "runs" / "bad-ranks").exists()


def test_a_start_that_has_changed_is_refused(place, whole):
    train(place, "moved", max_steps=4)
    config = json.loads((place / "runs" / "moved" / "config.json").read_text(encoding="utf-8"))
    assert Path(place / config["init_from"]).name == "chat"
    path = place / "chat" / "model.safetensors"
    raw = path.read_bytes()
    tensors = safetensors.torch.load(raw)
    tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"] * 1.5
    try:
        safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
        line = [*TRAIN, "--resume", "moved", "--max_steps", "8"]
        done = warm.run(line, env=ENV, cwd=place)
    finally:
        path.write_bytes(raw)
    assert done.returncode == 2
    assert "init_from=chat is not the model that the run began with" in done.stderr


def resumed(t) -> list[str]:
    "What a run says about its reward when it is resumed."
    t.close()
    said = []
    grpo.RewardTrainer(t.config, t.folder, resume=True, say=said.append).close()
    return [line for line in said if "has changed" in line]


def test_a_reward_that_has_changed_is_named_at_a_resume(place, monkeypatch):
    old = (place / "mine.py").read_text(encoding="utf-8")
    (place / "own.py").write_text(old, encoding="utf-8")
    t = trainer(place, "mended", monkeypatch, reward="own.py:short", max_steps=4)
    t.train_step()
    t.save()
    assert resumed(t) == []
    (place / "own.py").write_text(old + "\n# mended", encoding="utf-8")
    assert resumed(t) == ["resume: own.py has changed since step 1; it judges from here"]


def test_a_state_without_a_reward_still_loads(place, monkeypatch):
    (place / "own.py").write_bytes((place / "mine.py").read_bytes())
    t = trainer(place, "older", monkeypatch, reward="own.py:short", max_steps=4)
    t.reward_hash = None
    t.train_step()
    t.save()
    assert resumed(t) == []
