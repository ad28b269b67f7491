"""A model without any notion of questions answers multiple choice, fast and exactly, and you know how far to trust the percentage."""

# Made by tools/book.py from ../../book/tough/ch17_hellaswag.md: edit that file, then `make book`.

# %% auto #0
__all__ = ['READS', 'MEASURES', 'SLICE', 'clean', 'check_item', 'Encoded', 'encode_item', 'lengths',
           'standard_error', 'score', 'Shared', 'share_context', 'Packed', 'pack', 'surprise',
           'packed_losses', 'ending_nats', 'choice_accuracy']

# %% ../../nbs/tough/ch17_hellaswag.ipynb #b98cd1f4
import math
import re
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..model.attention import attend_fused
from ..text.tokenizer import utf8

# %% ../../nbs/tough/ch17_hellaswag.ipynb #3cee092a
def clean(text: str) -> str:
    "Take WikiHow's marks out. Source: lm-evaluation-harness, lm_eval/tasks/hellaswag/utils.py, `preprocess`."
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")

# %% ../../nbs/tough/ch17_hellaswag.ipynb #d07dba4b
READS = {
    "plain": ("ctx",),
    "harness": ("activity_label", "ctx_a", "ctx_b"),
}  # fields, beside endings and label


def check_item(
    item: dict,  # HellaSwag's fields
    convention: str = "plain",  # plain or harness
    where: str | None = None,  # names the item in messages, for example "val.jsonl, line 3"
) -> None:
    "ValueError, one line, for an item that is malformed."
    if not isinstance(item, dict):
        raise ValueError(
            f"{where or 'item ?'}: got {type(item).__name__}, expected an object with HellaSwag's fields"
        )
    where = where or f"item {item.get('ind', '?')}"
    if missing := [k for k in (*READS[convention], "endings", "label") if k not in item]:
        raise ValueError(
            f"{where}: no {missing[0]}, got {', '.join(item) or 'nothing'}; expected HellaSwag's fields"
        )
    endings, label = item["endings"], item["label"]
    if not isinstance(endings, list):
        raise ValueError(
            f"{where}: endings is {type(endings).__name__}, expected a list of 4 texts"
        )
    if len(endings) != 4:
        raise ValueError(f"{where}: got {len(endings)} endings, expected 4")
    if str(label) not in ("0", "1", "2", "3"):
        hint = "; a test split has no labels, use validation" if label == "" else ""
        raise ValueError(f"{where}: got label {label!r}, expected 0, 1, 2 or 3{hint}")
    for text in [*(item[k] for k in READS[convention]), *endings]:
        if not isinstance(text, str):
            raise ValueError(f"{where}: got {text!r}, expected text")
        try:
            utf8(text)
        except ValueError as e:
            raise ValueError(f"{where}: {e}") from None


class Encoded(NamedTuple):
    "An item in ids."

    context: list[int]  # at least one id
    endings: list[list[int]]  # four
    texts: list[str]  # the four endings as the convention reads them
    label: int  # which one is right


def encode_item(
    item: dict,  # HellaSwag's fields
    tokenizer,  # has `encode` and `eot`
    start: Iterable[int] = (),  # ids before the context, for example <|endoftext|>
    convention: str = "plain",  # plain or harness
) -> Encoded:
    "Turn an item into ids. ValueError, one line, for an item that is malformed."
    check_item(item, convention)
    if convention == "plain":
        texts, context = item["endings"], tokenizer.encode(item["ctx"])
        endings = [tokenizer.encode(f" {text}") for text in texts]
    else:
        query = clean(f"{item['activity_label']}: {item['ctx_a']} {item['ctx_b'].capitalize()}")
        texts, context = [clean(e) for e in item["endings"]], tokenizer.encode(query.rstrip())
        endings = [tokenizer.encode(f"{query} {text}")[len(context) :] for text in texts]
    return Encoded([*start, *context] or [tokenizer.eot], endings, texts, int(item["label"]))

# %% ../../nbs/tough/ch17_hellaswag.ipynb #ceadb3d7
MEASURES = {
    "plain": {"acc": "ending", "acc_norm": "token"},
    "harness": {"acc": "ending", "acc_norm": "character", "acc_bytes": "byte"},
}  # name of the figure: what the surprise of an ending is counted by


