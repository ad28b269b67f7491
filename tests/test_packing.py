"Packed rows: nothing leaks between documents, only answers count, any split gives one gradient."

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt2edu.data.packing import PackedLoader, PackedSet, best_fit, conversation, own_document
from gpt2edu.evaluate.answers import answer_loss
from gpt2edu.model import gpt
from gpt2edu.model.gpt import GPT, IGNORE, GPTConfig
from gpt2edu.text.chat import with_chat
from gpt2edu.text.corpus import stories
from gpt2edu.text.questions import Question, questions_about
from gpt2edu.text.tokenizer import Tokenizer

T = 256


@pytest.fixture(scope="module")
def tokenizer():
    return with_chat(Tokenizer.train([s.text for s in stories(60)], 500, "stories"))


@pytest.fixture(scope="module")
def talks(tokenizer):
    return [conversation(tokenizer, questions_about(i, "train", 2), T) for i in range(24)]


@pytest.fixture(scope="module")
def packed(talks):
    return PackedSet(talks, T, "stories")


@pytest.fixture(scope="module")
def model(tokenizer):
    config = GPTConfig(2, 2, 32, T, 512)
    return GPT(config, torch.Generator().manual_seed(1)).double()


def inputs(packed, rows=slice(None)):
    arrays = (packed.x, packed.y, packed.positions, packed.owner)
    return [torch.from_numpy(a[rows]).long() for a in arrays]


def streams(model, x, positions):
    "The stream before the first block, as a leaf, and a model that begins there."
    leaf = (model.transformer.wte(x) + model.transformer.wpe(positions)).detach()
    leaf.requires_grad_(True)
    model.embed = lambda *_: leaf
    return leaf


@pytest.fixture
def began(model):
    yield model
    model.__dict__.pop("embed", None)


def gradient_at_each_place(model, x, y, positions, mask):
    "How strongly the loss depends on what each place of the row reads."
    leaf = streams(model, x, positions)
    model(x, y, positions=positions, mask=mask)[1].backward()
    return leaf.grad.abs().sum(-1)


def row_of_two(packed):
    "The first row that holds two documents or more."
    return next(i for i, row in enumerate(packed.owner) if row.max() > 0)


def test_no_gradient_from_another_document(packed, began):
    r = row_of_two(packed)
    x, y, positions, owner = inputs(packed, slice(r, r + 1))
    for k in range(int(owner.max()) + 1):
        only = torch.where(owner == k, y, IGNORE)  # the loss of document k alone
        found = gradient_at_each_place(began, x, only, positions, own_document(owner))
        assert (found[owner != k] == 0).all() and (found[owner == k] > 0).any()


def test_without_the_mask_it_leaks(packed, began):
    "So that the test above is seen to look at the right thing."
    r = row_of_two(packed)
    x, y, positions, owner = inputs(packed, slice(r, r + 1))
    only = torch.where(owner == 1, y, IGNORE)
    found = gradient_at_each_place(began, x, only, positions, None)
    assert (found[owner == 0] > 0).all()


def test_no_gradient_from_the_loss_of_a_prompts_token(packed, model, tokenizer):
    x, y, positions, owner = inputs(packed)
    logits = model(x, positions=positions, mask=own_document(owner))[0]
    logits.retain_grad()
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten())
    loss.backward()
    found = logits.grad.abs().sum(-1)
    assert (found[y == IGNORE] == 0).all() and (found[y != IGNORE] > 0).all()
    text = tokenizer.decode(y[y != IGNORE])
    assert "<|user|>" not in text and text.count("<|end|>") == 48


def test_every_answer_is_the_target_of_the_place_before_it(talks, packed):
    want = sorted(i for d in talks for i, a in zip(d.ids, d.answers, strict=True) if a)
    assert sorted(packed.y[packed.y != IGNORE].tolist()) == want
    later = packed.y[:, :-1] != IGNORE
    inside = later & (packed.owner[:, 1:] == packed.owner[:, :-1])
    assert (packed.y[:, :-1][inside] == packed.x[:, 1:][inside]).all()


