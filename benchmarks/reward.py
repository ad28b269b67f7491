"""What does learning by reward add to a fine-tuned model, and what would more examples add?

Chapter 25 shows the record. About four minutes on a quiet core:

    python -m benchmarks.reward benchmarks/logs/tiny_reward.json

The stored `tiny` is taught to answer, with 4 questions about each of 32 stories a step. Then every
arm begins from that model and gets equal time, in steps of its own: a step of each is timed in
turns on this machine, by processor time on one thread. Judged on 600 held-out questions, answered
with the likeliest tokens, and once more as sampled. A second call with the same file and --start
adds arms.
"""

import argparse
import copy
import json
import time
from pathlib import Path

import torch

from benchmarks.timing import commit
from gpt2edu.machine.device import describe
from gpt2edu.model.gpt import IGNORE
from gpt2edu.model.pretrained import from_pretrained
from gpt2edu.text.chat import ASSISTANT, END, USER, answer_text, encode_chat, with_chat
from gpt2edu.text.questions import NOBODY_KNOWS, questions, questions_about
from gpt2edu.train.config import padded
from gpt2edu.train.grpo import (
    REWARDS,
    advantages,
    grpo_loss,
    kl_estimate,
    log_probs,
    sample_groups,
)
from gpt2edu.train.optim import build_optimizers, lr_at, set_lr

T, ROWS, GROUP, LONGEST = 128, 32, 8, 12


def harmless(question, said: str) -> float:
    "Pay for everything that is not false."
    return float(said in (question.answer, NOBODY_KNOWS))


PAYS = REWARDS | {"harmless": harmless}


class Pupil:
    "A model with its tokenizer."

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.user, self.assistant, self.end = (tokenizer.special[t] for t in (USER, ASSISTANT, END))

    def copy(self):
        return Pupil(copy.deepcopy(self.model), self.tokenizer)

    def prompts(self, asked) -> list[list[int]]:
        ids = self.tokenizer.encode_batch([q.prompt for q in asked])
        return [[self.user, *i, self.assistant] for i in ids]

    def said(self, row: list[int]) -> str:
        ids = [i for i in row if i != IGNORE]
        text = answer_text(self.tokenizer, ids)
        return text if ids[-1] == self.end else f"{text} …"

    def answer(self, asked, draws, temperature=1.0):
        prompts, n = self.prompts(asked), self.tokenizer.n_vocab
        return prompts, sample_groups(self.model, prompts, draws, self.end, n, temperature)


def fitting(n: int, split: str, seed: int, tokenizer) -> list:
    "n questions that the context holds together with an answer."
    found, start = [], 0
    while len(found) < n:
        some = list(questions(n, split, seed, start))
        ids = tokenizer.encode_batch([q.prompt for q in some])
        found += [q for q, i in zip(some, ids, strict=True) if len(i) + 2 <= T + 1 - LONGEST]
        start += n
    return found[:n]


def judge(pupil: Pupil, asked) -> dict:
    "Right, wrong and withheld, by kind, with standard errors."
    right, wrong, said, lucky = {}, 0, [], 0
    generator = torch.Generator().manual_seed(0)
    for part in (asked[i : i + 100] for i in range(0, len(asked), 100)):
        nothing = torch.zeros(len(part), 1, LONGEST, dtype=torch.float64)
        _, answers = pupil.answer(part, nothing, 0.0)
        for q, (row,) in zip(part, answers.tolist(), strict=True):
            text = pupil.said(row)
            said.append(text)
            right.setdefault(q.kind, []).append(text == q.answer)
            wrong += text not in (q.answer, NOBODY_KNOWS)
        draws = torch.rand(nothing.shape, dtype=torch.float64, generator=generator)
        _, answers = pupil.answer(part, draws)
        pairs = zip(part, answers.tolist(), strict=True)
        lucky += sum(pupil.said(row) == q.answer for q, (row,) in pairs)
    n, ok = len(asked), sum(map(sum, right.values()))
    share = ok / n
    return {
        "right": round(share, 4),
        "error": round((share * (1 - share) / n) ** 0.5, 4),
        "sampled": round(lucky / n, 4),
        "wrong": round(wrong / n, 4),
        "nobody": round(sum(t == NOBODY_KNOWS for t in said) / n, 4),
        "kinds": {k: round(sum(v) / len(v), 4) for k, v in sorted(right.items())},
        "samples": [[q.question, q.answer, t] for q, t in zip(asked[:6], said, strict=False)],
    }


def optimizers(model, lr: float, muon: float) -> list:
    return build_optimizers(model, "muon", lr, 0.02, (0.9, 0.98), muon, dtype=torch.float32)


