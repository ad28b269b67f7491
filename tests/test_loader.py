"""Loader: every window once an epoch, for any number of ranks; the position is the whole state."""

import threading
from collections import Counter

import numpy as np
import pytest
import torch

from gpt2edu.data import shards as S
from gpt2edu.data.loader import Ahead, Loader, permute, round_keys

N, T = 24 * 7, 4  # windows, tokens in a window


def tokens(n=N * T + 1):
    # a token's value is its place, so a window is known by its first token
    return np.arange(n, dtype=np.uint16)


def read(loader, steps):
    return [loader.next_batch() for _ in range(steps)]


def starts(batches):
    return [int(x) for b in batches for x in b[0][:, 0]]


def test_rows_are_windows_and_targets_are_the_next_tokens():
    loader = Loader(tokens(), 3, T)
    for x, y in read(loader, N):
        assert x.shape == y.shape == (3, T) and x.dtype == y.dtype == torch.int64
        assert x.is_contiguous() and y.is_contiguous()
        assert torch.equal(y, x + 1)  # y is x moved on by one
        assert torch.equal(x[:, 0] % T, torch.zeros(3, dtype=torch.int64))
    assert loader.n_windows == N and loader.position == 3 * N


@pytest.mark.parametrize("n,want", [(5, 1), (8, 1), (9, 2), (12, 2), (13, 3)])
def test_n_windows(n, want):
    loader = Loader(tokens(n), 1, 4, shuffle=False)
    assert loader.n_windows == want
    seen = {int(t) for x, y in read(loader, want) for t in [*x.flatten(), *y.flatten()]}
    assert seen == set(range(want * 4 + 1)) and max(seen) < n


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("B", [1, 7])
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_of_all_ranks_is_every_window_once(world, B, shuffle):
    assert N % (B * world) == 0
    for epoch in range(3):
        kw = {"seed": 5, "world_size": world, "position": epoch * N, "shuffle": shuffle}
        ranks = [Loader(tokens(), B, T, rank=r, **kw) for r in range(world)]
        union = Counter(s for loader in ranks for s in starts(read(loader, N // (B * world))))
        assert union == Counter(range(0, N * T, T))
        assert {loader.position for loader in ranks} == {(epoch + 1) * N}


@pytest.mark.parametrize("world,B", [(1, 5), (2, 5), (3, 11), (8, 13), (8, 100)])
def test_batches_that_do_not_divide_the_epoch(world, B):
    """Position p of the stream is the same window for any number of ranks.

    An epoch is any n positions from e * n.
    """
    want = starts(read(Loader(tokens(), 1, T, seed=5), 4 * N))
    loaders = [Loader(tokens(), B, T, seed=5, rank=r, world_size=world) for r in range(world)]
    got = []
    while len(got) < 4 * N:
        got += starts([loader.next_batch() for loader in loaders])
    assert got[: 4 * N] == want
    for e in range(4):
        assert sorted(want[e * N : (e + 1) * N]) == list(range(0, N * T, T))


@pytest.mark.parametrize("world", [1, 3])
def test_resumed_is_unbroken(world):
    for rank in range(world):
        unbroken = Loader(tokens(), 5, T, seed=1, rank=rank, world_size=world)
        read(unbroken, 17)
        saved = unbroken.position
        resumed = Loader(tokens(), 5, T, seed=1, rank=rank, world_size=world, position=saved)
        other = Loader(tokens(), 5, T, seed=1, rank=rank, world_size=world)
        read(other, 3)
        other.position = saved
        for a, b, c in zip(read(unbroken, 30), read(resumed, 30), read(other, 30), strict=True):
            assert all(
                torch.equal(p, q) and torch.equal(p, r) for p, q, r in zip(a, b, c, strict=True)
            )


def test_resume_on_another_number_of_ranks():
    "Stop after some steps on 2 ranks, go on with 3: nothing is read twice, nothing is left out."
    two = [Loader(tokens(), 6, T, rank=r, world_size=2) for r in range(2)]
    seen = starts(b for loader in two for b in read(loader, 4))
    three = [
        Loader(tokens(), 5, T, rank=r, world_size=3, position=two[0].position) for r in range(3)
    ]
    seen += starts(b for loader in three for b in read(loader, (N - 48) // 15))
    assert sorted(seen) == list(range(0, N * T, T))


def test_order_depends_on_seed_and_epoch_and_on_nothing_else():
    epochs = np.array(starts(read(Loader(tokens(), 1, T, seed=0), 5 * N))).reshape(5, N)
    assert len({tuple(e) for e in epochs}) == 5
    assert tuple(epochs[0]) != tuple(starts(read(Loader(tokens(), 1, T, seed=1), N)))
    np.random.seed(3), torch.manual_seed(3)
    state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    loader = Loader(tokens(), 2, T, seed=0)
    assert starts(read(loader, N // 2)) == list(epochs[0])
    assert (
        torch.equal(state[0], torch.random.get_rng_state())
        and (state[1] == np.random.get_state()[1]).all()
    )


def test_order_is_the_same_everywhere():
    "Recorded once: another platform, numpy or torch must give these very numbers."
    assert permute(np.arange(10), 10, round_keys(0, 0)).tolist() == GOLDEN_10
    assert permute(np.arange(4), 9_765_624, round_keys(1337, 2)).tolist() == GOLDEN_BIG


GOLDEN_10 = [4, 8, 2, 0, 9, 5, 6, 3, 7, 1]
GOLDEN_BIG = [2029541, 8493594, 1565075, 7065093]


def plain_permute(i, n, seed, epoch, mask=2**64 - 1):
    "The same permutation in Python integers: arithmetic without a width."

    def mix(x):
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & mask
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
        return x ^ (x >> 31)

    keys = [mix(mix(r * 0x9E3779B97F4A7C15 + seed & mask) + epoch & mask) for r in range(1, 9)]
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    while True:
        left, right = i >> half, i & (2**half - 1)
        for k in keys:
            left, right = right, left ^ (mix(right + k & mask) & (2**half - 1))
        i = left << half | right
        if i < n:
            return i


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 15, 16, 17, 100, 1000, 4096, 4097, 100_003])
def test_permutation(n):
    for seed, epoch in [(0, 0), (-7, 1), (2**70, 3)]:
        got = permute(np.arange(n), n, round_keys(seed, epoch))
        assert (np.sort(got) == np.arange(n)).all()
        some = np.unique(np.linspace(0, n - 1, 20, dtype=int))
        # random access
        assert permute(some, n, round_keys(seed, epoch)).tolist() == got[some].tolist()
        assert [plain_permute(int(i), n, seed, epoch) for i in some] == got[some].tolist()


@pytest.mark.parametrize("n", [5, 12, 60])
def test_permutation_is_fair(n):
    """Over 2,000 epochs each thing comes to each place about as often.

    Chi-squared is within 6 standard deviations.
    """
    epochs = 2000
    table = np.zeros((n, n))
    for e in range(epochs):
        table[np.arange(n), permute(np.arange(n), n, round_keys(0, e))] += 1
    df = (n - 1) ** 2
    chi2 = ((table - epochs / n) ** 2 / (epochs / n)).sum()
    assert abs(chi2 - df) < 6 * np.sqrt(2 * df), (chi2, df)


def test_neighbours_are_separated():
    n = 10_000
    order = permute(np.arange(n), n, round_keys(0, 0))
    assert abs(np.corrcoef(np.arange(n), order)[0, 1]) < 0.05
    assert (np.abs(np.diff(order)) == 1).mean() < 0.005  # a fair shuffle has 2 / n


@pytest.mark.parametrize("n", [1, 3, T])
def test_less_than_one_window(n):
    with pytest.raises(ValueError) as e:
        Loader(tokens(n), 1, T)
    text = str(e.value)
    assert (
        "\n" not in text
        and f"got {n} tokens" in text
        and "expected 5" in text
        and "lower T" in text
    )


def test_less_than_one_window_names_the_file(tmp_path):
    S.write_shard(tmp_path / "a_train_000000.bin", [1, 2, 3])
    with pytest.raises(ValueError, match="a_train_000000"):
        Loader(S.open_shards(tmp_path, "train"), 1, 4)


@pytest.mark.parametrize(
    "kw,text",
    [
        ({"B": 0}, "B=0"),
        ({"T": 0}, "T=0"),
        ({"rank": 2, "world_size": 2}, "rank=2, expected 0 to 1"),
        ({"rank": -1}, "rank=-1, expected 0 to 0"),
        ({"position": -1}, "position=-1"),
    ],
)
def test_arguments(kw, text):
    with pytest.raises(ValueError) as e:
        Loader(tokens(), **({"B": 2, "T": T} | kw))
    assert text in str(e.value) and "\n" not in str(e.value)


def test_reads_across_shards(tmp_path):
    paths = [tmp_path / f"a_train_{i:06d}.bin" for i in range(5)]
    for i, p in enumerate(paths):
        S.write_shard(p, tokens()[i * 150 : (i + 1) * 150])
    a, b = Loader(S.ShardSet(paths), 4, T), Loader(tokens(), 4, T)
    for (x, y), (u, v) in zip(read(a, 50), read(b, 50), strict=True):
        assert torch.equal(x, u) and torch.equal(y, v)


def test_a_thread_reads_ahead_the_same_batches():
    plain, ahead = Loader(tokens(), 3, T, seed=1), Ahead(Loader(tokens(), 3, T, seed=1))

    def reading():
        return sum(t.name.startswith("loader") for t in threading.enumerate())

    assert ahead.position == 0 and reading() == 0  # nobody has asked yet
    for step in range(2 * N // 3):  # two epochs
        for a, b in zip(plain.next_batch(), ahead.next_batch(), strict=True):
            assert torch.equal(a, b)
        assert ahead.position == plain.position  # not that of the batch which was read ahead
        if step % 20 == 7:
            ahead.close()
            assert reading() == 0
    assert reading() == 1
    ahead.position = plain.position = 30
    assert starts([ahead.next_batch()]) == starts([plain.next_batch()])
    ahead.close()
    ahead.close()


def test_an_error_of_the_thread_is_raised_where_its_batch_is_asked_for():
    class Twice(Loader):
        failures = 2

        def next_batch(self):
            if self.position == 6 and self.failures:
                self.failures -= 1
                raise OSError("gone")
            return super().next_batch()

    ahead = Ahead(Twice(tokens(), 3, T), prepare=list)
    got = starts([ahead.next_batch(), ahead.next_batch()])
    for _ in range(2):
        with pytest.raises(OSError, match=r"^gone$"):
            ahead.next_batch()
        assert ahead.position == 6
    got += starts([ahead.next_batch()])  # nothing was skipped
    assert got == starts(read(Loader(tokens(), 3, T), 3))
    ahead.close()
