"""Rows about a trained model: decoding, and HellaSwag."""

import random

from benchmarks import peers
from benchmarks.timing import CannotRun, Subject, each, in_turn, ratio, spread
from benchmarks.training import MINI, missing

# decoding


def decoder(
    who: str,
    sizes,
    vocab_size: int,
    start: int,  # tokens of the prompt
    total: int,  # tokens at the end
    nanogpt: str | None = None,
    int8: bool = False,  # ours with weights of one byte
):
    "Make a subject: continue a prompt greedily with one of the models; it returns the new ids."
    import torch

    model, _ = peers.build(who, tuple(sizes), 1024, vocab_size, nanogpt)
    model.eval()
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(vocab_size, (start,), generator=g).tolist()
    new = total - start
    if who.startswith("ours"):
        from gpt2edu.model.generate import generate
        from gpt2edu.model.int8 import int8_model

        model = int8_model(model) if int8 else model
        return lambda: [i for (i,) in generate(model, ids, new, temperature=0)]
    rows = torch.tensor([ids])
    if who == "nanoGPT":  # top_k=1 is greedy
        return lambda: model.generate(rows, new, top_k=1)[0, start:].tolist()
    fixed = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "use_cache": True}
    fixed |= {"attention_mask": torch.ones_like(rows), "pad_token_id": 0}
    return lambda: model.generate(rows, **fixed)[0, start:].tolist()


def decode_124m(asked) -> dict:
    "One text, 32 tokens continued to 96, greedily, in fp32."
    from gpt2edu.train.config import count_params

    sizes, V = (MINI, 512) if asked.tiny else (peers.GPT2, peers.V)
    total = 40 if asked.tiny else 96
    arguments = {"sizes": sizes, "vocab_size": V, "start": 32, "total": total}
    who = ("ours", "transformers", "nanoGPT")
    subjects = {
        name: Subject("inference:decoder", who=name, nanogpt=asked.nanogpt, **arguments)
        for name in who
    }
    found = in_turn(subjects, 3 if asked.tiny else 7)
    there = {k: f["seconds"] for k, f in found.items() if "seconds" in f}
    n = total - 32
    bound = asked.limits["read"]["median"] / (4 * count_params(sizes[0], sizes[2], 1024, V))
    rate = each(there["ours"], lambda t: n / t)
    ratios = {k: ratio(s, there["ours"]) for k, s in there.items() if k != "ours"}
    ratios["bytes"] = {k: v if k == "n" else v / bound for k, v in rate.items()}
    figures = {f"{k}, tokens/s": each(s, lambda t: n / t) for k, s in there.items()}
    figures["bandwidth over bytes of weights, tokens/s"] = spread([bound])
    return {
        "figures": figures,
        "ratios": ratios,
        "missing": missing(found, {k: k for k in who[1:]}),
        "settings": arguments | {"dtype": "fp32"},
    }


# HellaSwag


def make_items(n: int, vocab_size: int, seed: int = 0) -> list:
    "Draw items of HellaSwag's lengths: contexts of 40 to 90 tokens, endings of 10 to 45."
    from gpt2edu.evaluate.hellaswag import Encoded

    rng = random.Random(seed)

    def ids(low, high):
        return [rng.randrange(vocab_size) for _ in range(rng.randint(low, high))]

    items = [
        Encoded(ids(40, 90), [ids(10, 45) for _ in range(4)], ["x"] * 4, rng.randrange(4))
        for _ in range(n)
    ]
    return sorted(items, key=lambda e: len(e.context) + sum(map(len, e.endings)))