def descend(pupil: Pupil, loss, optimizers) -> float:
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(pupil.model.parameters(), 1.0)
    for o in optimizers:
        o.step()
        o.zero_grad()
    return float(norm)


def side_by_side(rows) -> tuple[torch.Tensor, torch.Tensor]:  # (len(rows), n) each
    "Pad conversations to one length; the targets are the tokens of the answers."
    n = min(T, max(len(r.ids) for r in rows) - 1)
    x = torch.zeros(len(rows), n, dtype=torch.int64)
    y = torch.full((len(rows), n), IGNORE)
    for k, r in enumerate(rows):
        ids, counts = torch.tensor(r.ids[: n + 1]), torch.tensor(r.answers[1 : n + 1])
        x[k, : len(ids) - 1] = ids[:-1]
        y[k, : len(ids) - 1] = torch.where(counts, ids[1:], IGNORE)
    return x, y


class Sft:
    "More examples: the true answers to 4 questions about each of 32 stories."

    def __init__(self, pupil, steps, seed, lr=4e-3, muon=8e-3, last=0.05, warm=10, without=()):
        self.pupil, self.steps, self.seed, self.step = pupil, steps, seed, 0
        self.without = without  # kinds of question
        self.optimizers, self.last, self.warm = optimizers(pupil.model, lr, muon), last, warm

    def row(self, i: int):  # ids, and which of them count
        messages = []
        for j, q in enumerate(questions_about(i, "train", 4, self.seed, self.without)):
            messages.append({"role": "user", "content": q.question if j else q.prompt})
            messages.append({"role": "assistant", "content": q.answer})
        return encode_chat(self.pupil.tokenizer, messages)

    def take(self):
        set_lr(self.optimizers, lr_at(self.step, 1.0, self.last, self.warm, self.steps))
        rows = [self.row(i) for i in range(self.step * ROWS, (self.step + 1) * ROWS)]
        loss = self.pupil.model(*side_by_side(rows))[1]
        self.step += 1
        return {"loss": loss.item(), "norm": descend(self.pupil, loss, self.optimizers)}


class Grpo:
    "Reward: 8 answers to each of 32 questions, judged."

    def __init__(self, pupil, steps, seed, reward="exact", lr=5e-4, muon=1e-3, kl=0.02, scale=True):
        self.pupil, self.steps, self.seed, self.step = pupil, steps, seed, 0
        self.optimizers, self.reward = optimizers(pupil.model, lr, muon), PAYS[reward]
        self.start, self.kl, self.scale = copy.deepcopy(pupil.model), kl, scale
        self.generator = torch.Generator().manual_seed(seed)

    def take(self):
        set_lr(self.optimizers, lr_at(self.step, 1.0, 0.1, 5, self.steps))
        asked, start = [], self.step * 2 * ROWS
        while len(asked) < ROWS:
            (q,) = questions(1, "train", self.seed + 1000, start)
            start += 1
            if len(self.pupil.tokenizer.encode(q.prompt)) + 2 <= T + 1 - LONGEST:
                asked.append(q)
        draws = torch.rand(ROWS, GROUP, LONGEST, dtype=torch.float64, generator=self.generator)
        prompts, answers = self.pupil.answer(asked, draws)
        said = [[self.pupil.said(row) for row in group] for group in answers.tolist()]
        pairs = [(q, t) for q, group in zip(asked, said, strict=True) for t in group]
        rewards = torch.tensor([self.reward(*p) for p in pairs]).view(ROWS, GROUP)
        right = sum(t == q.answer for q, t in pairs) / len(pairs)
        with torch.no_grad():
            start = log_probs(self.start, prompts, answers)
        counts = answers != IGNORE
        logp = log_probs(self.pupil.model, prompts, answers)
        old, A = logp.detach(), advantages(rewards, self.scale)
        loss = grpo_loss(logp, old, start, counts, A, kl=self.kl)
        norm = descend(self.pupil, loss, self.optimizers)
        kl = (kl_estimate(old, start) * counts).sum() / counts.sum()
        spread = (rewards.std(1) > 0).float().mean()
        self.step += 1
        figures = {"reward": rewards.mean(), "right": right, "kl": kl, "spread": spread}
        return {k: round(float(v), 4) for k, v in figures.items()} | {"norm": norm}