def test_a_packed_row_computes_what_its_documents_compute_alone(talks, packed, model):
    x, y, positions, owner = inputs(packed)
    where = {"positions": positions, "mask": own_document(owner)}
    together = model(x, y, each=True, **where)[1].sum()
    g = torch.autograd.grad(together, list(model.parameters()))
    alone = 0
    for d in talks:
        ids = torch.tensor(d.ids)
        target = torch.where(torch.tensor(d.answers), ids, IGNORE)
        alone += model(ids[None, :-1], target[None, 1:], each=True)[1].sum()
    h = torch.autograd.grad(alone, list(model.parameters()))
    # the losses are float32
    assert torch.allclose(together, alone, rtol=1e-6)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in zip(g, h, strict=True))


def test_the_head_is_multiplied_only_where_a_target_counts(packed, model, monkeypatch):
    x, y, positions, owner = inputs(packed)
    where = {"positions": positions, "mask": own_document(owner)}
    wanted = torch.nn.functional.cross_entropy(model(x, **where)[0].flatten(0, 1), y.flatten())
    rows, real = [], gpt.multiply
    monkeypatch.setattr(gpt, "multiply", lambda h, w: (rows.append(len(h)), real(h, w))[1])
    loss = model(x, y, **where)[1]
    assert rows == [(y != IGNORE).sum()] and rows[0] < y.numel() / 2
    assert torch.allclose(loss, wanted.float(), rtol=1e-6)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=60))
def test_best_fit_keeps_every_document_and_no_row_overflows(sizes):
    rows = best_fit(sizes, 100)
    assert sorted(i for row in rows for i in row) == list(range(len(sizes)))
    assert all(sum(sizes[i] for i in row) <= 100 for row in rows)
    assert len(rows) <= 2 * sum(sizes) / 100 + 1


@pytest.mark.parametrize("shape", [(6, 1, 1), (3, 2, 1), (1, 6, 1), (3, 1, 2), (1, 2, 3)])
def test_any_split_of_a_step_gives_one_gradient(packed, model, shape):
    B, n_micro, world = shape
    total = None
    for rank in range(world):
        loader = PackedLoader(packed, B, n_micro, 5, rank, world)
        for _ in range(n_micro):
            b = loader.next_batch()
            part = model(b.x, b.y, positions=b.positions, mask=b.mask)[1] * b.share.double()
            g = torch.autograd.grad(part, list(model.parameters()))
            total = g if total is None else [a + b for a, b in zip(total, g, strict=True)]
    rows = PackedLoader(packed, 6, seed=5).rows(np.arange(6))
    x, y, positions, owner = inputs(packed, rows)
    loss = model(x, y, positions=positions, mask=own_document(owner))[1]
    want = torch.autograd.grad(loss, list(model.parameters()))
    # the share is a float32
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-8) for a, b in zip(total, want, strict=True))


def test_an_epoch_has_each_row_once_and_position_is_the_whole_state(packed):
    n = len(packed.x)
    loader = PackedLoader(packed, 1, seed=3)
    first = [loader.next_batch().x for _ in range(n)]
    second = [loader.next_batch().x for _ in range(n)]
    key = [tuple(x[0].tolist()) for x in first]
    assert sorted(key) == sorted(tuple(row) for row in packed.x.tolist())
    assert key != [tuple(x[0].tolist()) for x in second]
    again = PackedLoader(packed, 1, seed=3, position=n)
    assert all(torch.equal(again.next_batch().x, x) for x in second)


def test_the_loss_of_answers_counts_each_once(packed, model):
    x, y, positions, owner = inputs(packed)
    want = model(x, y, positions=positions, mask=own_document(owner))[1].item()
    for batch in (1, 4, 64):
        assert answer_loss(model, packed, batch) == pytest.approx(want, rel=1e-6)


def test_what_does_not_fit_is_left_out(tokenizer):
    long = Question("file", "Mia had a ball. " * 90, "Who had a ball?", "Mia.")
    assert conversation(tokenizer, [long], T) is None
    short = Question("file", "", "Who?", "Mia.")
    more = long._replace(question=long.story, story="")
    talk = conversation(tokenizer, [short, more], T)  # what fits is kept
    assert tokenizer.decode(talk.ids) == "<|user|>Who?<|assistant|>Mia.<|end|>"
    with pytest.raises(ValueError, match="nothing to learn"):
        PackedSet([], T, "none.jsonl")