def lengths(
    item: Encoded,
    unit: str,  # ending, token, character or byte
    longest: int,  # block_size: more tokens than that cannot be judged
) -> list[int]:  # of the four endings
    "Say by what the surprise of each ending is divided."
    if unit == "token":
        return [min(len(ids), longest) for ids in item.endings]
    return [
        {"ending": 1, "character": len(text), "byte": len(text.encode())}[unit]
        for text in item.texts
    ]


def standard_error(
    accuracy: float,
    n: int,  # items
) -> float:
    "Compute the standard error of a share of n answers."
    return math.sqrt(accuracy * (1 - accuracy) / n)


def score(
    nats: Tensor,  # (n, 4) surprise of each ending
    items: list[Encoded],  # n
    longest: int,  # block_size of the model
    convention: str = "plain",  # plain or harness
) -> dict[str, dict]:  # for each figure: accuracy, error, right, n, predictions
    "Choose the ending of least surprise per unit; of equals the first. ValueError if the model gives no numbers."
    if not nats.isfinite().all():
        raise ValueError(
            "the model's losses are not finite: its training diverged; use an earlier checkpoint"
        )
    found = {}
    for name, unit in MEASURES[convention].items():
        by = torch.tensor(
            [lengths(item, unit, longest) for item in items]
        )  # (n, 4); an empty text: 0, so it never wins
        rows = (nats / by).tolist()
        predictions = [row.index(min(row)) for row in rows]
        right = sum(p == item.label for p, item in zip(predictions, items, strict=True))
        accuracy, n = right / len(items), len(items)
        error = standard_error(accuracy, n)
        found[name] = {
            "accuracy": accuracy,
            "error": error,
            "right": right,
            "n": n,
            "predictions": predictions,
        }
    return found

# %% ../../nbs/tough/ch17_hellaswag.ipynb #28d67e65
class Shared(NamedTuple):
    "A context with the endings that follow it."

    context: list[int]
    endings: list[list[int]]  # all different
    places: list[
        list[tuple[int, int]]
    ]  # for each ending, where its surprise belongs: (item, which of four)

    @property
    def size(self) -> int:  # tokens that the model reads: of an ending all but the last
        return len(self.context) + sum(len(e) - 1 for e in self.endings)


def share_context(
    i: int,  # number of the item
    item: Encoded,
    longest: int,  # block_size
) -> list[Shared]:  # one; up to four if the texts have to be cut
    """Gather the endings that follow the same context; equal endings are judged once.

    A text of more than block_size + 1 tokens loses its beginning, each ending's text for itself, as in the harness.
    """
    found = {}
    for j, ending in enumerate(item.endings):
        text = (item.context + ending)[-(longest + 1) :]
        n = min(len(ending), len(text) - 1)
        found.setdefault(tuple(text[:-n]), {}).setdefault(tuple(text[-n:]), []).append((i, j))
    return [
        Shared(list(c), [list(e) for e in ends], list(ends.values())) for c, ends in found.items()
    ]

# %% ../../nbs/tough/ch17_hellaswag.ipynb #8efdb3ce
class Packed(NamedTuple):
    "Rows of context and endings as a stream of N tokens, of which M are judged."

    ids: Tensor  # (N,) int64 tokens
    positions: Tensor  # (N,) int64 place of each in its text
    slots: Tensor  # (N,) int64 place of each in the grid of attention, B x T
    mask: Tensor  # (B, 1, T, T) bool: who sees whom
    rows: Tensor  # (M,) int64: which of the N predicts the judged token
    targets: Tensor  # (M,) int64 ids of the judged tokens
    owners: Tensor  # (M,) int64: whose they are, endings counted through


def pack(
    batch: list[Shared],
) -> Packed:  # on the CPU
    "Lay contexts and endings side by side."
    B, T = len(batch), max(s.size for s in batch)
    branches = torch.full((B, T), -1)  # 0: context, 1 to 4: endings, -1: nothing
    ids, positions, slots, rows, targets, owners, ending_number = [], [], [], [], [], [], 0
    for b, (context, endings, _) in enumerate(batch):
        n, last = (
            len(context),
            len(ids) + len(context) - 1,
        )  # the context's last token predicts every first one
        branch = [0] * n
        ids += context
        positions += range(n)
        for j, ending in enumerate(endings, start=1):
            rows += [last, *range(len(ids), len(ids) + len(ending) - 1)]
            targets += ending
            owners += [ending_number] * len(ending)
            ids += ending[:-1]
            positions += range(n, n + len(ending) - 1)
            branch += [j] * (len(ending) - 1)
            ending_number += 1
        slots += range(b * T, b * T + len(branch))
        branches[b, : len(branch)] = torch.tensor(branch)
    query, key = branches[:, :, None], branches[:, None, :]  # (B, T, 1), (B, 1, T)
    mask = torch.ones(T, T, dtype=torch.bool).tril() & ((query == key) | (key == 0))  # (B, T, T)
    ids, positions, slots, rows, targets, owners = map(
        torch.tensor, (ids, positions, slots, rows, targets, owners)
    )
    return Packed(ids, positions, slots, mask[:, None], rows, targets, owners)