def race(start: Pupil, rounds: int = 3, steps: int = 4) -> dict[str, float]:
    "Milliseconds of processor time of a step, in turns; the median of the rounds. On one thread."
    arms = {"sft": Sft(start.copy(), 99, 0), "grpo": Grpo(start.copy(), 99, 0)}
    times = {name: [] for name in arms}
    for name, arm in [*arms.items()] * (rounds + 1):
        began = time.process_time()
        for _ in range(steps):
            arm.take()
        times[name].append(1000 * (time.process_time() - began) / steps)
    return {k: sorted(v[1:])[len(v[1:]) // 2] for k, v in times.items()}


def follow(arm, asked, every: int) -> dict:
    "Take all steps of an arm; judge it on the way and at the end."
    curve, judged = [], []
    for step in range(arm.steps + 1):
        if step % every == 0 or step == arm.steps:
            judged.append({"step": step} | judge(arm.pupil, asked))
            print(type(arm).__name__, judged[-1] | {"samples": 0}, curve[-1:], flush=True)
        if step < arm.steps:
            curve.append(arm.take())
    return {"steps": arm.steps, "curve": curve, "judged": judged}


def page(found: dict) -> str:
    "Print the record as a cell of the chapter."
    columns = ("right", "sampled", "wrong", "nobody")
    lines = ["RECORD = {  # arm, seed: right, as sampled, false, nobody knows"]
    rows = [("start", 0, found["start"]), *((r["arm"], r["seed"], r) for r in found["runs"])]
    for arm, seed, run in rows:
        last = run["judged"][-1]
        figures = ", ".join(f"{last[c]:.3f}" for c in columns)
        lines.append(f'    ("{arm}", {seed}): ({figures}),')
    kinds = {"start": found["start"]["judged"][-1]["kinds"]}
    kinds |= {r["arm"]: r["judged"][-1]["kinds"] for r in found["runs"] if r["seed"] == 0}
    lines += ["}", f"ORDER = {tuple(kinds['start'])}"]
    lines.append("KINDS = {  # arm of seed 0: right answers by kind, in that order")
    for arm, row in kinds.items():
        figures = ", ".join(f"{v:.2f}" for v in row.values())
        lines.append(f'    "{arm}": ({figures}),')
    steps = {r["arm"]: r["steps"] for r in found["runs"]}
    lines += ["}", f"STEPS = {steps}", f"MS = { ({k: round(v) for k, v in found['ms'].items()}) }"]
    return "\n".join(lines).replace("'", '"')


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--page", action="store_true", help="print a record for the chapter")
    parser.add_argument("--sft", type=int, default=120, help="steps of the start")
    parser.add_argument("--steps", type=int, default=40, help="steps of reward")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=["more", "exact", "severe", "harmless"])
    parser.add_argument("--items", type=int, default=600)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--start", type=Path, help="weights of the start: read, or written after --sft"
    )
    return parser.parse_args()


def main():
    a = arguments()
    if a.page:
        print(page(json.loads(a.out.read_text(encoding="utf-8"))))
        return
    torch.set_num_threads(a.threads)
    model, tokenizer = from_pretrained("tiny")
    tokenizer = with_chat(tokenizer)
    model, _ = from_pretrained("tiny", vocab_size=padded(tokenizer.n_vocab))
    pupil = Pupil(model, tokenizer)
    asked = fitting(a.items, "held-out", 0, tokenizer)
    found = {"made_by": "benchmarks/reward.py", "commit": commit(), "items": a.items}
    found |= {"hardware": describe(torch.device("cpu")), "dtype": "torch.float32", "runs": []}
    if a.start and a.start.exists():
        model.load_state_dict(torch.load(a.start))
    else:
        found["start"] = follow(Sft(pupil, a.sft, 0), asked, a.sft)
        if a.start:
            torch.save(model.state_dict(), a.start)
    if a.out.exists():
        found = json.loads(a.out.read_text(encoding="utf-8"))
    else:
        found["ms"] = race(pupil)
    print(found["ms"], flush=True)
    ratio = found["ms"]["grpo"] / found["ms"]["sft"]
    for name in a.arms:
        for seed in a.seeds if name in ("more", "exact", "severe") else a.seeds[:1]:
            if name == "more":
                arm = Sft(pupil.copy(), round(a.steps * ratio), seed + 1)
            elif name == "unscaled":
                arm = Grpo(pupil.copy(), a.steps, seed, "exact", scale=False)
            elif name == "free":
                arm = Grpo(pupil.copy(), a.steps, seed, "exact", kl=0.0)
            else:
                arm = Grpo(pupil.copy(), a.steps, seed, name)
            every = 20 if isinstance(arm, Grpo) else arm.steps
            found["runs"].append({"arm": name, "seed": seed} | follow(arm, asked, every))
            a.out.write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
