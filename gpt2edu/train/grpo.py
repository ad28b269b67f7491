"""Let a model answer each question many times, and make the better answers likelier."""

# Made by tools/book.py from ../../book/tough/ch19f_grpo.md: edit that, then `make book`.

# %% auto #0
__all__ = ['REWARDS', 'MOST_REWARD', 'FAR', 'Rows', 'lay_prompts', 'sample_groups', 'log_probs',
           'advantages', 'kl_estimate', 'grpo_loss', 'exact', 'severe', 'where_it_failed',
           'settings_kept', 'load_reward', 'verdict', 'question_at', 'draws_of', 'Round', 'hash_of',
           'reward_file', 'draw_reward', 'find_reward', 'RewardTrainer']

# %% ../../nbs/tough/ch19f_grpo.ipynb #7b8a7989
import hashlib
import importlib.util
import math
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpt2edu.evaluate.tasks import TASKS
from gpt2edu.machine import device
from gpt2edu.machine import distributed as dist
from gpt2edu.machine.atomic import write_atomically
from gpt2edu.machine.progress import duration
from gpt2edu.model.attention import KVCache
from gpt2edu.model.generate import next_token_probs, pick
from gpt2edu.model.gpt import IGNORE
from gpt2edu.text.chat import END, answer_text, need_chat, prompt_ids
from gpt2edu.text.questions import (
    GRAMMAR,
    NOBODY_KNOWS,
    Question,
    hold_out,
    questions,
    read_questions,
)
from gpt2edu.text.tokenizer import get_tokenizer
from gpt2edu.train.config import TrainConfig
from gpt2edu.train.interrupts import Stop
from gpt2edu.train.log import RunLog, blank_figure, picture
from gpt2edu.text.files import typed
from gpt2edu.train.runs import elsewhere
from gpt2edu.train.start import load_start, tokenizer_name
from gpt2edu.train.trainer import Pace, Trainer

# %% ../../nbs/tough/ch19f_grpo.ipynb #e0134ea1
class Rows(NamedTuple):
    "Prompts, each with room for G answers of L tokens behind it; T = S + G * L."

    ids: Tensor  # (P, S) the prompts without their last tokens, padded on the right
    last: Tensor  # (P,) the last tokens
    positions: Tensor  # (P, T) place of each token in its own text
    mask: Tensor  # (P, 1, T, T) bool, who sees whom


def lay_prompts(
    prompts: list[list[int]],  # P lists of ids, two at least
    G: int,  # answers to each
    L: int,  # tokens of an answer, at most
    device: torch.device | str = "cpu",
) -> Rows:
    "Lay out prompts so that the answers to each can share its row."
    lengths = torch.tensor([len(p) - 1 for p in prompts])  # (P,)
    P, S = len(prompts), int(lengths.max())
    ids = torch.zeros(P, S, dtype=torch.int64)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt) - 1] = torch.tensor(prompt[:-1])
    places = torch.arange(S + G * L)  # (T,)
    answer = torch.where(places < S, -1, (places - S) % G)  # (T,) which one; -1: the prompt
    past = places[:, None] >= places  # (T, T)
    related = (answer[:, None] == answer) | (answer == -1)  # (T, T) the same answer, or the prompt
    filled = (places >= S) | (places < lengths[:, None])  # (P, T) no padding
    # padding sees itself: a row of the softmax must not be empty
    mask = (past & related) & filled[:, None] | torch.eye(len(places), dtype=torch.bool)
    behind = lengths[:, None] + torch.arange(L).repeat_interleave(G)  # (P, G * L)
    positions = torch.cat([torch.arange(S).expand(P, S), behind], 1)  # (P, T)
    last = torch.tensor([p[-1] for p in prompts])
    return Rows(*(t.to(device) for t in (ids, last, positions, mask[:, None])))

