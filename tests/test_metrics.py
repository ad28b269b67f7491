"""Counting models: hand-computed values, rows that sum to 1, finite losses, quick and lean."""

import itertools
import math
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2edu.text.corpus import stories
from gpt2edu.text.ngram import NGram, bigram_loss, bits_per_byte, perplexity
from gpt2edu.text.tokenizer import Tokenizer


def test_unigram_and_bigram_by_hand():
    ids = [0, 1, 0, 1, 1]  # V = 3, alpha = 1; unigram: n = 2, 3, 0 of 5
    q = np.array([(2 + 1 / 3) / 6, (3 + 1 / 3) / 6, (0 + 1 / 3) / 6])
    assert NGram(1, 3).fit(ids).next_probs([]) == pytest.approx(q)
    bigram = NGram(2, 3).fit(ids)
    # 0 was followed by 1, twice
    assert bigram.next_probs([0]) == pytest.approx((np.array([0, 2, 0]) + q) / 3)
    # the last 1 had no successor
    assert bigram.next_probs([1]) == pytest.approx((np.array([1, 1, 0]) + q) / 3)
    assert bigram.next_probs([2]) == pytest.approx(q)  # never seen: the unigram
    assert bigram.loss([0, 1, 2]) == pytest.approx(
        -(math.log((2 + q[1]) / 3) + math.log(q[2] / 3)) / 2
    )


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4), st.integers(1, 5), st.floats(0.01, 20), st.data())
def test_every_row_is_a_distribution_and_both_views_agree(n, vocab_size, alpha, data):
    text = st.lists(st.integers(0, vocab_size - 1), max_size=40)
    model = NGram(n, vocab_size, alpha).fit(data.draw(text))
    for history in itertools.product(range(vocab_size), repeat=min(n - 1, 2)):
        p = model.next_probs(history)
        assert p.shape == (vocab_size,) and (p > 0).all() and p.sum() == pytest.approx(1, abs=1e-12)
    ids = np.array(data.draw(text), dtype=np.uint16)
    slow = [model.next_probs(ids[:t])[ids[t]] for t in range(len(ids))]
    assert model.token_probs(ids) == pytest.approx(np.array(slow), rel=1e-12)


def test_counts_equal_a_plain_dictionary():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 7, 500)
    for n, (codes, counts, _, _) in zip((1, 2, 3), NGram(3, 7).fit(ids).tables, strict=True):
        want = {}
        for i in range(len(ids) - n + 1):
            key = sum(int(x) * 7 ** (n - 1 - j) for j, x in enumerate(ids[i : i + n]))
            want[key] = want.get(key, 0) + 1
        assert dict(zip(codes.tolist(), counts.tolist(), strict=True)) == want


def test_knowing_nothing_costs_ln_v():
    assert NGram(3, 50257).loss([1, 2, 3]) == pytest.approx(math.log(50257))
    assert NGram(2, 50257).fit([]).loss([1, 2, 3]) == pytest.approx(math.log(50257))
    assert NGram(1, 64).fit(np.arange(64)).loss(np.arange(64)) == pytest.approx(math.log(64))
    assert perplexity(math.log(50257)) == pytest.approx(50257)


def test_known_source_is_learnt_to_its_entropy():
    """A two-state Markov chain.

    A bigram reaches its conditional entropy, a unigram stops at the marginal entropy.
    """
    stay, rng = 0.9, np.random.default_rng(0)
    ids = np.cumsum(rng.random(200_000) > stay) % 2
    train, val = ids[:150_000], ids[150_000:]
    entropy = -(stay * math.log(stay) + (1 - stay) * math.log(1 - stay))
    assert NGram(1, 2).fit(train).loss(val) == pytest.approx(math.log(2), abs=0.005)
    # 3 standard errors: 0.009
    assert NGram(2, 2).fit(train).loss(val) == pytest.approx(entropy, abs=0.01)
    # nothing more to know
    assert NGram(3, 2).fit(train).loss(val) == pytest.approx(entropy, abs=0.01)
    assert bigram_loss(train, val, 2) == NGram(2, 2).fit(train).loss(val)


def zipf(n, vocab_size, seed=0):
    return (np.random.default_rng(seed).zipf(1.3, n) % vocab_size).astype(np.uint16)


