"""Which held-out questions are answered wrongly after SFT and after reward, and why?

Chapter 25 shows the record. About a minute on a quiet core:

    python -m benchmarks.wrong benchmarks/logs/tiny_wrong.json runs/tiny-sft runs/tiny-grpo

Fresh held-out questions, by kind; what cannot be known is split by what is asked. For questions
about things the probability of `Nobody knows.` stands beside them, where the thing is in the story
and where it is not. Then the first run takes lessons: only questions about things, half of which
the story does not have, at two rates and in two lengths of story. A call with --page prints the
record for the chapter.
"""

import argparse
import json
import random
import re
from pathlib import Path

import torch

from benchmarks.reward import ROWS, Pupil, descend, fitting, judge, optimizers, side_by_side
from benchmarks.timing import commit
from gpt2edu.evaluate.answers import answers
from gpt2edu.machine.device import describe
from gpt2edu.text.chat import encode_chat
from gpt2edu.text.grammar import Grammar
from gpt2edu.text.questions import FACTS, NOBODY_KNOWS, SHORT, WORDINGS
from gpt2edu.text.stories import World, Writer, tell
from gpt2edu.train.optim import lr_at, set_lr
from gpt2edu.train.runs import load_model

ITEMS, SEED = 2400, 107
DRAWS = 2  # answers drawn to each, so that luck moves the share little
LESSONS = {  # name: peak of AdamW, half of Muon's; sentences of a story; steps
    "things": (0.004, SHORT, 150),
    "things, higher rate": (0.01, SHORT, 150),
    "things, shortest stories": (0.006, Grammar(shortest=1, longest=2), 150),
}
PATTERNS = [
    (kind, re.compile(re.escape(w).replace(r"\{t\}", ".+").replace(r"\{p\}", ".+")))
    for kind, wordings in WORDINGS.items()
    for w in (wording.replace("{f}", "{t}") for wording in wordings)
]


def part_of(q) -> str:
    "Name the kind of a question; of one that cannot be known, also what is asked."
    if q.kind != "unknown":
        return q.kind
    return "unknown " + next(kind for kind, pattern in PATTERNS if pattern.fullmatch(q.question))


@torch.no_grad()
def withheld(pupil: Pupil, asked) -> list[float]:
    "Compute how probable `Nobody knows.` is as the answer to each."
    ids, found = pupil.tokenizer.encode(NOBODY_KNOWS), []
    for (prompt,) in (pupil.prompts([q]) for q in asked):
        logits = pupil.model(torch.tensor([prompt + ids]))[0][0, len(prompt) - 1 : -1]
        found.append(logits.log_softmax(1)[range(len(ids)), ids].sum().exp().item())
    return found


def look(pupil: Pupil, asked) -> dict:
    "Count right answers by part; compare things that are in the story with those that are not."
    pupil.model.eval()
    said, parts = answers(pupil.model, pupil.tokenizer, asked), {}
    for q, text in zip(asked, said, strict=True):
        parts.setdefault(part_of(q), []).append(text == q.answer)
    shares = {}
    for name, parts_of in (("here", ("thing",)), ("not here", ("unknown thing",))):
        values = withheld(pupil, [q for q in asked if part_of(q) in parts_of])
        mean = sum(values) / len(values)
        deviation = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
        shares[name] = [round(mean, 4), round(deviation, 4), len(values)]
    right = sum(map(sum, parts.values())) / len(asked)
    counts = {k: [sum(v), len(v)] for k, v in sorted(parts.items())}
    found = {"right": round(right, 4), "parts": counts, "withheld": shares}
    return found | {"drawn": judge(pupil, asked * DRAWS)["sampled"]}  # temperature 1


