"""Looking inside: hooks leave no trace, a patch does what it says, pairs are what the grammar says.

The stored tiny answers; the truth comes from the grammar and from weights set by hand.
"""

import pytest
import torch

from gpt2edu.evaluate.inside import (
    answers_both,
    fit_probe,
    head_scores,
    hook_stream,
    logit_difference,
    logit_lens,
    read_stream,
    repeated_tokens,
    restored,
    without_head,
)
from gpt2edu.model.gpt import GPT, GPTConfig
from gpt2edu.model.pretrained import from_pretrained
from gpt2edu.text.corpus import read_back, stories
from gpt2edu.text.pairs import KINDS, add_decoys, cut, find_fact, is_story, story_pairs
from gpt2edu.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tiny():
    return from_pretrained("tiny")


@pytest.fixture(scope="module")
def pairs(tiny):
    return {decoys: story_pairs(40, tiny[1], decoys=decoys) for decoys in (False, True)}


@pytest.fixture
def small():
    return GPT(GPTConfig(3, 2, 16, 12, 40), torch.Generator().manual_seed(3)).eval()


IDS = torch.randint(40, (2, 9), generator=torch.Generator().manual_seed(1))


# pairs


def endings(pair, tokenizer):
    "Both texts, each with both answers and what follows them in the story."
    first, second = tokenizer.decode(pair.right), tokenizer.decode(pair.wrong)
    rest = pair.text[len(first + tokenizer.decode([pair.answer])) :]
    return [
        [text + tokenizer.decode([a]) + rest for a in (pair.answer, pair.other)]
        for text in (first, second)
    ]


@pytest.mark.parametrize("decoys", [False, True])
def test_each_story_has_its_own_ending_and_never_the_others(tiny, pairs, decoys):
    for pair in pairs[decoys]:
        (a, b), (c, d) = endings(pair, tiny[1])
        assert is_story(a) and is_story(d) and not is_story(b) and not is_story(c)
        assert a == pair.text and read_back(a) < 0 and pair.kind in KINDS


def test_the_fact_is_the_only_difference_that_decides(tiny, pairs):
    for plain, hard in zip(pairs[False], pairs[True], strict=True):
        differ = [
            i for i, (a, b) in enumerate(zip(plain.right, plain.wrong, strict=True)) if a != b
        ]
        assert differ == [plain.fact]
        assert (plain.text, plain.fact, plain.answer) == (hard.text, hard.fact, hard.answer)
        back = [*hard.wrong]
        back[hard.fact] = hard.right[hard.fact]  # the decoys stay
        first, second = endings(hard._replace(wrong=back), tiny[1])[1]
        assert is_story(first) and not is_story(second)
    counts = [sum(a != b for a, b in zip(p.right, p.wrong, strict=True)) for p in pairs[True]]
    assert sum(counts) / len(counts) > 5


def test_pairs_are_the_same_every_time_and_differ_by_seed(tiny, pairs):
    assert story_pairs(40, tiny[1]) == pairs[False]
    assert story_pairs(40, tiny[1], seed=29) != pairs[False]
    assert max(len(p.right) for p in story_pairs(10, tiny[1], longest=60)) < 60


def test_cutting_a_story_loses_nothing():
    for doc in stories(50, seed=5):
        pieces, ending = cut(doc.text)
        assert "".join(pieces) == doc.text
        assert "".join(pieces[ending:]).startswith(
            (" In the end,", " That", " Finally", " At last")
        )
    with pytest.raises(ValueError, match=r"no ending in 'Mia had a kite\.'; expected"):
        cut("Mia had a kite.")


def test_a_story_whose_ending_no_single_word_decides_gives_no_pair():
    import random

    text = "One day, Mia and Tom were in the barn. Mia had a kite. Now the kite was with Mia. "
    text += "They sat down in the barn and talked. They sat down in the barn and talked. "
    text += "Finally, Mia had the kite."
    assert is_story(text)
    pieces, ending = cut(text)
    assert find_fact(pieces, ending, random.Random(0)) is None


def test_a_decoy_never_touches_the_ending():
    import random

    for doc in stories(30, seed=6):
        pieces, ending = cut(doc.text)
        if found := find_fact(pieces, ending, random.Random(0)):
            second = add_decoys(pieces, ending, found, random.Random(1))
            changed = [i for i in range(ending, len(pieces)) if pieces[i] != second[i]]
            assert changed == [found[1]]


def test_a_tokenizer_that_cuts_the_words_is_refused():
    other = Tokenizer.train(["some other text"], 260, "other")
    with pytest.raises(ValueError, match=r"0 of 1 pairs found: other cuts the words of the stor"):
        story_pairs(1, other)


