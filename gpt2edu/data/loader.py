"""Shards become (B, T) batches: deterministic, shuffled, shared, resumable from one number."""

# Made by tools/book.py from ../../book/easy/ch06_loader.md: edit that, then `make book`.

# %% auto #0
__all__ = ['GOLDEN', 'ROUNDS', 'mix', 'round_keys', 'permute', 'Loader', 'Ahead']

# %% ../../nbs/easy/ch06_loader.ipynb #225fdbd4
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpt2edu.data.shards import ShardSet

# %% ../../nbs/easy/ch06_loader.ipynb #66197e75
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio, odd
ROUNDS = 8  # of the Feistel network


def mix(
    x: np.ndarray,  # uint64, any shape
) -> np.ndarray:  # uint64, same shape
    """Scramble 64 bits: every bit of the result depends on every bit of x.

    Source: Steele et al. 2014, SplitMix64.
    """
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

# %% ../../nbs/easy/ch06_loader.ipynb #66e9d366
def round_keys(
    seed: int,
    epoch: int,
) -> np.ndarray:  # (ROUNDS,) uint64
    "Derive the keys of one epoch's order."
    keys = np.arange(1, ROUNDS + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    for value in (seed, epoch):
        keys = mix(keys + np.uint64(value % 2**64))
    return keys


def permute(
    index: np.ndarray,  # (N,) integers in [0, n)
    n: int,  # how many things are in the order
    keys: np.ndarray,  # (ROUNDS,) uint64
) -> np.ndarray:  # (N,) int64 in [0, n); different indices give different results
    """Look up places in a shuffled order of n things that is never stored.

    Source: Black and Rogaway 2002.
    """
    half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))  # bits
    low = (np.uint64(1) << half) - np.uint64(1)
    x = np.asarray(index).astype(np.uint64)
    walking = np.ones(len(x), dtype=bool)
    while walking.any():  # a result that is not below n goes round again
        left, right = x[walking] >> half, x[walking] & low
        for key in keys:
            left, right = right, left ^ (mix(right + key) & low)
        x[walking] = (left << half) | right
        walking = x >= n
    return x.astype(np.int64)

# %% ../../nbs/easy/ch06_loader.ipynb #51f140bb
class Loader:
    "Batches of windows, in an order that depends on the seed only; `position` is the whole state."

    def __init__(
        self,
        shards: ShardSet | np.ndarray,  # anything with len() and [a:b]
        B: int,  # windows of this rank in a batch
        T: int,  # tokens in a window
        seed: int = 0,  # of the order
        rank: int = 0,  # of this process
        world_size: int = 1,  # number of processes
        position: int = 0,  # windows that all ranks together have consumed, over all epochs
        shuffle: bool = True,  # False: in the order of the shards
    ):
        if B < 1 or T < 1:
            raise ValueError(f"got B={B}, T={T}, expected both to be at least 1")
        if not 0 <= rank < world_size:
            raise ValueError(
                f"got rank={rank}, expected 0 to {world_size - 1} with world_size={world_size}"
            )
        if position < 0:
            raise ValueError(f"got position={position}, expected 0 or more windows")
        if len(shards) < T + 1:
            name = getattr(shards, "paths", ["the shards"])[0]
            raise ValueError(
                f"{name}: got {len(shards):,} tokens, "
                f"expected {T + 1:,} at least for one window of T={T}; "
                "give more text or lower T"
            )
        self.shards = shards
        self.B, self.T = B, T
        self.seed = seed
        self.shuffle = shuffle
        self.rank, self.world_size = rank, world_size
        self.position = position
        # per epoch; the last target of a window is the first input of the next
        self.n_windows = (len(shards) - 1) // T

    def windows(
        self,
        positions: np.ndarray,  # (N,) int64
    ) -> np.ndarray:  # (N,) int64, which windows of the text
        "Say which window is at each position of the endless stream of epochs."
        epochs, places = np.divmod(positions, self.n_windows)
        if not self.shuffle:
            return places
        chosen = np.empty_like(places)
        # a batch may hold the end of one epoch and the start of the next
        for epoch in np.unique(epochs):
            now = epochs == epoch
            chosen[now] = permute(places[now], self.n_windows, round_keys(self.seed, int(epoch)))
        return chosen

    def next_batch(self) -> tuple[Tensor, Tensor]:  # x, y: (B, T) int64; y is x shifted by one
        "Read this rank's next B windows, and advance the position by those of all ranks."
        first = self.position + self.rank * self.B
        starts = self.windows(np.arange(first, first + self.B)) * self.T
        spans = [self.shards[a : a + self.T + 1] for a in starts.tolist()]
        rows = np.stack(spans)  # (B, T + 1) uint16
        self.position += self.B * self.world_size
        tokens = torch.from_numpy(rows.astype(np.int64))  # (B, T + 1)
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()  # (B, T), (B, T)

# %% ../../nbs/easy/ch06_loader.ipynb #7a50e085
class Ahead:
    "Hand out a loader's batches; a thread reads the next one while this one is in use."

    def __init__(
        self,
        loader: Any,  # has next_batch and position; from now on only the thread uses it
        prepare: Callable = lambda batch: batch,  # what the thread does to each batch
    ):
        self.loader, self.prepare = loader, prepare
        self._position = loader.position
        self._thread = None  # a pool of one
        self._read = None  # a Future: the batch that is being read, the position after it

    @property
    def position(self) -> int:  # windows in the batches that were handed out, of all ranks
        return self._position

    @position.setter
    def position(self, position: int):
        self.close()
        self._position = position

    def read(self, position: int) -> tuple[Any, int]:  # a batch, and the position after it
        "Read the batch at a position; the thread does this."
        self.loader.position = position
        batch = self.loader.next_batch()
        return self.prepare(batch), self.loader.position

    def next_batch(self) -> Any:
        "Hand out a batch, and begin to read the one after it. Raises what reading has raised."
        if not self._thread:
            self._thread = ThreadPoolExecutor(1, "loader")
        read, self._read = self._read or self._thread.submit(self.read, self._position), None
        batch, self._position = read.result()
        self._read = self._thread.submit(self.read, self._position)
        return batch

    def close(self):
        "End the thread; the batch that it has read is read again when it is asked for."
        if self._thread:
            self._thread.shutdown()
        self._thread = self._read = None
