"The fast scorer against transformers' GPT-2, one ending at a time, on items meant to break it."

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2edu.evaluate import hellaswag as h
from gpt2edu.model.gpt import GPT, GPTConfig
from gpt2edu.text.corpus import stories, story_items
from gpt2edu.text.tokenizer import Tokenizer

BLOCK = 160


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train((s.text for s in stories(300)), 700, "stories")


@pytest.fixture(scope="module")
def pair(tokenizer):
    "One set of random weights in transformers' model and in ours."
    torch.manual_seed(0)
    sizes = {"n_layer": 3, "n_head": 4, "n_embd": 64, "vocab_size": tokenizer.n_vocab}
    theirs = GPT2LMHeadModel(GPT2Config(**sizes, n_positions=BLOCK, initializer_range=0.1)).eval()
    ours = GPT(GPTConfig(**sizes, block_size=BLOCK))
    flipped = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    ours.load_state_dict(
        {k: w.t() if k.endswith(flipped) else w for k, w in theirs.state_dict().items()}
    )
    return theirs, ours.eval()


WORDS = "the a He She it barn ball, gave lost was 12 3.5 don't [title] [step] x".split()
WORDS += ["Ünïcode", "漢字", "🚀", "naïve", "café", "कखग", "e\u0301", "\u200f", "\u00a0"]