# hooks


@pytest.mark.parametrize("depth", range(4))
def test_a_hook_that_changes_nothing_leaves_every_bit_and_one_that_does_is_gone_after(small, depth):
    with torch.no_grad():
        before = small(IDS)[0]
        for f in (lambda x: None, lambda x: x.clone()):
            with hook_stream(small, depth, f):
                assert torch.equal(small(IDS)[0], before)
        with hook_stream(small, depth, torch.zeros_like):
            assert not torch.equal(small(IDS)[0], before)
        with pytest.raises(RuntimeError), hook_stream(small, depth, torch.zeros_like):
            raise RuntimeError("inside")
        assert torch.equal(small(IDS)[0], before)


@pytest.mark.parametrize("depth", [-1, 4])
def test_a_depth_that_is_none_is_named(small, depth):
    with (
        pytest.raises(ValueError, match=rf"depth={depth} is not in a model of 3 blocks; expected"),
        hook_stream(small, depth, print),
    ):
        pass


def test_the_stream_begins_with_the_embeddings_and_ends_with_the_logits(small):
    stream = read_stream(small, IDS)
    with torch.no_grad():
        assert torch.equal(stream[0], small.embed(IDS))
        for d, block in enumerate(small.transformer.h):
            assert torch.allclose(block(stream[d]), stream[d + 1], atol=1e-6)
        assert torch.equal(logit_lens(small, stream[-1]), small(IDS)[0])
    assert not logit_lens(small, stream).requires_grad


def test_a_hook_works_with_the_cache_and_with_gradients(small):
    caches = small.new_caches()
    with torch.no_grad(), hook_stream(small, 0, lambda x: 2 * x):
        whole = small(IDS)[0]
        pieces = [small(part, caches=caches)[0] for part in IDS.split([5, 4], 1)]
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-5)
    with hook_stream(small, 1, lambda x: x * 1.0):
        small(IDS, IDS)[1].backward()
    assert small.transformer.wte.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("layer,head", [(0, 0), (1, 1), (2, 0)])
def test_a_head_that_is_out_equals_weights_of_zero(small, layer, head):
    part = slice(8 * head, 8 * head + 8)
    with torch.no_grad():
        before = small(IDS)[0]
        with without_head(small, layer, head, zero=True):
            out = small(IDS)[0]
        with without_head(small, layer, head):
            mean = small(IDS)[0]
        assert torch.equal(small(IDS)[0], before)
        small.transformer.h[layer].attn.c_proj.weight[:, part] = 0
        assert torch.allclose(small(IDS)[0], out, atol=1e-6)
    assert not torch.allclose(mean, out, atol=1e-6) and not torch.allclose(out, before, atol=1e-6)


def test_a_head_that_says_the_same_everywhere_costs_nothing_to_replace_by_its_mean(small):
    attn = small.transformer.h[1].attn
    with torch.no_grad():
        attn.c_attn.weight[32:40] = 0  # values of head 0
        attn.c_attn.bias[32:40] = 0.7
        before = small(IDS)[0]
        with without_head(small, 1, 0):
            assert torch.allclose(small(IDS)[0], before, atol=1e-6)
        with without_head(small, 1, 0, zero=True):
            assert not torch.allclose(small(IDS)[0], before, atol=1e-4)


# patches


def test_a_patch_at_the_words_is_an_exchange_of_the_words(tiny, pairs):
    model, _ = tiny
    for pair in pairs[True][:8]:
        got = restored(model, pair, 0)
        with torch.no_grad():
            second, first = logit_difference(model, torch.tensor([pair.wrong, pair.right]), pair)
            for i in range(len(pair.right)):
                if pair.right[i] == pair.wrong[i]:
                    assert abs(got[i]) < 1e-4
                else:
                    ids = [*pair.wrong]
                    ids[i] = pair.right[i]
                    exchanged = logit_difference(model, torch.tensor([ids]), pair)
                    share = (exchanged - second) / (first - second)
                    assert torch.allclose(got[i], share[0], atol=1e-4)


def test_behind_the_last_block_only_the_last_position_counts(tiny, pairs):
    model, _ = tiny
    for pair in pairs[False][:8]:
        got = restored(model, pair, model.config.n_layer)
        assert got[:-1].abs().max() < 1e-4 and abs(got[-1] - 1) < 1e-4
        some = [pair.fact, len(pair.right) - 1]
        assert torch.allclose(
            restored(model, pair, 1, some), restored(model, pair, 1)[some], atol=1e-4
        )