def lesson(i: int, grammar: Grammar, tokenizer):  # ids, and which of them count
    "Write a story, and two questions about a thing: as often of the story as not."
    pen, rng = Writer(f"lesson {i}"), random.Random(f"lesson {i}")
    world = World(pen, grammar)
    tell(world)
    g, story = world.grammar, pen.text
    absent = [x for x in (*g.food, *g.fragile, *g.toys) if f" {x}" not in story]
    messages = []
    for kind in rng.sample(("thing", "holder"), 2):
        facts = FACTS[kind](world) if rng.random() < 0.5 else []
        words, answer = {"t": rng.choice(absent)}, NOBODY_KNOWS
        words, answer = rng.choice(facts) if facts else (words, answer)
        question = rng.choice(WORDINGS[kind][:-1]).format(**words)
        said = question if messages else f"{story} {question}"
        messages.append({"role": "user", "content": said})
        messages.append({"role": "assistant", "content": answer})
    return encode_chat(tokenizer, messages)


def teach(pupil: Pupil, lr: float, grammar: Grammar, steps: int) -> list[float]:  # losses
    "Train on lessons alone; nothing else is asked."
    pupil.model.train()
    both, losses = optimizers(pupil.model, lr, 2 * lr), []
    for step in range(steps):
        set_lr(both, lr_at(step, 1.0, 0.05, 10, steps))
        rows = [lesson(step * ROWS + i, grammar, pupil.tokenizer) for i in range(ROWS)]
        loss = pupil.model(*side_by_side(rows))[1]
        losses.append(loss.item())
        descend(pupil, loss, both)
    return losses


def page(found: dict) -> str:
    "Print the record as a cell of the chapter."
    sft, reward = found["runs"].values()
    lines = ["ASKED = {  # part: questions, right after SFT, right after reward"]
    for part, (right, n) in sft["parts"].items():
        lines.append(f'    "{part}": ({n}, {right}, {reward["parts"][part][0]}),')
    drawn = f"DRAWN = ({sft['drawn']}, {reward['drawn']})"
    lines += ["}", f"{drawn}  # right of two answers drawn to each question, temperature 1"]

    def means(row) -> str:
        return "({}, {})".format(*(row["withheld"][k][0] for k in ("here", "not here")))

    lines += ['# mean probability of "Nobody knows." where the story has the thing, and where not']
    lines += [f'WITHHELD = {{"after SFT": {means(sft)}, "after reward": {means(reward)}}}']
    lines += [
        "LESSONS = {  # more SFT on such questions alone, half of them about things not there"
    ]
    for name, row in found["lessons"].items():
        label = name.replace("things", f"{row['steps']} steps")
        lines.append(f'    "{label}": {means(row)},')
    return "\n".join([*lines, "}"])


def main(out: Path, runs: list[str], wanted: list[str]):
    torch.set_num_threads(1)
    pupils = [Pupil(*load_model(run)) for run in runs]
    asked = fitting(ITEMS, "held-out", SEED, pupils[0].tokenizer)
    if out.exists():
        found = json.loads(out.read_text(encoding="utf-8"))
    else:
        found = {"made_by": "benchmarks/wrong.py", "items": ITEMS, "seed": SEED}
        found |= {"hardware": describe(torch.device("cpu")), "dtype": "fp32"}
        looked = {
            Path(run).name: look(pupil, asked) for run, pupil in zip(runs, pupils, strict=True)
        }
        found |= {"runs": looked, "lessons": {}}
    things = [q for q in asked if part_of(q) in ("thing", "unknown thing")]
    for name in wanted:
        lr, grammar, steps = LESSONS[name]
        pupil = pupils[0].copy()
        losses = teach(pupil, lr, grammar, steps)
        seen = look(pupil, things)["withheld"]
        ends = [round(sum(part) / len(part), 4) for part in (losses[20:40], losses[-20:])]
        found["lessons"][name] = {"lr": lr, "steps": steps, "loss": ends, "withheld": seen}
    found["commit"] = commit()
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", nargs="*", help="first a run of tiny-sft, then one of tiny-grpo")
    parser.add_argument("--page", action="store_true", help="print a record for the chapter")
    parser.add_argument("--lessons", nargs="*", default=[*LESSONS], choices=[*LESSONS])
    a = parser.parse_args()
    if a.page:
        print(page(json.loads(a.out.read_text(encoding="utf-8"))))
    else:
        main(a.out, a.runs, a.lessons)