def broken_on_purpose(tokenizer, n, seed=0):
    "Items of every shape that has ever made a scorer fail."
    rng = random.Random(seed)

    def words(low, high):
        return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))

    shapes = [
        lambda: [words(1, 12) for _ in range(4)],
        lambda: ["a", "b", "c", "d"],  # one token each
        lambda: ["a", words(1, 60), "c", words(20, 30)],  # lengths far apart
        lambda: [(e := words(1, 9)), words(1, 9), e, e],  # equal text
        lambda: [words(2, 5)] * 4,  # nothing but equal text
        lambda: ["", " ", words(1, 3), "[step]"],  # empty, or empty once it is cleaned
        lambda: [f"the same beginning {w}" for w in ("a", "b", "of it", "")],
    ]
    items = []
    for ind in range(n):
        kind = ind % 5
        ctx_a, ctx_b = words(1, 30), words(0, 5)
        endings = rng.choice(shapes)()
        if kind == 3:  # at the limit of the context, just under it, just over it, far over it
            rest = len(tokenizer.encode(f" {ctx_a} {ctx_b}")) + max(
                len(tokenizer.encode(f" {e}")) for e in endings
            )
            fill = max(0, BLOCK + rng.choice([0, 1, 2, 3, BLOCK, -rng.randint(1, 12)]) - rest)
            # three tokens each, and one
            ctx_a = "\u2603" * (fill // 3) + "z" * (fill % 3) + " " + ctx_a
        if kind == 4:  # white space at the border
            ctx_b += rng.choice([" ", "  ", "\n", " [step]", "\t "])
        fields = {"ctx_a": ctx_a, "ctx_b": ctx_b, "ctx": f"{ctx_a} {ctx_b}" if ctx_b else ctx_a}
        label = rng.randrange(4)
        items.append(
            {
                "ind": ind,
                "activity_label": words(1, 3),
                **fields,
                "endings": endings,
                "label": rng.choice([label, str(label)]),
            }
        )
    items[0] |= {"ctx": ""}  # plain: no context at all
    # an ending that is longer than the context
    items[1] |= {"endings": ["z\u2603" * BLOCK, "b", "c", "d"]}
    return items


def reference_ids(item, j, tokenizer, convention):
    "Context and ending in ids, written after the harness's own code, not after ours."
    if convention == "plain":
        return tokenizer.encode(item["ctx"]), tokenizer.encode(" " + item["endings"][j])

    def preprocess(text):
        text = text.strip()
        text = text.replace(" [title]", ". ")
        while (a := text.find("[")) >= 0 and (b := text.find("]", a)) >= 0:
            text = text[:a] + text[b + 1 :]
        return text.replace("  ", " ")

    context = preprocess(
        item["activity_label"] + ": " + item["ctx_a"] + " " + item["ctx_b"].capitalize()
    )
    continuation = " " + preprocess(item["endings"][j])
    n_spaces = len(context) - len(context.rstrip())
    if n_spaces > 0:
        continuation = context[-n_spaces:] + continuation
        context = context[:-n_spaces]
    whole, start = tokenizer.encode(context + continuation), tokenizer.encode(context)
    return start, whole[len(start) :]


@torch.no_grad()
def reference(model, items, tokenizer, convention, start=()):
    """Surprise of each ending, its tokens, characters and bytes.

    One text at a time through transformers' model.
    """
    nats, by = np.zeros((len(items), 4)), np.zeros((3, len(items), 4))
    for i, item in enumerate(items):
        for j, text in enumerate(item["endings"]):
            context, ending = reference_ids(item, j, tokenizer, convention)
            context = [*start, *context] or [tokenizer.eot]
            ids = torch.tensor((context + ending)[-(BLOCK + 1) :])
            n = min(len(ending), len(ids) - 1)
            logits = model(ids[None, :-1]).logits[0]
            nats[i, j] = F.cross_entropy(logits[-n:], ids[-n:], reduction="none").double().sum()
            if convention == "harness":
                text = h.clean(text)
            by[:, i, j] = n, len(text), len(text.encode())
    return nats, by


def compare(pair, tokenizer, items, convention, start=()):
    theirs, ours = pair
    want, (tokens, characters, n_bytes) = reference(theirs, items, tokenizer, convention, start)
    encoded = [h.encode_item(item, tokenizer, start, convention) for item in items]
    got = h.ending_nats(ours, encoded)
    assert np.abs((got.numpy() - want) / tokens).max() < 1e-4  # loss, nats/token
    scores = h.score(got, encoded, BLOCK, convention)
    norms = {
        "acc": np.ones_like(want),
        "acc_norm": tokens if convention == "plain" else characters,
        "acc_bytes": n_bytes,
    }
    for figure in h.MEASURES[convention]:
        with np.errstate(divide="ignore"):
            predictions = np.argmin(want / norms[figure], axis=1)  # the first of equals
        assert scores[figure]["predictions"] == predictions.tolist()
        right = int(
            sum(p == int(item["label"]) for p, item in zip(predictions, items, strict=True))
        )
        assert scores[figure]["right"] == right and scores[figure]["n"] == len(items)
        assert scores[figure]["accuracy"] == right / len(items)
    return scores


@pytest.mark.parametrize("convention", ["plain", "harness"])
def test_equals_transformers_on_broken_items(pair, tokenizer, convention):
    compare(pair, tokenizer, broken_on_purpose(tokenizer, 150), convention)


@pytest.mark.parametrize("convention", ["plain", "harness"])
def test_equals_transformers_on_stories(pair, tokenizer, convention):
    compare(pair, tokenizer, story_items(60), convention, start=[tokenizer.eot])


@pytest.mark.slow
@pytest.mark.parametrize("convention", ["plain", "harness"])
def test_equals_transformers_on_a_thousand_items(pair, tokenizer, convention):
    compare(
        pair, tokenizer, broken_on_purpose(tokenizer, 500, seed=1) + story_items(500), convention
    )


def test_the_broken_items_are_what_they_claim(tokenizer):
    encoded = [h.encode_item(item, tokenizer) for item in broken_on_purpose(tokenizer, 150)]
    sizes = [len(e.context) + max(map(len, e.endings)) - BLOCK for e in encoded]
    # fits; fits to the last; one over
    assert {s for s in sizes if -2 <= s <= 3} >= {0, 1, 2} and max(sizes) > BLOCK
    assert any(all(len(e) == 1 for e in item.endings) for item in encoded)
    assert sum(len({tuple(e) for e in item.endings}) == 1 for item in encoded) > 3
    assert any(len(e) > BLOCK for item in encoded for e in item.endings)


def test_equal_endings_tie_and_the_first_wins(pair, tokenizer):
    item = story_items(1)[0] | {
        "endings": ["he was at the barn.", "a ball.", "a ball.", "he was at the barn."]
    }
    encoded = [h.encode_item(item | {"label": k}, tokenizer) for k in range(4)]
    nats = h.ending_nats(pair[1], encoded)
    assert nats[0, 0] == nats[0, 3] and nats[0, 1] == nats[0, 2]  # the same bits
    for figure in h.score(nats, encoded, BLOCK).values():
        assert set(figure["predictions"]) <= {0, 1} and figure["right"] == 1


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(4)), st.integers(0, 10**6), st.integers(1, 9))
def test_order_and_batches_change_nothing(pair, tokenizer, order, seed, batch_size):
    items = broken_on_purpose(tokenizer, 12, seed)
    encoded = [h.encode_item(item, tokenizer) for item in items]
    turned = [e._replace(endings=[e.endings[k] for k in order]) for e in encoded]
    want = h.ending_nats(pair[1], encoded, batch_size=1)
    got = h.ending_nats(pair[1], turned, batch_size)
    torch.testing.assert_close(got, want[:, list(order)], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_the_ranks_together_have_the_bits_of_one(pair, tokenizer, world_size):
    encoded = [h.encode_item(item, tokenizer) for item in broken_on_purpose(tokenizer, 60)]
    alone = h.ending_nats(pair[1], encoded)
    parts = [h.ending_nats(pair[1], encoded, 8, rank, world_size) for rank in range(world_size)]
    assert torch.equal(sum(parts), alone)
    assert all(((p != 0).sum(0) > 0).all() for p in parts)  # nobody was idle


def test_the_context_runs_once_and_the_head_where_it_is_needed(pair, tokenizer, monkeypatch):
    "Tokens are counted where they go in and where they come out."
    encoded = [h.encode_item(item, tokenizer) for item in story_items(40)]
    # the rest is cut
    encoded = [e for e in encoded if len(e.context) + max(map(len, e.endings)) <= BLOCK + 1]
    assert len(encoded) > 20
    model, seen, head = pair[1], {"in": 0, "out": 0}, F.linear

    def linear(x, weight, *bias):
        if weight is model.lm_head.weight:
            seen["out"] += len(x)
        return head(x, weight, *bias)

    hook = model.transformer.wte.register_forward_hook(
        lambda m, args, out: seen.update({"in": seen["in"] + args[0].numel()})
    )
    monkeypatch.setattr(F, "linear", linear)
    h.ending_nats(model, encoded, batch_size=1)  # nothing is filled up
    hook.remove()
    n_endings = sum(len(x) for e in encoded for x in e.endings)
    assert seen["in"] == sum(len(e.context) - 1 for e in encoded) + n_endings
    assert seen["out"] == n_endings


def test_little_is_filled_up(tokenizer):
    "Rows of one batch are of about the same length."
    encoded = [h.encode_item(item, tokenizer) for item in story_items(200)]
    shared = [s for i, e in enumerate(encoded) for s in h.share_context(i, e, 256)]
    work = sorted(shared, key=lambda s: s.size)
    batches = [work[a : a + 8] for a in range(0, len(work), 8)]
    places = sum(len(b) * b[-1].size for b in batches)
    assert sum(s.size for s in work) > 0.95 * places


def test_one_token_endings(pair, tokenizer):
    encoded = [h.Encoded([1, 2, 3], [[4], [5], [6], [7]], list("abcd"), 0)]
    packed = h.pack(h.share_context(0, encoded[0], BLOCK))
    assert packed.ids.tolist() == [[1, 2, 3, 3, 3, 3]]
    assert packed.positions.tolist() == [[0, 1, 2, 2, 2, 2]]
    logp = pair[1](torch.tensor([[1, 2, 3]]))[0][0, -1].log_softmax(0)
    torch.testing.assert_close(h.ending_nats(pair[1], encoded)[0].float(), -logp[[4, 5, 6, 7]])


def test_a_context_of_one_token(pair, tokenizer):
    encoded = [h.Encoded([9], [[4, 1], [5], [6, 2, 3], [7]], list("abcd"), 0)]
    want = []
    for ending in encoded[0].endings:
        logits = pair[1](torch.tensor([[9, *ending[:-1]]]))[0][0]
        want.append(float(F.cross_entropy(logits, torch.tensor(ending), reduction="sum")))
    got = h.ending_nats(pair[1], encoded)[0]
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=1e-5, atol=1e-5)


