"""What shifts a validation loss though the model stays the same.

These are the measured rows of the page "Is my loss right?".

    gpt2edu_train --seed 1337             # two to three minutes on two quiet cores
    python -m benchmarks.shifts runs/tiny > benchmarks/logs/tiny_shifts.json
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import commit
from gpt2edu.data.shards import open_shards
from gpt2edu.evaluate.validation import validation_loss
from gpt2edu.text.corpus import stories
from gpt2edu.train.runs import load_run

N = 32_768  # tokens, as the preset reads


def main(folder: Path):
    start = json.loads((folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[0])
    model, tokenizer = load_run(folder)
    val = open_shards(start["data"], "val", tokenizer.hash)[:200_000]

    def loss(ids=val, n=N, T=128, overlap=0.5, dtype=torch.float32):
        with torch.no_grad():
            return round(validation_loss(model, ids, n, T, 16, overlap, dtype=dtype), 4)

    others = [i for s in stories(300, seed=11) for i in (tokenizer.eot, *tokenizer.encode(s.text))]
    bare = np.array([i for i in val[: N + 1000] if i != tokenizer.eot], dtype=np.uint16)
    rows = {
        "as the preset does it: T = 128, half of each window unjudged, fp32": loss(),
        "in bf16": loss(dtype=torch.bfloat16),
        "every token of a window judged (no overlap)": loss(overlap=0.0),
        "three quarters of each window unjudged": loss(overlap=0.75),
        "T = 64, no overlap": loss(T=64, overlap=0.0),
        "T = 32, no overlap": loss(T=32, overlap=0.0),
        "the first quarter of the validation tokens": loss(n=N // 4),
        "other stories of the same grammar, as many tokens": loss(
            ids=np.array(others, dtype=np.uint16)
        ),
        "the same stories without the end-of-text tokens": loss(ids=bare),
    }
    made = {"made_by": "benchmarks/shifts.py", "commit": commit()}
    made |= {"hardware": start["hardware"], "seed": start["config"]["seed"]}
    print(json.dumps(made | {"loss": rows}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
