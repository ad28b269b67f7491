"""Which held-out questions are answered wrongly after SFT and after reward, and why?

Chapter 25 shows the record. About twelve minutes on a quiet core:

    python -m benchmarks.wrong benchmarks/logs/tiny_wrong.json runs/tiny-sft runs/tiny-grpo

Fresh held-out questions, by kind; what cannot be known is split by what is asked. For questions
about things the probability of `Nobody knows.` stands beside them, where the thing is in the story
and where it is not. Then the first run takes lessons: only questions about things, half of which
the story does not have, and once more half such rows and half ordinary ones. A call with --page
prints the record for the chapter.
"""

import argparse
import json
import random
import re
from pathlib import Path

import torch

from benchmarks.reward import Pupil, Sft, fitting, judge
from benchmarks.timing import commit
from gpt2edu.evaluate.answers import answers
from gpt2edu.machine.device import describe
from gpt2edu.text.chat import encode_chat
from gpt2edu.text.questions import FACTS, NOBODY_KNOWS, SHORT, WORDINGS
from gpt2edu.text.stories import World, Writer, tell
from gpt2edu.train.runs import load_model

ITEMS, SEED = 2400, 107
DRAWS = 2  # answers drawn to each, so that luck moves the share little
LESSONS, LOOKS = 3000, 6  # steps, looks on the way
SHARES = {"alone": 1, "half": 2}  # of how many rows one is a lesson
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


def compare(pupil: Pupil, asked) -> dict[str, list[float]]:  # mean, deviation, how many
    "Compare `withheld` for things that are in the story with those that are not."
    shares = {}
    for name, part in (("here", "thing"), ("not here", "unknown thing")):
        values = withheld(pupil, [q for q in asked if part_of(q) == part])
        mean = sum(values) / len(values)
        deviation = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
        shares[name] = [round(mean, 4), round(deviation, 4), len(values)]
    return shares


def look(pupil: Pupil, asked) -> dict:
    "Count right answers by part, and compare."
    pupil.model.eval()
    said, parts = answers(pupil.model, pupil.tokenizer, asked), {}
    for q, text in zip(asked, said, strict=True):
        parts.setdefault(part_of(q), []).append(text == q.answer)
    right = sum(map(sum, parts.values())) / len(asked)
    counts = {k: [sum(v), len(v)] for k, v in sorted(parts.items())}
    found = {"right": round(right, 4), "parts": counts, "withheld": compare(pupil, asked)}
    return found | {"drawn": judge(pupil, asked * DRAWS)["sampled"]}  # temperature 1


class Lessons(Sft):
    "Two questions about a thing of a story, as often about one that the story does not have."

    def __init__(self, pupil, share: int):
        super().__init__(pupil, LESSONS, SEED)
        self.share = share

    def row(self, i: int):
        if i % self.share:
            return super().row(i)
        pen, rng = Writer(f"lesson {i}"), random.Random(f"lesson {i}")
        world = World(pen, SHORT)
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
        return encode_chat(self.pupil.tokenizer, messages)


def teach(pupil: Pupil, share: int, asked) -> dict:
    "Give lessons, and look on the way at how probable `Nobody knows.` is."
    lessons, path = Lessons(pupil, share), {}
    for step in range(1, LESSONS + 1):
        lessons.take()
        if step % (LESSONS // LOOKS) == 0:
            path[step] = [shares[0] for shares in compare(pupil, asked).values()]
    return {"path": path} | look(pupil, asked)


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
    lines += ["LESSONS = {  # rows that are lessons: at each step the same"]
    for name, row in found["lessons"].items():
        lines.append(f'    "{name}": {{')
        lines += [
            f"        {step}: ({here}, {gone})," for step, (here, gone) in row["path"].items()
        ]
        lines.append("    },")
    ends = {name: row["right"] for name, row in found["lessons"].items()}
    ends = f"ENDS = {json.dumps(ends)}  # right of all questions after the lessons"
    return "\n".join([*lines, "}", ends])


def main(out: Path, runs: list[str]):
    torch.set_num_threads(1)
    pupils = [Pupil(*load_model(run)) for run in runs]
    asked = fitting(ITEMS, "held-out", SEED, pupils[0].tokenizer)
    names = (Path(run).name for run in runs)
    looked = {name: look(pupil, asked) for name, pupil in zip(names, pupils, strict=True)}
    found = {"made_by": "benchmarks/wrong.py", "items": ITEMS, "seed": SEED}
    found |= {"hardware": describe(torch.device("cpu")), "dtype": "fp32", "runs": looked}
    found["lessons"] = {name: teach(pupils[0].copy(), n, asked) for name, n in SHARES.items()}
    found["commit"] = commit()
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", nargs="*", help="first a run of tiny-sft, then one of tiny-grpo")
    parser.add_argument("--page", action="store_true", help="print a record for the chapter")
    a = parser.parse_args()
    if a.page:
        print(page(json.loads(a.out.read_text(encoding="utf-8"))))
    else:
        main(a.out, a.runs)