def test_gradients_are_not_kept(pair, tokenizer):
    encoded = [h.encode_item(story_items(1)[0], tokenizer)]
    assert not h.ending_nats(pair[1], encoded).requires_grad
    assert torch.is_grad_enabled()


def test_scores_by_hand():
    "Four endings of 1, 2, 3 and 4 tokens; characters and bytes differ."
    item = h.Encoded(
        [0], [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4]], ["ab", "é" * 6, "x" * 5, "y" * 3], 1
    )
    nats = torch.tensor([[2.0, 3.0, 2.5, 4.0]], dtype=torch.float64)
    plain, harness = (h.score(nats, [item], 100, c) for c in ("plain", "harness"))
    # 2; 2.5 / 3
    assert {k: f["predictions"] for k, f in plain.items()} == {"acc": [0], "acc_norm": [2]}
    # by characters 1, 0.5, 0.5, 1.33: equal, the first wins; by bytes 1, 0.25, 0.5, 1.33
    assert {k: f["predictions"] for k, f in harness.items()} == {
        "acc": [0],
        "acc_norm": [1],
        "acc_bytes": [1],
    }
    assert harness["acc_norm"]["right"] == 1 and plain["acc"]["right"] == 0
    assert h.lengths(item, "byte", 100) == [2, 12, 5, 3]
    assert h.lengths(item, "token", 3) == [1, 2, 3, 3]