def test_before_the_fact_no_patch_does_anything_at_any_depth(tiny, pairs):
    model, _ = tiny
    for pair in pairs[False][:8]:
        for depth in range(3):
            assert restored(model, pair, depth)[: pair.fact].abs().max() < 1e-4


def test_patching_names_the_word_that_decides(tiny, pairs):
    "Issue 14: in 90 % of 200 pairs, which chapter 28 asserts; here in the first of them."
    model, _ = tiny
    hard = [p for p in pairs[True] if answers_both(model, p)]
    hit = chance = 0
    for pair in hard:
        differ = [i for i, (a, b) in enumerate(zip(pair.right, pair.wrong, strict=True)) if a != b]
        hit += differ[restored(model, pair, 0, differ).argmax()] == pair.fact
        chance += 1 / len(differ)
    assert len(hard) > 20 and hit >= 0.9 * len(hard) > 5 * chance


def test_a_name_is_found_at_the_stop_after_one_block(tiny, pairs):
    model, tokenizer = tiny
    names = [p for p in pairs[False] if p.kind == "name" and answers_both(model, p)]
    at = [tokenizer.decode([p.right[restored(model, p, 1).argmax()]]) for p in names]
    assert len(at) > 5 and at.count(".") > 0.7 * len(at)


def test_the_two_stories_exchanged_change_the_signs(tiny, pairs):
    model, _ = tiny
    for pair in pairs[False][:10]:
        turned = pair._replace(
            right=pair.wrong, wrong=pair.right, answer=pair.other, other=pair.answer
        )
        assert answers_both(model, pair) == answers_both(model, turned)
        ids = torch.tensor([pair.right])
        with torch.no_grad():
            assert logit_difference(model, ids, pair) == -logit_difference(model, ids, turned)


# heads and probes


def test_repeated_tokens_repeat_and_nothing_stands_twice_in_a_copy():
    rows = repeated_tokens(torch.arange(5, 30), P=12, B=4)
    assert rows.shape == (4, 24) and torch.equal(rows[:, :12], rows[:, 12:])
    assert all(len(set(row[:12].tolist())) == 12 for row in rows) and rows.min() >= 5
    assert torch.equal(rows, repeated_tokens(torch.arange(5, 30), P=12, B=4))
    assert not torch.equal(rows, repeated_tokens(torch.arange(5, 30), P=12, B=4, seed=1))


def test_the_score_of_a_head_that_looks_everywhere_alike():
    model = GPT(GPTConfig(1, 2, 16, 12, 40), torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.transformer.h[0].attn.c_attn.weight.zero_()
    rows = repeated_tokens(torch.arange(40), P=6, B=3)
    even = sum(1 / (t + 1) for t in range(6, 12)) / 6
    for back in (1, 5, 6):
        assert torch.allclose(head_scores(model, rows, back), torch.full((1, 2), even), atol=1e-6)


def test_the_score_of_a_head_that_looks_one_back():
    "Queries and keys set by hand: each position looks for the mark of the one before."
    model = GPT(GPTConfig(1, 1, 24, 12, 12), torch.Generator().manual_seed(0))
    attn = model.transformer.h[0].attn
    with torch.no_grad():
        model.transformer.wte.weight.zero_()
        model.transformer.wpe.weight.zero_()
        model.transformer.wpe.weight[:, :12] = torch.eye(12)
        attn.c_attn.weight.zero_()
        attn.c_attn.weight[:12, :12] = 8 * torch.eye(12).roll(-1, 0)  # query of t: mark of t - 1
        attn.c_attn.weight[24:36, :12] = 8 * torch.eye(12)
    rows = repeated_tokens(torch.arange(12), P=6, B=2)
    assert head_scores(model, rows, back=1).item() > 0.99
    assert head_scores(model, rows, back=5).item() < 0.01


def test_a_probe_reads_what_is_there_and_nothing_else():
    g = torch.Generator().manual_seed(0)
    y, noise = torch.randint(4, (800,), generator=g), torch.randint(4, (800,), generator=g)
    x = torch.randn(800, 12, generator=g)
    x[:, :4] += 6 * torch.eye(4)[y]
    x[:, 4] = 3.0  # a constant column divides by no spread
    read = fit_probe(x[:600], y[:600], 4)(x[600:])
    lots = fit_probe(x[:600], noise[:600], 4)(x[600:])
    assert (read == y[600:]).float().mean() > 0.97
    assert (lots == noise[600:]).float().mean() < 0.4
