"""Which heads of a trained tiny model find the name behind "she" and "he"?

Chapter 8 shows the record of three runs.

    gpt2edu_train --seed 1337 --n_embd 192    # and 1, and 2; a few minutes each on two quiet cores
    python -m benchmarks.heads runs/tiny runs/tiny-2 runs/tiny-3 > benchmarks/logs/tiny_heads.json

200 stories of seed 7, which no training has seen. In each, every place where the next token is a
pronoun inside a sentence and one name decides it. For each head: its weight, from the token before
the pronoun, on the mentions of the right person and on those of the others, and what becomes of the
pronoun when that head is silenced.
"""

import json
import re
import sys
from pathlib import Path

import torch

from benchmarks.timing import commit
from gpt2edu.text.corpus import story
from gpt2edu.text.grammar import BOYS, GIRLS
from gpt2edu.train.runs import load_run

STORIES, SEED = 200, 7
NAMES = {*GIRLS, *BOYS}
NAME = f"(?P<who>{'|'.join(sorted(NAMES))})"
QUESTIONS = {  # the name that decides, then the pronoun
    "Mia was tired, so": (
        rf"{NAME} (?:was (?:tired|hungry)|(?:got|ate) [^.]*), so (?:now )?(?P<pronoun>she|he) "
    ),
    "Tom asked Mia for the kite, so": rf"asked {NAME} for the \w+, so (?P<pronoun>she|he) ",
    "Tom called Mia, and": rf"called {NAME}, and (?P<pronoun>she|he) ",
    "Tom asked Mia for the kite, so she gave it to": (
        rf"{NAME} asked \w+ for the \w+, so s?he gave it to (?P<pronoun>her|him)"
    ),
}
SHOWN = ("Mia was tired, so", "she")


def tokens_of(tokenizer, text: str, T: int) -> tuple[list[int], list[str], dict[int, int]]:
    "Ids, their texts, and the token that begins at each character, `<|endoftext|>` not counted."
    ids = [tokenizer.eot, *tokenizer.encode(text)][:T]
    texts, starts, at = [tokenizer.decode([i]) for i in ids], {}, 0
    for j, t in enumerate(texts[1:], start=1):
        starts[at] = j
        at += len(t)
    return ids, texts, starts


def places(texts: list[str], starts: dict[int, int], text: str):
    """Each pronoun that a name decides.

    The question, the token before it, the tokens of the right person, the tokens of the others.
    """
    for question, pattern in QUESTIONS.items():
        for m in re.finditer(pattern, text):
            j = starts.get(m.start("pronoun") - 1)  # the space belongs to the token
            if j is None:
                continue  # beyond the context
            right = [k for k in range(j) if texts[k] == f" {m['who']}"]
            other = [
                k for k in range(j) if texts[k].strip() in NAMES and texts[k] != f" {m['who']}"
            ]
            yield question, j - 1, right, other, m["pronoun"]


@torch.no_grad()
def right_pronoun(model, tokenizer, found) -> dict[str, float]:
    "Probability of the right pronoun, beside that of the wrong one, by question."
    word = {t: tokenizer.encode(f" {t}")[0] for t in ("she", "he", "her", "him")}
    sums = {q: [] for q in QUESTIONS}
    for ids, question, at, pronoun in found:
        wrong = {"she": "he", "he": "she", "her": "him", "him": "her"}[pronoun]
        logits, _ = model(torch.tensor([ids[: at + 1]]), last_only=True)
        two = logits[0, -1, [word[pronoun], word[wrong]]]
        sums[question].append(two.softmax(0)[0].item())
    return {q: round(sum(v) / len(v), 3) for q, v in sums.items()}


@torch.no_grad()
def silenced(model, layer: int, head: int, f):
    "Call f with one head's output cut off, then put it back."
    c_proj = model.transformer.h[layer].attn.c_proj
    hs = model.config.n_embd // model.config.n_head
    columns = slice(head * hs, (head + 1) * hs)
    kept = c_proj.weight[:, columns].clone()
    c_proj.weight[:, columns] = 0
    try:
        return f()
    finally:
        c_proj.weight[:, columns] = kept