def test_standard_error():
    assert h.standard_error(0.2955, 10042) == pytest.approx(0.00455, abs=1e-5)
    assert h.standard_error(1.0, 5) == 0


def test_the_conventions_read_different_texts(tokenizer):
    item = {
        "ctx": "A man sits. he",
        "ctx_a": "A man sits.",
        "ctx_b": "he",
        "activity_label": "Sitting",
    }
    item |= {"endings": ["is [title] up", "b", "c", "d"], "label": "2", "ind": 0}
    plain, harness = (h.encode_item(item, tokenizer, (), c) for c in ("plain", "harness"))
    assert tokenizer.decode(plain.context) == "A man sits. he" and plain.texts[0] == "is [title] up"
    assert tokenizer.decode(harness.context) == "Sitting: A man sits. He"
    assert (
        harness.texts[0] == "is.  up".replace("  ", " ")
        and tokenizer.decode(harness.endings[1]) == " b"
    )
    assert plain.label == harness.label == 2
    assert h.encode_item(item, tokenizer, [tokenizer.eot]).context[0] == tokenizer.eot


def test_choice_accuracy_is_what_the_trainer_knows(pair, tokenizer):
    items = story_items(50)
    got = h.choice_accuracy(pair[1], tokenizer, items, start=[tokenizer.eot])
    want = compare(pair, tokenizer, items, "plain", start=[tokenizer.eot])["acc_norm"]
    assert got == want and {"accuracy", "error", "n", "predictions"} <= got.keys()
    with pytest.raises(ValueError, match=r"^got no items, expected at least one$"):
        h.choice_accuracy(pair[1], tokenizer, [])


def test_a_model_that_diverged_is_no_quarter(tokenizer):
    model = GPT(GPTConfig(1, 2, 32, BLOCK, tokenizer.n_vocab))
    with torch.no_grad():
        model.transformer.ln_f.weight[0] = float("nan")
    with pytest.raises(
        ValueError,
        match=r"^the model's losses are not finite: its training diverged; use an earlier",
    ):
        h.choice_accuracy(model, tokenizer, story_items(3))


GOOD = story_items(1)[0]


@pytest.mark.parametrize(
    "item,message",
    [
        ([1], "item ?: got list, expected an object with HellaSwag's fields"),
        ({}, "item ?: no ctx, got nothing; expected HellaSwag's fields"),
        ({"ind": 3, "ctx": "a"}, "item 3: no endings, got ind, ctx; expected HellaSwag's fields"),
        (GOOD | {"endings": "abcd"}, "item 0: endings is str, expected a list of 4 texts"),
        (GOOD | {"endings": ["a", "b", "c"]}, "item 0: got 3 endings, expected 4"),
        (GOOD | {"endings": ["a", "b", "c", 4]}, "item 0: got 4, expected text"),
        (GOOD | {"label": 4}, "item 0: got label 4, expected 0, 1, 2 or 3"),
        (GOOD | {"label": "-1"}, "item 0: got label '-1', expected 0, 1, 2 or 3"),
        (GOOD | {"label": True}, "item 0: got label True, expected 0, 1, 2 or 3"),
        (GOOD | {"label": None}, "item 0: got label None, expected 0, 1, 2 or 3"),
        (
            GOOD | {"label": ""},
            "item 0: got label '', expected 0, 1, 2 or 3; "
            "a test split has no labels, use validation",
        ),
        (GOOD | {"ctx": None}, "item 0: got None, expected text"),
    ],
)
def test_malformed_items(tokenizer, item, message):
    with pytest.raises(ValueError) as e:
        h.encode_item(item, tokenizer)
    assert str(e.value) == message


def test_malformed_items_of_the_harness(tokenizer):
    item = {k: v for k, v in GOOD.items() if k != "ctx_b"}
    assert h.encode_item(item, tokenizer).label == int(GOOD["label"])  # plain does not read it
    with pytest.raises(ValueError, match=r"^item 0: no ctx_b, got ind, "):
        h.encode_item(item, tokenizer, (), "harness")
    with pytest.raises(ValueError, match=r"^file, line 2: text has the lone surrogate"):
        h.check_item(GOOD | {"ctx": "\ud83d"}, "plain", "file, line 2")