# %% ../../nbs/tough/ch19f_grpo.ipynb #76b36f9c
@torch.no_grad()
def sample_groups(
    model,  # a GPT: not compiled, not wrapped
    prompts: list[list[int]],  # P lists of ids
    draws: Tensor,  # (P, G, L) float64 in [0, 1)
    end: int,  # id that ends an answer; it is the answer's last
    n_vocab: int,  # ids that the tokenizer knows
    temperature: float = 1.0,  # 0 is greedy; learning needs 1: the model's own odds
) -> Tensor:  # (P, G, l) ids, l <= L the longest answer; IGNORE behind the end of the others
    "Answer each prompt G times."
    P, G, L = draws.shape
    L = min(L, model.config.block_size + 1 - max(map(len, prompts)))
    rows = lay_prompts(prompts, G, L, model.transformer.wte.weight.device)
    S = rows.ids.shape[1]
    caches = [KVCache(S + G * L) for _ in model.transformer.h]
    model(rows.ids, caches=caches, last_only=True)
    new = rows.last[:, None].expand(P, G)
    alive = torch.ones(P, G, dtype=torch.bool)
    answers = []
    for i in range(L):
        at, to = S + i * G, S + (i + 1) * G
        where = {"positions": rows.positions[:, at:to], "mask": rows.mask[:, :, at:to, :to]}
        logits, _ = model(new, caches=caches, **where)  # (P, G, V)
        probs = next_token_probs(logits.flatten(0, 1), temperature, n_vocab=n_vocab)
        ids = pick(probs, draws[:, :, i].reshape(-1, 1)).view(P, G)
        answers.append(torch.where(alive, ids, IGNORE))
        alive &= ids != end
        if not alive.any():
            break
        new = ids.to(rows.ids.device)
    return torch.stack(answers, 2)

# %% ../../nbs/tough/ch19f_grpo.ipynb #cbfcc7b7
def log_probs(
    model,  # a GPT, or one that is compiled or wrapped
    prompts: list[list[int]],  # P lists of ids
    answers: Tensor,  # (P, G, L) ids; IGNORE behind the end
    device: torch.device | str = "cpu",  # of the model
) -> Tensor:  # (P, G, L) nats, 0 behind the end
    "Compute how likely each token of each answer is."
    P, G, L = answers.shape
    answers = answers.to(device)
    rows = lay_prompts(prompts, G, L, device)
    first = rows.last[:, None, None].expand(P, G, 1)
    inputs = torch.cat([first, answers[:, :, :-1].clamp(min=0)], 2)  # (P, G, L)
    woven = answers.transpose(1, 2)  # (P, L, G)
    x = torch.cat([rows.ids, inputs.transpose(1, 2).flatten(1)], 1)  # (P, T)
    y = torch.cat([torch.full_like(rows.ids, IGNORE), woven.flatten(1)], 1)  # (P, T)
    _, losses = model(x, y, positions=rows.positions, mask=rows.mask, each=True)
    found = losses.new_zeros(P, L, G).masked_scatter(woven != IGNORE, -losses)
    return found.transpose(1, 2)  # (P, G, L)

# %% ../../nbs/tough/ch19f_grpo.ipynb #d72a6c4b
def advantages(
    rewards: Tensor,  # (P, G)
    scale: bool = True,  # whether to divide by the group's standard deviation
) -> Tensor:  # (P, G) mean 0 in each group; all 0 where all rewards are equal
    "Compare each answer with its group."
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, correction=0, keepdim=True) + 1e-4) if scale else centred

# %% ../../nbs/tough/ch19f_grpo.ipynb #65d0b940
def kl_estimate(
    logp: Tensor,  # of tokens that the model itself has sampled, nats
    start: Tensor,  # of the same tokens, by the model of the start
) -> Tensor:  # of the same shape, 0 or more
    "Estimate KL(model, start) at each token: r - 1 - ln r, with r = start's odds over the model's."
    gap = start - logp
    return gap.exp() - 1 - gap

# %% ../../nbs/tough/ch19f_grpo.ipynb #0d074bf5
def grpo_loss(
    logp: Tensor,  # (P, G, L) by the model that learns
    old: Tensor,  # (P, G, L) by the model that has sampled, a constant
    start: Tensor,  # (P, G, L) by the model of the start
    counts: Tensor,  # (P, G, L) bool, which tokens there are
    advantage: Tensor,  # (P, G)
    clip: float = 0.2,  # a token's odds count as changed by this share at most
    kl: float = 0.02,  # weight of the distance to the start
) -> Tensor:  # ()
    "Make answers with a positive advantage likelier, within limits."
    ratio = (logp - old).exp()
    A = advantage[:, :, None]  # (P, G, 1)
    gain = torch.minimum(ratio * A, ratio.clamp(1 - clip, 1 + clip) * A)
    each = (kl * kl_estimate(logp, start) - gain) * counts
    return (each.sum(2) / counts.sum(2)).mean()

