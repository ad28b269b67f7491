"""What does LoRA give up against training every weight, and what does either forget?

Chapter 23 shows the record: three seeds, the stored `tiny` as the start, three texts to learn.

    python -m benchmarks.finetune > benchmarks/logs/tiny_finetune.json    # some minutes, one thread

`dialect`: stories in which she and he have changed places. `village`: the same, of few words.
`pydocs`: Python's manual. The rates are those of short trials with another seed; the losses are on
texts that none was trained on. --page FILE prints the record for the chapter.
"""

import argparse
import copy
import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import commit
from gpt2edu.data.loader import Loader
from gpt2edu.machine.device import describe
from gpt2edu.model.lora import PARTS, add_lora
from gpt2edu.model.pretrained import from_pretrained
from gpt2edu.text.corpus import documents, stories, story
from gpt2edu.text.grammar import Grammar
from gpt2edu.train.optim import build_optimizers, lr_at, set_lr

SEEDS = (1337, 1, 2)
# all weights; adapters in all matrices of the blocks; in two of each block and at the head
RATES = {"all": (0.001, 0.004), "blocks": (0.01, 0.02), "head": (0.01, 0.02)}  # dialect, others
STEPS, BATCH, ALPHA = 60, 16, 16.0
ADAPTERS = {"blocks": (3, PARTS), "head": (4, ("attn.c_proj", "mlp.c_proj", "lm_head"))}
PAIRS = [("he", "she"), ("He", "She"), ("him", "her"), ("boy", "girl")]
SWAP = {a: b for pair in PAIRS for a, b in (pair, pair[::-1])}
VILLAGE = Grammar(
    girls=("Mia", "Nora", "Olive", "Lily"),
    boys=("Tom", "Max", "Leo", "Oscar"),
    food=("apple", "plum", "egg"),
    fragile=("cup", "lamp"),
    toys=("ball", "kite", "rope", "shell", "umbrella", "hammer"),
    rooms=("kitchen", "barn", "cellar"),
    outside=("garden", "farm", "lake", "bridge"),
)


def dialect(text: str) -> str:
    "Swap she and he, her and him, girl and boy."
    return re.sub(rf"\b({'|'.join(SWAP)})\b", lambda m: SWAP[m[1]], text)


def ids_of(tokenizer, texts) -> np.ndarray:
    ids = tokenizer.encode_batch(list(texts))
    return np.array([i for text in ids for i in (tokenizer.eot, *text)], dtype=np.uint16)


def texts(tokenizer) -> tuple[dict, dict, dict]:  # ids to train on, to validate on; floors
    "Make the three texts, and the stories that may be forgotten."
    told = {"dialect": [*stories(2500, start=60_000)]}
    told["village"] = [story(i, grammar=VILLAGE) for i in range(2500)]
    train = {k: ids_of(tokenizer, (dialect(s.text) for s in v[:2200])) for k, v in told.items()}
    val = {k: ids_of(tokenizer, (dialect(s.text) for s in v[2200:])) for k, v in told.items()}
    floors = {k: -sum(s.logprob for s in v[2200:]) / len(val[k]) for k, v in told.items()}
    manual = list(documents("pydocs"))
    train["pydocs"], val["pydocs"] = (ids_of(tokenizer, m) for m in (manual[:45], manual[45:]))
    val["stories"] = ids_of(tokenizer, (s.text for s in stories(300, start=50_000)))
    return train, val, floors


@torch.no_grad()
def loss_on(model, ids: np.ndarray, batches: int = 8) -> float:  # nats/token
    loader = Loader(ids, BATCH, model.config.block_size, shuffle=False)
    return sum(model(*loader.next_batch())[1].item() for _ in range(batches)) / batches


def tune(base, way: str, ids: np.ndarray, lr: float, seed: int):
    "Fine-tune a copy; return it and the number of trained parameters."
    model = copy.deepcopy(base)
    if way in ADAPTERS:
        rank, parts = ADAPTERS[way]
        add_lora(model, rank, ALPHA, parts, torch.Generator().manual_seed(seed))
    loader = Loader(ids, BATCH, model.config.block_size, seed)
    optimizers = build_optimizers(model, lr=lr, weight_decay=0.01, betas=(0.9, 0.98))
    for step in range(STEPS):
        set_lr(optimizers, lr_at(step, 1.0, 0.05, 5, STEPS))
        model(*loader.next_batch())[1].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return model, sum(p.numel() for p in model.parameters() if p.requires_grad)


def measure() -> dict:
    torch.set_num_threads(1)
    base, tokenizer = from_pretrained("tiny")
    train, val, floors = texts(tokenizer)
    before = {name: round(loss_on(base, ids), 4) for name, ids in val.items()}
    rows = []
    for text in train:
        for way, rates in RATES.items():
            lr = rates[text != "dialect"]
            for seed in SEEDS:
                model, n = tune(base, way, train[text], lr, seed)
                found = {k: round(loss_on(model, val[k]), 4) for k in (text, "stories")}
                rows.append({"text": text, "way": way, "lr": lr, "seed": seed, "trained": n})
                rows[-1] |= {"loss": found[text], "stories": found["stories"]}
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    share = {}
    for text in train:
        gain = {
            way: [before[text] - r["loss"] for r in rows if (r["text"], r["way"]) == (text, way)]
            for way in RATES
        }
        share[text] = {
            way: [round(a / b, 4) for a, b in zip(gain[way], gain["all"], strict=True)]
            for way in ADAPTERS
        }
    return {"before": before, "floors": floors, "rows": rows, "share_of_gain": share}


def page(found: dict) -> str:
    "Print the record as a cell of the chapter."
    trained = {row["way"]: row["trained"] for row in found["rows"]}
    counts = ", ".join(f'"{way}": {n}' for way, n in trained.items())
    before = ", ".join(f'"{text}": {loss}' for text, loss in found["before"].items())
    lines = [f"BEFORE = {{{before}}}", f"TRAINED = {{{counts}}}"]
    seeds = ", ".join(map(str, dict.fromkeys(row["seed"] for row in found["rows"])))
    lines += [f"# loss on the text, then on the stories that may be forgotten; seeds {seeds}"]
    cells = {}
    for row in found["rows"]:
        losses = cells.setdefault((row["text"], row["way"]), {"loss": [], "stories": []})
        for key, values in losses.items():
            values.append(f"{row[key]:.4f}")
    lines += ['RECORD = """']
    for (text, way), losses in cells.items():
        lines.append(f"{text:8} {way:6} " + "   ".join(map(" ".join, losses.values())))
    return "\n".join([*lines, '"""'])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, help="print this record for the chapter")
    if (stored := parser.parse_args().page) is not None:
        sys.exit(print(page(json.loads(stored.read_text(encoding="utf-8")))))
    about = {"made_by": "benchmarks/finetune.py", "commit": commit(), "steps": STEPS}
    about |= {"tokens_a_step": BATCH * 128, "adapters": ADAPTERS, "alpha": ALPHA, "dtype": "fp32"}
    about |= {"hardware": describe(torch.device("cpu")), "day": time.strftime("%Y-%m-%d")}
    print(json.dumps(about | measure(), indent=1))
