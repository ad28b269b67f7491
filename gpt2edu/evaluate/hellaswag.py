"""A text predictor takes a multiple-choice test, and you know how far to trust its score."""

# Made by tools/book.py from ../../book/tough/ch18_hellaswag.md: edit that, then `make book`.

# %% auto #0
__all__ = ['READS', 'MEASURES', 'clean', 'check_item', 'Encoded', 'encode_item', 'lengths',
           'standard_error', 'score', 'Shared', 'share_context', 'Packed', 'pack', 'ending_nats',
           'sum_over_ranks', 'answer', 'choice_accuracy']

# %% ../../nbs/tough/ch18_hellaswag.ipynb #b98cd1f4
import math
import re
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from gpt2edu.model.gpt import IGNORE
from gpt2edu.text.tokenizer import utf8

# %% ../../nbs/tough/ch18_hellaswag.ipynb #3cee092a
def clean(text: str) -> str:
    """Remove WikiHow's marks.

    Source: lm-evaluation-harness, lm_eval/tasks/hellaswag/utils.py, `preprocess`.
    """
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")

# %% ../../nbs/tough/ch18_hellaswag.ipynb #d07dba4b
# fields, beside endings and label
READS = {"plain": ("ctx",), "harness": ("activity_label", "ctx_a", "ctx_b")}


