"""Examples per second on items of HellaSwag's lengths. Prints JSON.

Our scorer beside the usual four padded rows.

    python benchmarks/hellaswag.py              # GPT-2 124M, 64 items, a few minutes on 2 cores
    python benchmarks/hellaswag.py --items 16 --threads 1

The usual loop is that of build-nanogpt's and llm.c's `hellaswag.py`: transformers' GPT2LMHeadModel,
an item at a time, its four texts padded to the longest, logits everywhere, losses under a mask.
Both have the same random weights and the same items: contexts of 40 to 90 tokens, endings of 10 to
45. The two take turns, so that a busy machine slows both; the ratio is what counts. Seconds of the
processor are given too: they leave out what other programs took.
"""

import argparse
import json
import os
import platform
import random
import time

import torch
import transformers
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2edu.evaluate.hellaswag import Encoded, ending_nats, score
from gpt2edu.model.gpt import GPT, GPTConfig


def make_items(n, vocab_size, seed=0):
    rng = random.Random(seed)

    def ids(low, high):
        return [rng.randrange(vocab_size) for _ in range(rng.randint(low, high))]

    return [
        Encoded(ids(40, 90), [ids(10, 45) for _ in range(4)], ["x"] * 4, rng.randrange(4))
        for _ in range(n)
    ]


@torch.no_grad()
def usual(model, item):
    "Four rows, zeros behind the shorter ones; the mask marks the endings."
    rows = [item.context + ending for ending in item.endings]
    longest = max(map(len, rows))
    tokens = torch.zeros(4, longest, dtype=torch.long)
    mask = torch.zeros(4, longest, dtype=torch.long)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
        mask[i, len(item.context) : len(row)] = 1
    logits = model(tokens).logits
    shift_logits, shift_tokens = logits[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    losses = F.cross_entropy(
        shift_logits.view(-1, shift_logits.size(-1)), shift_tokens.view(-1), reduction="none"
    )
    shift_mask = mask[:, 1:].contiguous()
    return (losses.view(4, -1) * shift_mask).sum(1) / shift_mask.sum(1)


def both_models(n_layer, n_head, n_embd):
    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config(n_layer=n_layer, n_head=n_head, n_embd=n_embd)).eval()
    ours = GPT(GPTConfig(n_layer, n_head, n_embd)).eval()
    flipped = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    ours.load_state_dict(
        {k: w.t() if k.endswith(flipped) else w for k, w in theirs.state_dict().items()}
    )
    return theirs, ours


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("--items", type=int, default=64)
    ap.add_argument("--rounds", type=int, default=4, help="turns that the two take")
    ap.add_argument("--batch_size", type=int, default=8)
    ap.add_argument("--threads", type=int, default=os.cpu_count())
    ap.add_argument("--n_layer", type=int, default=12)
    ap.add_argument("--n_head", type=int, default=12)
    ap.add_argument("--n_embd", type=int, default=768)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    theirs, ours = both_models(a.n_layer, a.n_head, a.n_embd)
    items = sorted(
        make_items(a.items, 50257), key=lambda e: len(e.context) + sum(map(len, e.endings))
    )
    usual(theirs, items[0])  # both have been warm once
    ending_nats(ours, items[:2])

    spent = {"usual": [0.0, 0.0], "ours": [0.0, 0.0]}  # seconds on the clock, of the processor

    def timed(name, work):
        clock, cpu = time.perf_counter(), time.process_time()
        result = work()
        spent[name][0] += time.perf_counter() - clock
        spent[name][1] += time.process_time() - cpu
        return result

    worst, same, per_round = 0.0, 0, -(-a.items // a.rounds)
    for start in range(0, a.items, per_round):  # neighbours in length, as among ten thousand items
        part = items[start : start + per_round]
        want = timed("usual", lambda part=part: torch.stack([usual(theirs, item) for item in part]))
        nats = timed("ours", lambda part=part: ending_nats(ours, part, a.batch_size))
        got = nats / torch.tensor([[len(e) for e in item.endings] for item in part])
        worst = max(worst, (got - want).abs().max().item())
        predictions = score(nats, part, 1024)["acc_norm"]["predictions"]
        same += sum(p == w for p, w in zip(predictions, want.argmin(1).tolist(), strict=True))
    rate = {name: [a.items / s for s in seconds] for name, seconds in spent.items()}
    print(
        json.dumps(
            {
                "items": a.items,
                "items_per_s": {name: round(r[0], 2) for name, r in rate.items()},
                "items_per_cpu_s": {name: round(r[1], 2) for name, r in rate.items()},
                "ratio_clock": round(rate["ours"][0] / rate["usual"][0], 2),
                "ratio_cpu": round(rate["ours"][1] / rate["usual"][1], 2),
                "worst_difference_nats_per_token": worst,
                "equal_predictions": f"{same} of {a.items}",
                "model": f"{sum(p.numel() for p in ours.parameters()):,} parameters, fp32",
                "batch_size": a.batch_size,
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, {a.threads} threads",
                "load_average": [round(x, 1) for x in os.getloadavg()],
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