# %% ../../nbs/tough/ch17_hellaswag.ipynb #87e46d8e
SLICE = 2048  # rows of the vocabulary at a time


def surprise(
    x: Tensor,  # (n, C) final residual stream, normalised
    weight: Tensor,  # (V, C) output embedding
    rows: Tensor,  # (M,) int64: which of the n predicts the token
    targets: Tensor,  # (M,) int64 ids of the tokens
) -> Tensor:  # (M,) nats
    "Compute the loss of each target, the vocabulary in slices."
    parts = [F.linear(x, part).float().logsumexp(1) for part in weight.split(SLICE)]  # each (n,)
    total = torch.stack(parts).logsumexp(0)  # (n,)
    return total[rows] - (x[rows] * weight[targets]).float().sum(1)


@torch.no_grad()
def packed_losses(
    model,  # a GPT: not compiled, not wrapped
    p: Packed,  # on the model's device
) -> Tensor:  # (M,) nats
    "Run the blocks over the stream; attention sees the grid, the head only what is judged."
    parts, nh, (B, _, T, _) = model.transformer, model.config.n_head, p.mask.shape
    need, rows = p.rows.unique(return_inverse=True)  # a context's last token predicts four
    x, grid = parts.wte(p.ids) + parts.wpe(p.positions), None  # (N, C)
    for i, block in enumerate(parts.h):
        qkv = block.attn.c_attn(block.ln_1(x))  # (N, 3C)
        grid = qkv.new_zeros(B * T, qkv.shape[1]) if grid is None else grid
        grid[p.slots] = qkv
        q, k, v = grid.view(B, T, 3, nh, -1).permute(2, 0, 3, 1, 4)  # each (B, nh, T, hs)
        y = attend_fused(q, k, v, p.mask)  # (B, nh, T, hs)
        y = y.transpose(1, 2).reshape(B * T, -1)[p.slots]  # (N, C)
        if i == len(parts.h) - 1:
            x, y = x[need], y[need]  # (n, C): nobody reads the rest any more
        x = x + block.attn.c_proj(y)
        x = x + block.mlp(block.ln_2(x))
    return surprise(parts.ln_f(x), model.lm_head.weight, rows, p.targets)

# %% ../../nbs/tough/ch17_hellaswag.ipynb #3db4d99f
def ending_nats(
    model,  # a GPT: not compiled, not wrapped
    items: list[Encoded],
    batch_size: int = 8,  # items at a time
    rank: int = 0,  # of this process
    world_size: int = 1,  # number of processes
) -> Tensor:  # (n, 4) float64: surprise of each ending, nats; zero for what other ranks compute
    "Judge all endings."
    longest, device = model.config.block_size, model.transformer.wte.weight.device
    nats = torch.zeros(len(items), 4, dtype=torch.float64)
    work = sorted(
        (s for i, item in enumerate(items) for s in share_context(i, item, longest)),
        key=lambda s: s.size,
    )
    batches = [work[a : a + batch_size] for a in range(0, len(work), batch_size)]
    for batch in batches[rank::world_size]:
        packed = pack(batch)
        losses = (
            packed_losses(model, Packed(*(t.to(device) for t in packed))).cpu().double()
        )  # (M,)
        places = [where for s in batch for where in s.places]
        sums = torch.zeros(len(places), dtype=torch.float64).index_add_(0, packed.owners, losses)
        for total, where in zip(sums.tolist(), places, strict=True):
            for i, j in where:
                nats[i, j] = total
    return nats


def choice_accuracy(
    model,  # a GPT
    tokenizer,
    items: list[dict],  # HellaSwag's fields
    start: Iterable[int] = (),  # ids before each context
) -> dict:  # accuracy, its standard error, right, n, predictions
    "Answer each item with the ending of lowest mean loss per token: convention plain, acc_norm."
    if not items:
        raise ValueError("got no items, expected at least one")
    encoded = [encode_item(item, tokenizer, start) for item in items]
    return score(ending_nats(model, encoded), encoded, model.config.block_size)["acc_norm"]