def check_item(
    item: dict,  # HellaSwag's fields
    convention: str = "plain",  # plain or harness
    where: str | None = None,  # names the item in messages, for example "val.jsonl, line 3"
) -> None:
    "ValueError, one line, for an item that is malformed."
    if not isinstance(item, dict):
        raise ValueError(
            f"{where or 'item ?'}: got {type(item).__name__}, "
            "expected an object with HellaSwag's fields"
        )
    where = where or f"item {item.get('ind', '?')}"
    if missing := [k for k in (*READS[convention], "endings", "label") if k not in item]:
        raise ValueError(
            f"{where}: no {missing[0]}, got {', '.join(item) or 'nothing'}; "
            "expected HellaSwag's fields"
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

# %% ../../nbs/tough/ch18_hellaswag.ipynb #ceadb3d7
# name of the figure: what the surprise of an ending is counted by
MEASURES = {
    "plain": {"acc": "ending", "acc_norm": "token"},
    "harness": {"acc": "ending", "acc_norm": "character", "acc_bytes": "byte"},
}


def lengths(
    item: Encoded,
    unit: str,  # ending, token, character or byte
    longest: int,  # block_size: more tokens than that cannot be judged
) -> list[int]:  # of the four endings
    "Compute the length by which each ending's surprise is divided."
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
    """Choose the ending of least surprise per unit; of equals the first.

    ValueError if a loss is NaN or infinite.
    """
    if not nats.isfinite().all():
        raise ValueError(
            "the model's losses are not finite: its training diverged; use an earlier checkpoint"
        )
    found = {}
    for name, unit in MEASURES[convention].items():
        # (n, 4); an empty text: 0, so it never wins
        by = torch.tensor([lengths(item, unit, longest) for item in items])
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

# %% ../../nbs/tough/ch18_hellaswag.ipynb #28d67e65
class Shared(NamedTuple):
    "A context with the endings that follow it."

    context: list[int]  # at least one id
    endings: list[list[int]]  # all different
    places: list[list[tuple[int, int]]]  # whose surprise each ending is: (item, which of four)

    @property
    def size(self) -> int:  # tokens that the model reads
        return len(self.context) - 1 + sum(map(len, self.endings))


def share_context(
    i: int,  # number of the item
    item: Encoded,
    longest: int,  # block_size
) -> list[Shared]:  # one; up to four if the texts have to be cut
    """Gather the endings that follow the same context; equal endings are judged once.

    A text of more than block_size + 1 tokens loses its beginning, each ending's text for itself,
    as in the harness.
    """
    found = {}
    for j, ending in enumerate(item.endings):
        text = (item.context + ending)[-(longest + 1) :]
        n = min(len(ending), len(text) - 1)
        found.setdefault(tuple(text[:-n]), {}).setdefault(tuple(text[-n:]), []).append((i, j))
    return [
        Shared(list(context), [list(e) for e in ends], list(ends.values()))
        for context, ends in found.items()
    ]

# %% ../../nbs/tough/ch18_hellaswag.ipynb #8efdb3ce
class Packed(NamedTuple):
    "B rows of T places, each a context with its endings."

    ids: Tensor  # (B, T) int64 tokens
    targets: Tensor  # (B, T) int64 the token that each place predicts; IGNORE where none is judged
    positions: Tensor  # (B, T) int64 place of each token in its text
    mask: Tensor  # (B, 1, T, T) bool: who sees whom
    owners: Tensor  # (M,) int64: whose the judged tokens are, endings counted through


def pack(
    batch: list[Shared],
) -> Packed:  # on the CPU
    "Lay contexts and endings side by side."
    B, T = len(batch), max(s.size for s in batch)
    ids, positions = torch.zeros(B, T, dtype=torch.int64), torch.zeros(B, T, dtype=torch.int64)
    targets, branches = torch.full((B, T), IGNORE), torch.full((B, T), -1)  # -1: nothing
    owners, ending_number = [], 0
    for b, (context, endings, _) in enumerate(batch):
        *before, last = context
        row = [*before]
        place = [*range(len(before))]
        judged = [IGNORE] * len(before)
        branch = [0] * len(before)
        for j, ending in enumerate(endings, start=1):
            n = len(ending)
            row += [last, *ending[:-1]]
            place += range(len(before), len(before) + n)
            judged += ending
            branch += [j] * n
            owners += [ending_number] * n
            ending_number += 1
        for table, values in (
            (ids, row),
            (positions, place),
            (targets, judged),
            (branches, branch),
        ):
            table[b, : len(values)] = torch.tensor(values)
    query, key = branches[:, :, None], branches[:, None, :]  # (B, T, 1), (B, 1, T)
    sees = (query == key) | (key == 0)  # (B, T, T)
    mask = torch.ones(T, T, dtype=torch.bool).tril() & sees
    return Packed(ids, targets, positions, mask[:, None], torch.tensor(owners))

# %% ../../nbs/tough/ch18_hellaswag.ipynb #b02e60ca
@torch.no_grad()
def ending_nats(
    model,  # a GPT: not compiled, not wrapped
    items: list[Encoded],
    batch_size: int = 8,  # items at a time
    rank: int = 0,  # of this process
    world_size: int = 1,  # number of processes
) -> Tensor:  # (n, 4) float64: surprise of each ending, nats; zero for what other ranks compute
    "Judge all endings."
    longest, device = model.config.block_size, next(model.parameters()).device
    nats = torch.zeros(len(items), 4, dtype=torch.float64)
    shared = [s for i, item in enumerate(items) for s in share_context(i, item, longest)]
    work = sorted(shared, key=lambda s: s.size)
    batches = [work[a : a + batch_size] for a in range(0, len(work), batch_size)]
    for batch in batches[rank::world_size]:
        ids, targets, positions, mask, owners = (t.to(device) for t in pack(batch))
        _, losses = model(ids, targets, positions=positions, mask=mask, each=True)  # (M,)
        places = [where for s in batch for where in s.places]
        sums = torch.zeros(len(places), dtype=torch.float64)
        sums.index_add_(0, owners.cpu(), losses.cpu().double())
        for total, where in zip(sums.tolist(), places, strict=True):
            for i, j in where:
                nats[i, j] = total
    return nats


def sum_over_ranks(
    table: Tensor,  # zero wherever another rank has a number
) -> Tensor:  # the same on every rank, on the CPU
    "Fill in what the other ranks computed."
    from torch import distributed

    if not distributed.is_initialized():
        return table
    table = table.to("cuda" if distributed.get_backend() == "nccl" else "cpu")
    distributed.all_reduce(table)
    return table.cpu()


def answer(
    model,  # a GPT: not compiled, not wrapped
    tokenizer,
    items: list[dict | Encoded],  # HellaSwag's fields, or ids: those are taken as they are
    start: Iterable[int] = (),  # ids before each context
    convention: str = "plain",  # plain or harness
    batch_size: int = 8,  # items at a time, on each rank
    rank: int = 0,
    world_size: int = 1,
) -> dict[str, dict]:  # for each figure of the convention: accuracy, error, right, n, predictions
    "Answer all items; every rank takes its share, and all get the result. ValueError: no items."
    if not items:
        raise ValueError("got no items, expected at least one")
    known = (tokenizer, start, convention)
    encoded = [i if isinstance(i, Encoded) else encode_item(i, *known) for i in items]
    nats = sum_over_ranks(ending_nats(model, encoded, batch_size, rank, world_size))
    return score(nats, encoded, model.config.block_size, convention)

# %% ../../nbs/tough/ch18_hellaswag.ipynb #87e46d8e
def choice_accuracy(
    model,  # a GPT
    tokenizer,
    items: list[dict],  # HellaSwag's fields
    start: Iterable[int] = (),  # ids before each context
) -> dict:  # accuracy, its standard error, right, n, predictions
    "Answer each item with the ending of lowest mean loss per token: convention plain, acc_norm."
    return answer(model, tokenizer, items, start)["acc_norm"]