def measure(folder: Path) -> dict:
    "Measure one run."
    model, tokenizer = load_run(folder)
    L, H, T = model.config.n_layer, model.config.n_head, model.config.block_size
    found, weights, example = [], {q: [] for q in QUESTIONS}, None
    for i in range(STORIES):
        text = story(i, seed=SEED).text
        ids, texts, starts = tokens_of(tokenizer, text, T)
        attention = None
        for question, at, right, other, pronoun in places(texts, starts, text):
            if attention is None:
                attention = model.attention_weights(torch.tensor([ids]))[:, 0]  # (L, nh, T, T)
            row = attention[:, :, at]  # (L, nh, T)
            sums = row[:, :, right].sum(-1), row[:, :, other].sum(-1)  # (L, nh) twice
            weights[question].append((*sums, len(right), len(other), at + 1))
            found.append((ids, question, at, pronoun))
            a_boy_too = any(texts[k].strip() in BOYS for k in other)
            # the first such place
            if (question, pronoun) == SHOWN and a_boy_too and example is None and at < 50:
                example = {"story": i, "tokens": texts[: at + 1], "pronoun": pronoun}
                example |= {"right": right, "other": other}
                flat = row[:, :, : at + 1].flatten(0, 1).tolist()
                rounded = [[round(100 * w) for w in r] for r in flat]  # per cent
                named = {f"{i // H}.{i % H}": r for i, r in enumerate(rounded)}  # layer.head
                example["weights"] = named
    whole = right_pronoun(model, tokenizer, found)
    heads = {}
    for x in range(L):
        for h in range(H):
            cut = silenced(model, x, h, lambda: right_pronoun(model, tokenizer, found))
            heads[f"{x}.{h}"] = {
                q: {
                    "right": round(sum(w[0][x, h].item() for w in rows) / len(rows), 3),
                    "other": round(sum(w[1][x, h].item() for w in rows) / len(rows), 3),
                    "without": cut[q],
                }
                for q, rows in weights.items()
            }
    chance = {
        q: [round(sum(w[i] / w[4] for w in rows) / len(rows), 3) for i in (2, 3)]
        for q, rows in weights.items()
    }
    log = [
        json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    start, val = log[0], [e for e in log if e["event"] == "val"][-1]
    return {
        "seed": start["config"]["seed"],
        "steps": val["step"],
        "val_loss": round(val["loss"], 4),
        "hardware": start["hardware"],
        "dtype": start["dtype"],
        "places": {q: len(rows) for q, rows in weights.items()},
        "chance": chance,
        "right_pronoun": whole,
        "heads": heads,
        "example": example,
    }


OVER_LOOKS = "# per cent of its weight that each head puts on each of these tokens"
OVER_RUNS = """\
# Four questions, three numbers for each: the head's weight on the right name, on other names,
# and P(right pronoun) without that head. The line `chance` is for a head that spreads its weight
# evenly, and for no head silenced.
"""


def page(record: dict) -> str:
    "Write the part of the record that chapter 8 shows, as Python: tables, a head in each line."
    example = record["runs"][0]["example"]
    tokens = example["tokens"]
    half = len(tokens) // 2
    lines = ["TOKENS = ("]
    lines += [f'    "{"/".join(part)}"' for part in ([*tokens[:half], ""], tokens[half:])]
    lines += [').split("/")', *OVER_LOOKS.splitlines(), 'LOOKS = """']
    for head, row in example["weights"].items():
        lines.append(head + "  " + "".join(f"{per_cent:3}" for per_cent in row))
    lines += ['"""', *OVER_RUNS.splitlines(), "RUNS = {"]
    for run in record["runs"]:
        lines.append(f'    {run["seed"]}: """')
        rows = {"chance": [[*run["chance"][q], p] for q, p in run["right_pronoun"].items()]}
        rows |= {h: [list(v.values()) for v in by.values()] for h, by in run["heads"].items()}
        for head, row in rows.items():
            cells = "   ".join(" ".join(f"{number:.3f}" for number in three) for three in row)
            lines.append(f"{head:6}  {cells}")
        lines.append('""",')
    return "\n".join([*lines, "}"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["page"]:
        print(page(json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))))
    else:
        record = {
            "made_by": "benchmarks/heads.py",
            "commit": commit(),
            "stories": STORIES,
        }
        print(json.dumps(record | {"runs": [measure(Path(folder)) for folder in sys.argv[1:]]}))