# %% ../../nbs/tough/ch19f_grpo.ipynb #116bc452
def exact(
    question: Question,
    said: str,  # by the model
) -> float:
    "Pay for the true answer only."
    return float(said == question.answer)


def severe(question: Question, said: str) -> float:
    "Pay for the true answer, take as much for a wrong one; to say that nobody knows is free."
    return exact(question, said) or 0.0 - float(said != NOBODY_KNOWS)


REWARDS = {"exact": exact, "severe": severe}

# %% ../../nbs/tough/ch19f_grpo.ipynb #5b585ed7
def where_it_failed(e: BaseException) -> str:  # mine.py, line 3: KeyError: 'x'
    "Name the innermost line of a failure, and what it says, in one short line."
    frame = traceback.extract_tb(e.__traceback__)[-1]
    said = " ".join(str(e).split())[:100]
    what = f"{type(e).__name__}: {said}" if said else type(e).__name__
    return f"{Path(frame.filename).name}, line {frame.lineno}: {what}"


@contextmanager
def settings_kept():
    "Undo what somebody's code sets for the whole process: gradients, precision, folder."
    gradients, dtype, folder = torch.is_grad_enabled(), torch.get_default_dtype(), os.getcwd()
    try:
        yield
    finally:
        torch.set_grad_enabled(gradients)
        torch.set_default_dtype(dtype)
        os.chdir(folder)


