"""Several conversations share a row of a batch, and none of them can see another."""

# Made by tools/book.py from ../../book/medium/ch11a_packing.md: edit that, then `make book`.

# %% auto #0
__all__ = ['conversation', 'best_fit', 'PackedSet', 'own_document', 'Batch', 'PackedLoader']

# %% ../../nbs/medium/ch11a_packing.ipynb #f4211752
import bisect
import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpt2edu.data.loader import permute, round_keys
from gpt2edu.model.gpt import IGNORE
from gpt2edu.text.chat import Encoded, encode_chat
from gpt2edu.text.questions import Question
from gpt2edu.text.tokenizer import Tokenizer

# %% ../../nbs/medium/ch11a_packing.ipynb #3320bc10
def conversation(
    tokenizer: Tokenizer,  # with the tokens of a chat
    asked: Sequence[Question],  # about one story, which the first of them brings
    longest: int,  # tokens that the model reads, block_size
) -> Encoded | None:  # None if not even one fits
    "Chat about one story, with as many questions as fit."
    messages, found = [], None
    for q in asked:
        user = q.question if messages else q.prompt
        messages += [{"role": "user", "content": user}]
        messages += [{"role": "assistant", "content": q.answer}]
        encoded = encode_chat(tokenizer, messages)
        if len(encoded.ids) > longest + 1:  # the last token is a target only
            break
        found = encoded
    return found

# %% ../../nbs/medium/ch11a_packing.ipynb #722d5d36
def best_fit(
    sizes: Sequence[int],  # places that each document takes
    T: int,  # places in a row; no document takes more
) -> list[list[int]]:  # for each row, its documents
    "Put each document into the fullest row with room for it, the longest first."
    rows, room = [], []  # room: (places left, row), sorted
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):  # stable
        k = bisect.bisect_left(room, (sizes[i], -1))
        left, row = room.pop(k) if k < len(room) else (T, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(i)
        bisect.insort(room, (left - sizes[i], row))
    return rows

# %% ../../nbs/medium/ch11a_packing.ipynb #5033f667
class PackedSet:
    "Documents packed into rows of T places; an answer counts, the rest of its document does not."

    def __init__(
        self,
        documents: Iterable[Encoded],  # ids, and which of them count
        T: int,  # places in a row
        name: str,  # of the source, for the record of a run
    ):
        documents = [d for d in documents if any(d.answers[1:])]
        if not documents:
            raise ValueError(f"{name}: nothing to learn, no document has an answer")
        self.T, self.paths, self.documents = T, [name], len(documents)
        rows = best_fit([len(d.ids) - 1 for d in documents], T)
        shape = (len(rows), T)
        self.x, self.positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        self.y = np.full(shape, IGNORE, np.int32)
        self.owner = np.full(shape, -1, np.int32)  # the document of each place in its row
        for r, row in enumerate(rows):
            at = 0
            for k, i in enumerate(row):
                ids, counts = map(np.array, documents[i])
                here = slice(at, at := at + len(ids) - 1)
                self.x[r, here], self.owner[r, here] = ids[:-1], k
                self.y[r, here] = np.where(counts[1:], ids[1:], IGNORE)
                self.positions[r, here] = np.arange(len(ids) - 1)
        self.targets = (self.y != IGNORE).sum(1)  # of each row, those that count
        content = b"".join(a.tobytes() for a in (self.x, self.y, self.owner))
        self.sha256 = [hashlib.sha256(content).hexdigest()]
        self.manifest = {"source": {"questions": name, "sha256": self.sha256[0]}}

    def __len__(self) -> int:  # places, for a horizon in epochs
        return self.x.size

# %% ../../nbs/medium/ch11a_packing.ipynb #6fb349b6
def own_document(
    owner: Tensor,  # (B, T) the document of each place
) -> Tensor:  # (B, 1, T, T) bool: who sees whom
    "Let each place see its past, as far as that is of its own document."
    T = owner.shape[1]
    same = owner[:, :, None] == owner[:, None, :]  # (B, T, T)
    return (torch.ones(T, T, dtype=torch.bool).tril() & same)[:, None]  # (B, 1, T, T)

# %% ../../nbs/medium/ch11a_packing.ipynb #5d1d7713
class Batch(NamedTuple):
    "What a step computes at once. Windows of plain text need only the first two."

    x: Tensor  # (B, T) int64 tokens
    y: Tensor  # (B, T) int64 tokens to predict; IGNORE where none counts
    positions: Tensor | None = None  # (B, T) int64 place in its document
    mask: Tensor | None = None  # (B, 1, T, T) bool: who sees whom
    share: Tensor | None = None  # () of the step's targets, over all ranks; None: all alike


class PackedLoader:
    "Batches of packed rows, shuffled anew in each epoch; `position` is the whole state."

    def __init__(
        self,
        packed: PackedSet,
        B: int,  # rows of this rank in a batch
        n_micro: int = 1,  # batches of one rank in a step
        seed: int = 0,  # of the order
        rank: int = 0,  # of this process
        world_size: int = 1,  # number of processes
        position: int = 0,  # rows that all ranks together have consumed, over all epochs
        shuffle: bool = True,  # False: in the order of the rows
    ):
        self.packed, self.B, self.seed, self.shuffle = packed, B, seed, shuffle
        self.rank, self.world_size, self.position = rank, world_size, position
        self.step = B * n_micro * world_size  # rows

    def rows(
        self,
        positions: np.ndarray,  # (n,) int64, in the endless stream of epochs
    ) -> np.ndarray:  # (n,) int64
        "Say which row is at each position."
        n = len(self.packed.x)
        epochs, places = np.divmod(positions, n)
        chosen = places.copy()
        for epoch in np.unique(epochs) if self.shuffle else ():
            now = epochs == epoch
            chosen[now] = permute(places[now], n, round_keys(self.seed, int(epoch)))
        return chosen

    def next_batch(self) -> Batch:
        "Read this rank's next B rows, and advance the position by those of all ranks."
        p, begun = self.packed, self.position - self.position % self.step
        first = self.position + self.rank * self.B
        rows = self.rows(np.arange(first, first + self.B))
        x, y, positions, owner = (
            torch.from_numpy(a[rows].astype(np.int64)) for a in (p.x, p.y, p.positions, p.owner)
        )
        whole = p.targets[self.rows(np.arange(begun, begun + self.step))].sum()
        share = torch.tensor(p.targets[rows].sum() / whole, dtype=torch.float32)
        self.position += self.B * self.world_size
        return Batch(x, y, positions, own_document(owner), share)