def test_three_million_tokens_are_counted_not_looped_over():
    train, val, lines = zipf(3_000_000, 1024), zipf(100_000, 1024, 1), 0

    def count(frame, event, arg):
        nonlocal lines
        lines += event == "line"
        return count

    sys.settrace(count)
    try:
        loss = bigram_loss(train, val, 1024)
    finally:
        sys.settrace(None)
    assert 0 < loss < math.log(1024)
    assert 0 < lines < 100_000  # Python lines that were run


def test_gpt2_vocabulary_needs_no_square_table():
    train, val = zipf(300_000, 50304), zipf(20_000, 50304, 1)
    tracemalloc.start()
    loss = bigram_loss(train, val, 50304)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0 < loss < math.log(50304)
    assert peak < 50e6  # bytes; a dense table of one byte per pair would be 2.5e9
    assert np.isfinite(bigram_loss(train[:10], np.array([50303, 50302, 50303]), 50304))


def test_sample_follows_the_probabilities_and_the_seed():
    model = NGram(2, 3).fit([0, 1, 0, 1, 0, 2] * 50)
    a, b = (model.sample(3000, np.random.default_rng(5), start=[0]) for _ in range(2))
    assert (a == b).all() and len(a) == 3001 and a[0] == 0
    after_0 = a[1:][a[:-1] == 0]
    share = np.bincount(after_0, minlength=3) / len(after_0)
    # over 3 standard errors of ~1,500 draws
    assert share == pytest.approx(model.next_probs([0]), abs=0.05)


def test_bits_per_byte():
    # one token per byte, knowing nothing
    assert bits_per_byte(math.log(256), 10, 10) == pytest.approx(8)
    assert bits_per_byte(2.0, 100, 400) == pytest.approx(2.0 / 4 / math.log(2))


@pytest.mark.parametrize(
    "call,message",
    [
        (
            lambda: NGram(0, 10),
            "n=0 with vocab_size=10 cannot be counted; n must be >= 1 and V**n < 2**63",
        ),
        (
            lambda: NGram(5, 50257),
            "n=5 with vocab_size=50257 cannot be counted; n must be >= 1 and V**n < 2**63",
        ),
        (
            lambda: NGram(2, 9, 0),
            "alpha=0 must be positive, or unseen n-grams get probability 0; try 1.0",
        ),
        (
            lambda: NGram(2, 9).fit([3, 9]),
            "token ids run from 3 to 9, but vocab_size=9; use the tokenizer that made them",
        ),
        (
            lambda: NGram(2, 9).fit([-1, 3]),
            "token ids run from -1 to 3, but vocab_size=9; use the tokenizer that made them",
        ),
        (
            lambda: bigram_loss([1, 2], [1], 9),
            "a loss needs at least 2 tokens, got 1; give a longer text",
        ),
        (
            lambda: bits_per_byte(1.0, 5, 0),
            "n_bytes=0 must be at least 1; count the text with len(text.encode())",
        ),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError) as e:
        call()
    assert str(e.value) == message


def test_no_torch():
    code = "import sys, gpt2edu.text.ngram; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_n_grams_approach_the_floor_of_held_out_stories_and_never_go_under():
    "The floor is the surprise of the program that wrote the stories; above it is a divergence."
    train, val = list(stories(4000, seed=0)), list(stories(400, seed=1))
    tokenizer = Tokenizer.train([s.text for s in train[:1000]], 1024, "stories")

    def flatten(documents):
        parts = [
            [tokenizer.eot, *ids] for ids in tokenizer.encode_batch([s.text for s in documents])
        ]
        return np.array([i for part in parts for i in part] + [tokenizer.eot])

    val_ids = flatten(val)
    floor = -sum(s.logprob for s in val) / (len(val_ids) - 1)
    amounts, orders = (100, 600, 4000), (1, 2, 3, 4, 5)
    loss = {}
    for amount in amounts:
        ids = flatten(train[:amount])
        for n, alpha in itertools.product(orders, (0.3, 1.0, 10.0)):
            loss[n, alpha, amount] = NGram(n, tokenizer.n_vocab, alpha).fit(ids).loss(val_ids)
    assert min(loss.values()) > floor > 0
    for n, alpha in itertools.product(orders, (0.3, 1.0, 10.0)):
        curve = [loss[n, alpha, amount] for amount in amounts]
        assert curve == sorted(curve, reverse=True)  # more text, closer to the floor
    assert loss[1, 1.0, 4000] > loss[2, 1.0, 4000] > loss[3, 1.0, 4000] > loss[4, 1.0, 4000]
    gap = math.log(tokenizer.n_vocab) - floor
    assert loss[4, 10.0, 4000] - floor < 0.2 * gap  # most of the way, by counting alone