def load_reward(
    name: str,  # a key of `REWARDS`, or FILE.py:NAME
) -> Callable[[Question, str], float]:
    "Find a reward. ValueError, FileNotFoundError: one line."
    if name in REWARDS:
        return REWARDS[name]
    file, _, attribute = name.rpartition(":")
    if not (file.endswith(".py") and attribute.isidentifier()):
        known = ", ".join(REWARDS)
        raise ValueError(f"reward={name!r} is not known; use {known}, or FILE.py:NAME")
    if not Path(file).is_file():
        raise FileNotFoundError(f"reward={name!r}: there is no file {file}")
    # no name of a module that somebody imports
    spec = importlib.util.spec_from_file_location(f"reward_{Path(file).stem}", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its own module up there
    try:
        with settings_kept():
            spec.loader.exec_module(module)
    except SyntaxError as e:
        raise ValueError(f"reward={name!r}: {file} cannot be loaded ({e}); mend it") from None
    except (Exception, SystemExit) as e:  # noqa: BLE001  somebody's code may raise anything
        why = where_it_failed(e)
        raise ValueError(f"reward={name!r}: {file} cannot be loaded ({why}); mend it") from None
    if not callable(found := getattr(module, attribute, None)):
        raise ValueError(f"reward={name!r}: {file} has no function {attribute}")
    return found

# %% ../../nbs/tough/ch19f_grpo.ipynb #18a6cb41
MOST_REWARD = 1e9  # in size: in fp32, the square of a much larger one is infinite


def verdict(
    reward: Callable,
    question: Question,
    said: str,
) -> float:
    "Judge an answer. ValueError, one line, for a verdict that is not a finite number."
    name = getattr(reward, "__name__", "reward")
    about = f"for the answer {said[:60]!r} to {question.question[:60]!r}"
    try:
        with settings_kept():
            value = reward(question, said)
    except (Exception, SystemExit) as e:  # noqa: BLE001  somebody's code may raise anything
        why = where_it_failed(e)
        raise ValueError(f"the reward {name} fails {about} ({why}); mend the function") from None
    value = bool(value) if isinstance(value, np.bool_) else value
    real = isinstance(value, Real)  # NumPy's numbers are real too
    if real and -MOST_REWARD <= value <= MOST_REWARD:
        return float(value)
    finite = real and abs(value) < math.inf
    got = "too large" if finite else f"{value!r}" if real else f"of type {type(value).__name__}"
    most = f", at most {MOST_REWARD:.0e} in size" if finite else ""
    raise ValueError(
        f"the reward {name} is {got} {about}, expected a finite number{most}; mend the function"
    )

# %% ../../nbs/tough/ch19f_grpo.ipynb #60387a32
FAR = 10**9  # questions; no run asks as many


def question_at(
    place: int,  # number of the question in the run
    fits: Callable[[Question], bool],  # whether the context holds question and answer
    own: list[Question],  # of a file; []: the grammar's, new ones for ever
    seed: int = 0,
) -> Question:
    "Find a question to train with; one that is too long is replaced."
    for i in range(1000):
        new = questions(1, "train", seed, place + i * FAR)
        q = own[(place + i) % len(own)] if own else next(new)
        if fits(q):
            return q
    raise ValueError("no question of a thousand fits the context; lower --answer_tokens")


def draws_of(
    places: list[int],  # numbers of questions
    G: int,
    L: int,
    seed: int,
) -> Tensor:  # (P, G, L) float64
    "Draw the random numbers of the answers, for each question from its own generator."
    seeds = [((seed << 40) + place) % 2**64 for place in places]  # torch takes 64 bits
    generators = [torch.Generator().manual_seed(n) for n in seeds]
    return torch.stack([torch.rand(G, L, dtype=torch.float64, generator=g) for g in generators])


@dataclass
class Round:
    "A micro-batch of questions with judged answers."

    prompts: list[list[int]]  # P
    answers: Tensor  # (P, G, L) ids, IGNORE behind the end
    rewards: Tensor  # (P, G)
    right: float  # share of answers that are the true ones
    start: Tensor  # (P, G, L) log-probabilities by the model of the start
    old: Tensor | None = None  # the same by the model that answered; filled by the first update

# %% ../../nbs/tough/ch19f_grpo.ipynb #5a039b3a
def hash_of(
    model,  # a GPT, on the CPU
) -> str:  # SHA-256, hex
    "Hash the weights of a model."
    digest = hashlib.sha256()
    for p in model.parameters():
        digest.update(p.detach().numpy().tobytes())
    return digest.hexdigest()


def reward_file(
    name: str,  # as for `load_reward`
) -> Path | None:  # None: it is a word of `REWARDS`
    "Name the file that holds a reward."
    return None if name in REWARDS else Path(name.rpartition(":")[0])

# %% ../../nbs/tough/ch19f_grpo.ipynb #91c8b2de
def draw_reward(log: RunLog, name: str):  # a matplotlib Figure
    "Draw the mean reward and the distance to the start."
    ax = (fig := blank_figure()).add_subplot()
    ax.plot(*log.curve("train", "reward"), color="#0b84c6", label="mean reward")
    ax.plot(*log.curve("train", "right"), ":", color="#0b84c6", label="share of right answers")
    far = ax.twinx()
    far.plot(*log.curve("train", "kl"), color="#d55e00", label="KL to the start (right axis)")
    far.set(ylabel="nats/token", ylim=(0, None))
    ax.set(xlabel="step", ylabel="reward of an answer")
    ax.set_title(f"Reward of {name}"[:70], parse_math=False)
    fig.legend(loc="outside lower center", ncols=3, frameon=False)
    return fig

# %% ../../nbs/tough/ch19f_grpo.ipynb #770469e2
def find_reward(c: TrainConfig) -> Callable:  # of a question and an answer
    "Find a run's reward, for a start that can chat. ValueError, FileNotFoundError: one line."
    if not c.init_from:
        fix = "name one that can chat with --init_from, for example a run of --preset tiny-sft"
        raise ValueError(f"reward={c.reward} needs a model that answers; {fix}")
    own = tokenizer_name(c.init_from, c.out_dir)
    need_chat(get_tokenizer(own or c.tokenizer), c.init_from, elsewhere(c.out_dir))
    return load_reward(c.reward)

# %% ../../nbs/tough/ch19f_grpo.ipynb #8b5e7271
class RewardTrainer(Trainer):
    "A run that learns from verdicts on its own answers: `RewardTrainer(config, folder).run()`."

    def build(self, resume: bool):
        "Build the parts of a `Trainer`, find the reward and keep a copy of the start."
        c = self.config
        self.reward, self.own = find_reward(c), []
        file = reward_file(c.reward)
        self.reward_hash = file and hashlib.sha256(file.read_bytes()).hexdigest()
        if c.questions != GRAMMAR:
            self.own = hold_out(read_questions(c.questions), c.questions)[0]
        self.seen = []  # since the last line of the log: the figures of each step
        self.told = {}  # the figures of that line
        self.first_model = None  # of the start; its weights stay as they are
        super().build(resume)
        self.load_first()

    def open(self):
        "Begin the run; before there is a folder of it, try the reward on a micro-batch."
        if not self.step:
            self.load_first()
            self.ask(self.position)
        super().open()

    def load_first(self):
        "Load the model of the start, once."
        if self.first_model is None:
            self.first_model = load_start(self.config, self.tokenizer).requires_grad_(False)
            self.first_hash = hash_of(self.first_model)
            self.first_model.to(self.device)

    def state(self) -> dict:
        "Gather what a `Trainer` needs, and the hashes of the start and of the reward's file."
        own = {"reward": self.reward_hash} if self.reward_hash else {}
        return super().state() | {"start": self.first_hash} | own

    def check_saved(self, path: Path, state: dict):
        "Refuse a start that has changed since the run began, ValueError; name a changed reward."
        self.load_first()
        if (was := state.get("start")) != self.first_hash:
            name = self.config.init_from
            raise ValueError(
                f"{path}: init_from={name} is not the model that the run began with "
                f"({self.first_hash[:12]}, expected {str(was)[:12]}); restore it, "
                "or begin another run"
            )
        if state.get("reward", self.reward_hash) != self.reward_hash:  # older runs have none
            file = reward_file(self.config.reward)
            self.say(f"resume: {file} has changed since step {state['step']}; it judges from here")

    def fits(self, q: Question) -> bool:
        "Whether the context holds a question and the longest answer."
        room = self.config.block_size + 1 - self.config.answer_tokens
        return len(self.prompt(q)) <= room

    def prompt(self, q: Question) -> list[int]:
        return prompt_ids(self.tokenizer, [{"role": "user", "content": q.prompt}])

    def said(self, ids: list[int]) -> str:
        "Turn an answer into text; one that did not end has ` …` behind it."
        ids = [i for i in ids if i != IGNORE]
        text = answer_text(self.tokenizer, ids)
        return text if ids[-1] == self.tokenizer.special[END] else f"{text} …"

    def answer(self, prompts: list[list[int]], draws: Tensor, temperature: float = 1.0) -> Tensor:
        "Answer prompts with the model as it is now."
        t = self.tokenizer
        with device.autocast(self.device, self.dtype):
            end = t.special[END]
            return sample_groups(self.model, prompts, draws, end, t.n_vocab, temperature)

    def ask(self, first: int) -> Round:  # number of the first question
        "Ask a micro-batch of questions, and judge the answers."
        c = self.config
        places = list(range(first, first + self.B))
        asked = [question_at(place, self.fits, self.own, c.seed) for place in places]
        prompts = [self.prompt(q) for q in asked]
        answers = self.answer(prompts, draws_of(places, c.group, c.answer_tokens, c.seed))
        said = [[self.said(ids) for ids in group] for group in answers.tolist()]
        pairs = [(q, text) for q, group in zip(asked, said, strict=True) for text in group]
        rewards = torch.tensor([verdict(self.reward, *pair) for pair in pairs]).view(-1, c.group)
        right = sum(exact(*pair) for pair in pairs) / len(pairs)
        with torch.no_grad(), device.autocast(self.device, self.dtype):
            start = log_probs(self.first_model, prompts, answers, self.device)
        return Round(prompts, answers, rewards, right, start)

    def train_step(self, stop: Stop | None = None) -> tuple[float, float]:
        "Ask and judge; then descend, once or more with the same answers."
        here = self.position + self.ranks.rank * self.n_micro * self.B
        self.set_rates()
        with self.part("data"):
            self.rounds = [self.ask(here + i * self.B) for i in range(self.n_micro)]
        for _ in range(self.config.updates - 1):
            self.descend(stop)
        loss, norm = super().train_step(stop)
        self.note()
        return loss, norm

    def accumulate(self) -> Tensor:  # () mean loss of this rank's micro-batches
        "Add up the gradients of the micro-batches."
        c, total = self.config, torch.zeros((), device=self.device)
        for i, r in enumerate(self.rounds):
            counts = (r.answers != IGNORE).to(self.device)
            better = advantages(r.rewards).to(self.device)
            with dist.sync_if(self.forward, i == self.n_micro - 1):
                cast = device.autocast(self.device, self.dtype, cache=not c.recompute)
                with self.part("forward"), cast:
                    logp = log_probs(self.forward, r.prompts, r.answers, self.device)
                r.old = logp.detach() if r.old is None else r.old
                part = grpo_loss(logp, r.old, r.start, counts, better, c.clip, c.kl) / self.n_micro
                with self.part("backward"):
                    self.scaler.scale(part).backward()
            total += part.detach()
        return total

    def note(self):
        "Keep the figures of a step, over all ranks, until the next line of the log."
        rows = []
        for r in self.rounds:
            counts = r.answers != IGNORE
            kl = (kl_estimate(r.old, r.start).cpu() * counts).sum() / counts.sum()
            spread = (r.rewards.std(1, correction=0) > 0).float().mean()
            length = counts.sum(2).float().mean()
            rows.append([r.rewards.mean(), r.right, kl, length, spread])
        mean = dist.mean_over_ranks(torch.tensor(rows).mean(0).to(self.device)).tolist()
        names = ("reward", "right", "kl", "length", "spread")
        self.seen.append(dict(zip(names, mean, strict=True)))

    def answers_per_second(self, rate: float) -> float:  # rate: tokens/s as the loop counts them
        return rate / self.config.block_size * self.config.group

    def write_line(self, loss: float, norm: float, rate: float):
        "Write a line of the log, and tell the tracker."
        values = {k: sum(s[k] for s in self.seen) / len(self.seen) for k in self.seen[0]}
        self.seen, self.told = [], values
        if self.ranks.is_main:
            lr = self.optimizers[-1].param_groups[0]["lr"]
            values |= {"loss": loss, "norm": norm, "lr": lr}
            values["answers_per_s"] = self.answers_per_second(rate)
            self.log.write("train", step=self.step, **values)
            self.tell(self.step, {f"train/{k}": v for k, v in values.items()})

    def first_line(self, loss: float) -> str:
        "Say what the first step saw."
        s = self.seen[-1]
        return f"step 1/{self.max_steps} reward {s['reward']:.3f} right {s['right']:.3f}"

    def progress(self, loss: float, found: dict, rate: float, pace: Pace) -> str:
        "Put what a validation found into a line."
        s = self.told or self.seen[-1]
        reward = f"reward {s['reward']:.3f} right {s['right']:.3f} kl {s['kl']:.3f} "
        figures = [task.figure for task in TASKS.values() if task.figure in found]
        more = "".join(f"{k} {found[k]:.3f} " for k in reversed(figures))
        left = duration(pace.left(self.step, self.max_steps))
        answers = f"answers/s {self.answers_per_second(rate):,.0f}"
        return f"step {self.step}/{self.max_steps} {reward}{more}{answers} left {left}"

    def finish(self) -> dict:  # the last event
        "Judge the trained model and write it down."
        if self.judged != self.step or not math.isfinite(self.val_loss):
            self.judge()
        self.saved()
        c = self.config
        n = self.step * (c.total_batch // c.block_size)
        done = {"val_loss": self.val_loss, "seconds": round(self.elapsed(), 1)}
        done |= {"questions": n, "answers": n * c.group}
        if not self.ranks.is_main:
            return done
        curves = {k: self.log.curve("train", k)[1] for k in ("reward", "right", "kl")}
        done |= {k: values[-1] for k, values in curves.items() if values}
        last = next((e for e in reversed(self.log.read()) if e["event"] == "val"), {})
        for task in reversed(TASKS.values()):
            done |= {k: last.get(k) for k in (task.figure, f"{task.figure}_error")}
        png = picture(draw_reward, self.log, self.folder.name)
        write_atomically(self.folder / "loss.png", png)
        samples = self.samples(3, c.answer_tokens)
        self.keep_adapter()
        self.log.write("done", **done)
        return done | {"samples": samples}

    def report(self, done: dict, say: Callable):
        "Print the figures of the finished run, and what to type next."
        rows = [(k, f"{done[k]:.3f}") for k in ("reward", "right", "kl") if k in done]
        asked = [task for task in TASKS.values() if done.get(task.figure) is not None]
        rows += [(task.title, task.row(done, self.config)) for task in reversed(asked)]
        rows.append(("answers, seconds", f"{done['answers']:,} in {done['seconds']:.0f} s"))
        rows.append(("reward curve", str(self.folder / "loss.png")))
        for text in done["samples"]:
            say(f"\n{text}")
        say("")
        for name, value in rows:
            say(f"{name:18} {value}")
        say(f"\nnext: gpt2edu_chat --run {typed(self.folder)}")
        say(f"next: gpt2edu_train --resume {typed(self.folder)} --max_steps {2 * self.step}")