def padded_rows(model, item) -> list[float]:  # nats/token of each ending
    """Score an item as build-nanogpt's and llm.c's loop does.

    Its four texts are padded to the longest, logits are computed everywhere, a mask marks the ends.
    """
    import torch
    from torch.nn import functional as F

    rows = [item.context + ending for ending in item.endings]
    longest = max(map(len, rows))
    tokens = torch.zeros(4, longest, dtype=torch.long)
    mask = torch.zeros(4, longest, dtype=torch.long)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
        mask[i, len(item.context) : len(row)] = 1
    with torch.no_grad():
        logits = model(tokens).logits
    scores, targets = logits[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    losses = F.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="none")
    kept = mask[:, 1:]
    return ((losses.view(4, -1) * kept).sum(1) / kept.sum(1)).tolist()


def scorer(who: str, sizes, vocab_size: int, items: int):
    "Make a subject: score one part of the items after the other; nats/token of each ending."
    import torch

    from gpt2edu.evaluate.hellaswag import ending_nats

    theirs, _ = peers.build("transformers", tuple(sizes), 1024, vocab_size)
    theirs.eval()
    encoded, at = make_items(items, vocab_size), [0]
    model = theirs
    if who == "ours":
        model, _ = peers.build("ours", tuple(sizes), 1024, vocab_size)
        flipped = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
        weights = theirs.state_dict().items()
        model.load_state_dict({k: w.t() if k.endswith(flipped) else w for k, w in weights})
        model.eval()
    part = len(encoded) // 4  # neighbours in length, as among ten thousand items

    def work() -> list[list[float]]:
        some = encoded[at[0] : at[0] + part]
        at[0] = (at[0] + part) % (4 * part)
        if who == "padded":
            return [padded_rows(model, item) for item in some]
        nats = ending_nats(model, some, 8)
        return (nats / torch.tensor([[len(e) for e in item.endings] for item in some])).tolist()

    return work


def hellaswag(asked) -> dict:
    "Our scorer beside the usual four padded rows with full logits, same weights and items."
    sizes, V = (MINI, 512) if asked.tiny else (peers.GPT2, 50257)
    arguments = {"sizes": sizes, "vocab_size": V, "items": 16 if asked.tiny else 64}
    subjects = {
        who: Subject("inference:scorer", who=who, **arguments) for who in ("ours", "padded")
    }
    found = in_turn(subjects, 4, warm=4)  # the quarters once before they count
    lacking = missing(found, {"padded": "padded"})
    if lacking:
        return {"figures": {}, "ratios": {}, "missing": lacking, "settings": arguments}
    pairs = zip(*(found[k]["value"] for k in subjects), strict=True)
    worst = max(abs(a - b) for x, y in pairs for a, b in zip(x, y, strict=True))
    assert worst < 1e-3, f"the scores differ by {worst} nats/token"
    n = arguments["items"] // 4
    return {
        "figures": {f"{k}, items/s": each(f["seconds"], lambda t: n / t) for k, f in found.items()},
        "ratios": {
            "padded": ratio(found["padded"]["seconds"], found["ours"]["seconds"]),
            "padded, processor": ratio(found["padded"]["cpu"], found["ours"]["cpu"]),
        },
        "settings": arguments | {"dtype": "fp32", "worst difference, nats/token": worst},
    }


def decode_int8(asked) -> dict:
    "The same text with weights of one byte and of four, in turn."
    from gpt2edu.model.int8 import has_kernel

    if not has_kernel("cpu"):
        raise CannotRun("PyTorch has no product with int8 weights for this processor")
    sizes, V = (MINI, 512) if asked.tiny else (peers.GPT2, peers.V)
    total = 40 if asked.tiny else 96
    arguments = {"who": "ours", "sizes": sizes, "vocab_size": V, "start": 32, "total": total}
    subjects = {
        name: Subject("inference:decoder", int8=name == "int8", **arguments)
        for name in ("int8", "fp32")
    }
    found = in_turn(subjects, 3 if asked.tiny else 7)
    there = {k: f["seconds"] for k, f in found.items()}
    return {
        "figures": {
            f"{k}, tokens/s": each(s, lambda t: (total - 32) / t) for k, s in there.items()
        },
        "ratios": {"fp32": ratio(there["fp32"], there["int8"])},
        "settings": arguments,
    }
