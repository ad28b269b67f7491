"""What does a model answer to a kind of question that it has never met?

Chapter 24 shows the record. Three seeds of two arms, some minutes on one quiet core:

    python -m benchmarks.kinds benchmarks/logs/tiny_kinds.json

The stored `tiny` is taught to answer as in benchmarks/reward.py, once by all kinds of question and
once without `holder` and `count`; then nothing is asked in their words either that nobody can know.
Both are judged by the same held-out questions, as many of each kind, answered with the likeliest
tokens. A call with --page prints the record for the chapter.
"""

import argparse
import json
import re
import time
from collections import Counter
from itertools import count
from pathlib import Path

import torch

from benchmarks.reward import LONGEST, Pupil, Sft, T
from benchmarks.timing import commit
from benchmarks.wrong import part_of
from gpt2edu.evaluate.answers import answers
from gpt2edu.machine.device import describe
from gpt2edu.model.pretrained import from_pretrained
from gpt2edu.text.chat import with_chat
from gpt2edu.text.questions import FACTS, NOBODY_KNOWS, questions_about
from gpt2edu.train.config import padded

ARMS = {"all": (), "without": ("holder", "count")}
SEEDS = (0, 1, 2)
STEPS, EACH, ASKED_SEED = 300, 100, 24  # EACH: questions of a part
PARTS = (*FACTS, *(f"unknown {kind}" for kind in FACTS))
FORMS = {  # what an answer looks like, whether it is true or not; the first that fits
    "nobody knows": re.escape(NOBODY_KNOWS),
    "nobody has it": r"Nobody has it\.",
    "with somebody": r"It is with [A-Z]\w+\.",
    "a place": r"It is \w+ the [\w ]+\.",
    "company": r"(He|She) is (alone|with [A-Z][\w ]+)\.",
    "a person's place": r"(He|She) is \w+ the [\w ]+\.",
    "a number": r"(He|She) has \w+ \w+\.",
    "a giver": r"It was [A-Z]\w+\.",
    "something else": r".*",
}


def form_of(said: str) -> str:
    return next(name for name, pattern in FORMS.items() if re.fullmatch(pattern, said, re.S))


def exam(tokenizer) -> dict:  # part: questions that the context holds with an answer
    "Collect EACH held-out questions of every part."
    found = {part: [] for part in PARTS}
    for i in count():
        for q in questions_about(i, "held-out", 1, ASKED_SEED):
            part, n = part_of(q), len(tokenizer.encode(q.prompt))
            if len(found[part]) < EACH and n + 2 <= T + 1 - LONGEST:
                found[part].append(q)
        if all(len(asked) == EACH for asked in found.values()):
            return found


def judge(pupil: Pupil, asked: dict) -> dict:  # part: right, and the forms
    "Count right answers by part, and say what the answers look like."
    pupil.model.eval()
    flat = [q for part in asked.values() for q in part]
    said = dict(zip(flat, answers(pupil.model, pupil.tokenizer, flat), strict=True))
    pupil.model.train()
    found = {}
    for part, qs in asked.items():
        forms = Counter(form_of(said[q]) for q in qs)
        right = sum(said[q] == q.answer for q in qs)
        found[part] = {"right": right, "n": len(qs), "forms": dict(forms.most_common())}
        found[part]["samples"] = [[q.question, q.answer, said[q]] for q in qs[:4]]
    return found


def run(start: Pupil, asked: dict, arm: str, seed: int) -> dict:
    "Train one arm, and judge it."
    pupil, losses, began = start.copy(), [], time.perf_counter()
    sft = Sft(pupil, STEPS, seed, without=ARMS[arm])
    for _ in range(STEPS):
        losses.append(sft.take()["loss"])
    seconds = round(time.perf_counter() - began, 1)
    loss = round(sum(losses[-20:]) / 20, 4)
    found = {"arm": arm, "seed": seed, "seconds": seconds, "loss": loss}
    return found | {"parts": judge(pupil, asked)}


def page(found: dict) -> str:
    "Print the record as a cell of the chapter."

    def each(arm, part):
        return [r["parts"][part] for r in found["runs"] if r["arm"] == arm]

    about = f"{found['hardware']}, {found['dtype']}, commit {found['commit']}"
    lines = [f"# {about}", f"# of {EACH} questions of each part, seeds 0, 1, 2"]
    lines += ["RIGHT = {  # part: right after all kinds, right without two of them"]
    for part in PARTS:
        both = ([row["right"] for row in each(arm, part)] for arm in ARMS)
        lines.append(f'    "{part}": ({", ".join(map(str, both))}),')
    lines += ["}", "SAID = {  # left-out part: what the answers look like, over the three seeds"]
    for part in (p for p in PARTS if p.split()[-1] in ARMS["without"]):
        forms = sum((Counter(row["forms"]) for row in each("without", part)), Counter())
        lines += [f'    "{part}": {{', *(f'        "{k}": {n},' for k, n in forms.most_common())]
        lines.append("    },")
    lines += ["}", "EXAMPLES = [  # question, true answer, what the second says; seed 0"]
    for part in ARMS["without"]:
        samples = each("without", part)[0]["samples"]
        lines += ["    (" + ", ".join(map(json.dumps, sample)) + ")," for sample in samples]
    return "\n".join([*lines, "]"])


def main(out: Path):
    torch.set_num_threads(1)
    _, tokenizer = from_pretrained("tiny")
    tokenizer = with_chat(tokenizer)
    model, _ = from_pretrained("tiny", vocab_size=padded(tokenizer.n_vocab))
    start = Pupil(model, tokenizer)
    found = {"made_by": "benchmarks/kinds.py", "commit": commit(), "steps": STEPS, "each": EACH}
    found |= {"hardware": describe(torch.device("cpu")), "dtype": "fp32", "arms": ARMS, "runs": []}
    asked = exam(tokenizer)
    for seed in SEEDS:
        for arm in ARMS:
            found["runs"].append(run(start, asked, arm, seed))
            done = found["runs"][-1]
            rights = {part: row["right"] for part, row in done["parts"].items()}
            print(arm, seed, done["seconds"], done["loss"], rights, flush=True)
            out.write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--page", action="store_true", help="print a record for the chapter")
    a = parser.parse_args()
    if a.page:
        print(page(json.loads(a.out.read_text(encoding="utf-8"))))
    else:
        main(a.out)
