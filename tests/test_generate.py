"""Sampling is exact.

Cached = uncached, batch = single, padding never drawn, Hugging Face's filters and greedy text.
"""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2edu.model import linear
from gpt2edu.model.generate import (
    TextStream,
    complete,
    complete_batch,
    generate,
    generate_batch,
    next_token_probs,
    pick,
    stream_text,
)
from gpt2edu.model.gpt import GPT, GPTConfig
from gpt2edu.model.int8 import Int8Linear, int8_model, quantise
from gpt2edu.model.linear import LARGE, Linear, OneDNN, multiply, onednn_is_faster
from gpt2edu.model.lora import HEAD, PARTS, add_lora, lora_layers, merge_lora
from gpt2edu.text.chat import with_chat
from gpt2edu.text.tokenizer import Tokenizer

CONFIG = GPTConfig(n_layer=2, n_head=4, n_embd=32, block_size=96, vocab_size=304)


class Bytes:
    "The smallest tokenizer: a token is a byte, 256 ends a text; the model above pads with 47 ids."

    eot, n_vocab = 256, 257

    def encode(self, text):
        return list(text.encode())

    def decode_bytes(self, ids):
        return bytes(ids)


class Scripted(torch.nn.Module):
    "Answers with these ids, whatever it is asked."

    def __init__(self, ids):
        super().__init__()
        self.ids, self.config = list(ids), CONFIG
        self.transformer = torch.nn.ModuleDict(
            {"wte": torch.nn.Embedding(1, 1), "h": torch.nn.ModuleList()}
        )

    def forward(self, idx, caches=None, last_only=True):
        logits = torch.zeros(len(idx), 1, CONFIG.vocab_size)
        logits[:, :, self.ids.pop(0)] = 100.0
        return logits, None


@pytest.fixture(scope="module")
def model():
    g = torch.Generator().manual_seed(3)
    model = GPT(CONFIG, generator=g)
    with torch.no_grad():  # larger weights than GPT-2's: the continuation then depends on the text
        for p in model.parameters():
            if p.ndim == 2:
                p.normal_(0, 0.3, generator=g)
    return model


def gen(seed):
    return torch.Generator().manual_seed(seed)


def columns(steps):
    "Turn steps into one list of ids per sequence."
    return [[i for i in seq if i is not None] for seq in zip(*steps, strict=True)]


@torch.no_grad()
def uncached(model, ids, n, generator, **knobs):
    "The plain loop: the whole text through the model for every token."
    own = gen(torch.randint(2**62, (1,), generator=generator).item())
    ids = list(ids)
    for _ in range(n):
        logits = model(torch.tensor([ids]))[0][:, -1]
        u = torch.rand(1, 1, dtype=torch.float64, generator=own)
        ids.append(pick(next_token_probs(logits, **knobs), u).item())
    return ids[-n:]


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"temperature": 0.7, "top_k": 20},
        {"temperature": 1.5, "top_p": 0.8},
        {"temperature": 0},
        {"n_vocab": 100},
    ],
)
def test_cached_equals_uncached(model, knobs):
    for seed in range(4):
        prompt = torch.randint(256, (5 + 7 * seed,), generator=gen(seed)).tolist()
        (got,) = columns(generate(model, prompt, 60, generator=gen(seed), **knobs))
        assert got == uncached(model, prompt, 60, gen(seed), **knobs)


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 96), min_size=1, max_size=5),
    seed=st.integers(0, 2**32),
    num_seq=st.integers(1, 3),
    n=st.integers(1, 30),
)
def test_batch_equals_single(model, lengths, seed, num_seq, n):
    prompts = [torch.randint(256, (k,), generator=gen(i)).tolist() for i, k in enumerate(lengths)]
    knobs = {"num_seq": num_seq, "temperature": 0.9, "eot": 7, "n_vocab": 257}
    together = columns(generate_batch(model, prompts, n, generator=gen(seed), **knobs))
    alone = [
        s
        for p in prompts
        for s in columns(generate(model, p, n, generator=gen(seed), **knobs)) or [[]] * num_seq
    ]
    assert (together or [[]] * len(alone)) == alone


def test_sequences_of_one_prompt_differ_and_repeat_with_the_seed(model):
    a = columns(generate(model, [1, 2, 3], 20, num_seq=3, generator=gen(0)))
    assert a == columns(generate(model, [1, 2, 3], 20, num_seq=3, generator=gen(0)))
    assert len({tuple(s) for s in a}) == 3
    assert a != columns(generate(model, [1, 2, 3], 20, num_seq=3, generator=gen(1)))


def test_stops_at_the_end_of_the_context(model):
    assert len(list(generate(model, [1] * 90, 50, generator=gen(0)))) == 96 - 90 + 1
    assert len(list(generate(model, [1] * 96, 50, generator=gen(0)))) == 1


def test_padding_is_never_sampled():
    "100,000 draws at temperature 2 from 20 distributions in which the padding is the likeliest."
    logits = torch.randn(20, 50304, generator=gen(0)) * 3
    logits[:, 50257:] += 20
    u = torch.rand(20, 5000, dtype=torch.float64, generator=gen(1))
    for knobs in ({}, {"top_k": 50000}, {"top_p": 1.0}, {"top_p": 0.999}):
        ids = pick(next_token_probs(logits, temperature=2.0, n_vocab=50257, **knobs), u)
        assert ids.numel() == 100_000 and 0 <= ids.min() and ids.max() < 50257
    # without n_vocab it does happen
    assert pick(next_token_probs(logits, temperature=2.0), u).max() >= 50257


def test_padding_is_never_generated(model):
    steps = generate(model, [256], 90, num_seq=20, temperature=3.0, n_vocab=257, generator=gen(0))
    assert max(i for s in columns(steps) for i in s) < 257


def test_pick_takes_each_token_as_often_as_its_probability():
    probs = torch.tensor([[0.5, 0.0, 0.3, 0.2, 0.0]])
    edges = torch.tensor([[0.0, 0.4999, 0.5, 0.7999, 0.8, 1 - 2**-53]], dtype=torch.float64)
    assert pick(probs.double(), edges).tolist() == [[0, 0, 2, 2, 3, 3]]
    n = 200_000
    counts = (
        torch.bincount(
            pick(probs, torch.rand(1, n, dtype=torch.float64, generator=gen(0)))[0], minlength=5
        )
        / n
    )
    assert counts[1] == counts[4] == 0
    assert (counts - probs[0]).abs().max() < 5 * (0.25 / n) ** 0.5  # five standard errors


@pytest.mark.parametrize("top_k", [None, 1, 5, 40, 1000])
@pytest.mark.parametrize("top_p", [None, 0.05, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_filters_are_those_of_hugging_face(temperature, top_k, top_p):
    from transformers.generation.logits_process import (
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    logits = torch.randn(4, 300, generator=gen(0)) * 4
    want = TemperatureLogitsWarper(temperature)(None, logits)
    want = TopKLogitsWarper(top_k)(None, want) if top_k else want
    want = TopPLogitsWarper(top_p)(None, want) if top_p else want
    got = next_token_probs(logits, temperature, top_k, top_p)
    torch.testing.assert_close(got, want.softmax(1), rtol=1e-5, atol=1e-7)
    assert ((got > 0) == (want.softmax(1) > 0)).all()


def test_small_temperatures_approach_greedy():
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    for t in (0, 1e-4, 1e-30):
        assert next_token_probs(logits, temperature=t).tolist() == [[0.0, 1.0, 0.0]]


def test_greedy_equals_transformers():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    hf = GPT2LMHeadModel(
        GPT2Config(
            n_layer=2, n_head=4, n_embd=32, n_positions=96, vocab_size=304, initializer_range=0.3
        )
    ).eval()
    ours = GPT(CONFIG)
    state = {
        k: w.t() if k.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else w
        for k, w in hf.state_dict().items()
    }
    ours.load_state_dict(state)
    for seed in range(20):
        prompt = torch.randint(304, (1, 3 + seed), generator=gen(seed))
        want = hf.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=64,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0, prompt.shape[1] :].tolist()
        (got,) = columns(generate(ours, prompt[0].tolist(), 64, temperature=0))
        assert len(want) == 64 and len(set(want)) > 5 and got == want


def test_the_global_generator_is_left_alone(model):
    torch.manual_seed(5)
    want = torch.rand(4)
    torch.manual_seed(5)
    for generator in (None, gen(0)):
        list(generate(model, [1, 2], 5, num_seq=2, generator=generator))
        complete(model, Bytes(), "a", 5, generator=generator)
    assert torch.equal(torch.rand(4), want)


def test_no_grad_does_not_leak(model):
    steps = generate(model, [1, 2], 5, generator=gen(0))
    next(steps)
    assert torch.is_grad_enabled()


def test_stops_at_eot():
    assert columns(generate(Scripted([5, 6, 256, 7]), [1], 10, eot=256)) == [[5, 6]]
    # without eot it is an id like any
    assert columns(generate(Scripted([5, 6, 256, 7]), [1], 4)) == [[5, 6, 256, 7]]
    assert list(generate(Scripted([256]), [1], 10, eot=256)) == []
    assert complete(Scripted([*b"hi", 256, *b"ho"]), Bytes(), "x", temperature=0) == ["hi"]


def test_ended_sequences_yield_none(model):
    steps = list(generate(model, [1, 2], 40, num_seq=8, eot=7, n_vocab=20, generator=gen(0)))
    for seq in zip(*steps, strict=True):
        assert 7 not in seq
        end = seq.index(None) if None in seq else len(seq)
        assert all(i is None for i in seq[end:])
    assert any(None in s for s in zip(*steps, strict=True)) and all(
        any(i is not None for i in s) for s in steps
    )


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=30), st.text(max_size=15).map(str.encode)))
def test_stream_is_the_decoded_text_in_whole_characters(data):
    stream = TextStream(Bytes())
    pieces = [stream.feed(i) for i in data] + [stream.feed(None)]
    assert "".join(pieces) == data.decode(errors="replace")


def test_stream_never_splits_a_character():
    text = "né ☃ 👩‍🚀 字"
    pieces = list(stream_text(Scripted([*text.encode(), 256]), Bytes(), "", temperature=0))
    assert pieces == list(text)


@settings(max_examples=300, deadline=None)
@given(st.text("ab", max_size=14), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_stop_strings(text, stops):
    stream = TextStream(Bytes(), stops)
    shown = ""
    for i in text.encode():
        shown += stream.feed(i)
        assert not any(s in shown for s in stops)
    shown += stream.feed(None)
    # a stop string is complete
    ends = [n for n in range(len(text) + 1) if any(text[:n].endswith(s) for s in stops)]
    if ends:
        longest = max(len(s) for s in stops if text[: ends[0]].endswith(s))
        assert shown == text[: ends[0] - longest]
    else:
        assert shown == text


def test_stop_string_in_a_completion():
    script = [*b"Yes. No. Yes."]
    assert complete(Scripted(script), Bytes(), "?", temperature=0, stop=[" No", "Yes!"]) == ["Yes."]
    assert complete(Scripted(script), Bytes(), "?", temperature=0, stop="s. Y", max_tokens=12) == [
        "Yes. No. Yes"
    ]
    with pytest.raises(ValueError, match=r"^a stop string is empty; leave it out"):
        complete(Scripted(script), Bytes(), "?", stop="")


def test_streams_one_after_the_other_equal_completions_side_by_side(model):
    g = gen(11)
    streamed = [
        "".join(stream_text(model, Bytes(), "Once", 30, temperature=0.8, generator=g))
        for _ in range(3)
    ]
    assert streamed == complete(
        model, Bytes(), "Once", 30, temperature=0.8, num_seq=3, generator=gen(11)
    )
    prompts = ["Once", "A", "Mia and Tom"]
    batch = complete_batch(
        model, Bytes(), prompts, 30, temperature=0.8, num_seq=2, generator=gen(11)
    )
    assert batch == [
        complete(model, Bytes(), p, 30, temperature=0.8, num_seq=2, generator=gen(11))
        for p in prompts
    ]


@pytest.mark.parametrize(
    "change,message",
    [
        ({"temperature": -1}, "temperature=-1 must be 0 (greedy) or more; try 0.8"),
        ({"temperature": float("nan")}, "temperature=nan must be 0 (greedy) or more; try 0.8"),
        ({"top_k": 0}, "top_k=0 must be 1 or more; leave it out to keep every token"),
        ({"top_p": 0}, "top_p=0 must be above 0 and at most 1; try 0.9"),
        ({"top_p": 1.5}, "top_p=1.5 must be above 0 and at most 1; try 0.9"),
        ({"max_tokens": 0}, "max_tokens=0 and num_seq=1 must be 1 or more"),
        ({"num_seq": 0}, "max_tokens=5 and num_seq=0 must be 1 or more"),
        ({"ids": []}, "the prompt has no tokens; start it with the tokenizer's eot"),
        (
            {"ids": [1] * 99},
            "the prompt has 99 tokens and the context holds 96; shorten it by 3 tokens",
        ),
    ],
)
def test_errors_come_at_once_and_in_one_line(model, change, message):
    with pytest.raises(ValueError) as e:
        generate(model, **({"ids": [1], "max_tokens": 5} | change))  # no step was asked for
    assert str(e.value) == message


def test_diverged_model():
    with pytest.raises(
        ValueError, match=r"^the model's logits are nan: its training diverged; use an earlier .*$"
    ):
        next_token_probs(torch.tensor([[0.0, float("nan")]]))


@pytest.mark.parametrize("n_out", [768, 50257, 96, 101, 7])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (4, 1), (5, 1), (3, 7)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("amd", [True, False])
def test_few_rows_are_multiplied_as_by_torch(n_out, shape, bias, amd, monkeypatch):
    monkeypatch.setattr(linear, "made_by_amd", lambda: amd)
    layer = Linear(48, n_out, bias=bias)
    x = torch.randn(*shape, 48, generator=gen(n_out))
    expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
    with torch.no_grad():
        found = layer(x)
        # a view whose rows do not lie side by side, as the last position of a text
        last = layer(torch.stack([x, x], dim=2)[:, :, 1])
    # fp32, 48 products in another order
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(last, expected.detach(), rtol=1e-5, atol=1e-5)
    assert found.is_contiguous() and layer.blocks(x) is None  # with gradients: nn.Linear


def test_blocks_are_for_few_rows_in_fp32_on_amds_processors(monkeypatch):
    monkeypatch.setattr(linear, "made_by_amd", lambda: False)
    with torch.no_grad():
        assert Linear(48, 96).blocks(torch.zeros(4, 1, 48)) is None
    monkeypatch.setattr(linear, "made_by_amd", lambda: True)
    layer = Linear(48, 96)
    with torch.no_grad():
        assert layer.blocks(torch.zeros(1, 5, 48)) is None
        assert layer.blocks(torch.zeros(1, 1, 48, dtype=torch.bfloat16)) is None
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(torch.zeros(1, 1, 48)).dtype == torch.bfloat16
        assert layer.blocks(torch.zeros(4, 1, 48)) == (
            16 if torch.backends.mkl.is_available() else None
        )
        assert Linear(48, 131).blocks(torch.zeros(1, 1, 48)) is None  # prime


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")
@pytest.mark.parametrize("by", [OneDNN.apply, multiply])
@pytest.mark.parametrize("asked", ["xwb", "xw", "w", "wb", "x", ""])
def test_large_products_and_their_gradients_are_torchs(by, asked):
    g = gen(1)
    sizes = {"x": (128, 256), "w": (160, 256), "b": (160,)}  # 128 · 256 · 160 > LARGE
    tensors = {k: torch.randn(size, generator=g) for k, size in sizes.items()}
    push = torch.randn(128, 160, generator=g)
    found = []
    for way in (torch.nn.functional.linear, by):
        x, w, b = (t.clone().requires_grad_(k in asked) for k, t in tensors.items())
        y = way(x, w, b)
        if asked:
            y.backward(push)
        found.append([y, x.grad, w.grad, b.grad])
    # fp32, up to 256 products in another order
    for expected, value in zip(*found, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)
    assert y.is_contiguous()


def test_onednn_is_for_large_fp32_products_of_amds_avx512():
    x, w = torch.zeros(2, 128, 256), torch.zeros(160, 256)
    name = getattr(torch.cpu, "get_capabilities", dict)().get("cpu_name", "")
    amd = name.startswith("AMD") and torch.backends.cpu.get_cpu_capability() == "AVX512"
    assert onednn_is_faster(x, w) == (amd and torch.backends.mkl.is_available())
    assert multiply(x, w).shape == (2, 128, 160)
    assert not onednn_is_faster(x[:1, : LARGE // (256 * 160) - 2], w)
    assert not onednn_is_faster(x.bfloat16(), w.bfloat16())
    assert not onednn_is_faster(x.to("meta"), w)
    with torch.autocast("cpu", torch.bfloat16):
        assert not onednn_is_faster(x, w)
        assert multiply(x, w).dtype == torch.bfloat16


def test_a_weight_is_off_by_half_a_mark_at_most():
    weight = torch.randn(200, 64, generator=gen(0)) * torch.logspace(-9, 3, 200)[:, None]
    weight[3] = 0.0
    marks, scale = quantise(weight)
    assert marks.abs().max() in (126, 127)  # the scale is rounded up
    off = (marks.double() * scale.double()[:, None] - weight.double()).abs()
    assert (off <= scale.double()[:, None] * 0.5001).all()
    assert (marks[3] == 0).all()


@pytest.mark.parametrize("rows", [1, 2, 8, 9, 40])
@pytest.mark.parametrize("n_out, n_in", [(304, 32), (33, 17), (1, 1), (129, 768)])
def test_int8_layer_is_the_matrix_read_back(rows, n_out, n_in):
    g = gen(rows)
    layer = Int8Linear(torch.randn(n_out, n_in, generator=g), torch.randn(n_out, generator=g))
    x = torch.randn(rows, n_in, generator=g)
    expected = x.bfloat16().double() @ layer.weight.double().t() + layer.bias.double()
    size = x.bfloat16().double().abs() @ layer.weight.double().abs().t()
    # the product is rounded to the 8 digits of bf16; sums are in fp32
    assert ((layer(x) - expected).abs() <= 2**-8 * size + 1e-6).all()
    assert layer(x).dtype == torch.float32


def test_an_adapter_is_rounded_with_its_layer(model):
    adapted = add_lora(copy.deepcopy(model), 2, 4.0, (*PARTS, HEAD), gen(1))
    with torch.no_grad():
        for layer in lora_layers(adapted).values():
            layer.lora_B.normal_(0, 0.3, generator=gen(2))
    ids = torch.randint(257, (2, 9), generator=gen(0))
    with torch.no_grad():
        small, merged = int8_model(adapted)(ids)[0], int8_model(merge_lora(adapted))(ids)[0]
    assert torch.allclose(small, merged, atol=1e-3 * merged.abs().max())


def test_a_chats_token_ends_a_text():
    chat = with_chat(Tokenizer("bytes", []))
    end, hi = chat.special["<|end|>"], chat.encode("Hi")
    ids = [*hi, end, *hi, *hi]
    assert complete(Scripted(ids), chat, "x", 5) == ["Hi"]
    assert "".join(stream_text(Scripted(ids), chat, "x", 5)) == "Hi"


def test_int8_model_judges_and_writes_nearly_as_its_original(model):
    small = int8_model(model)
    ids = torch.randint(257, (6, 65), generator=gen(0))
    with torch.no_grad():
        loss, other = (m(ids[:, :-1], ids[:, 1:])[1] for m in (model, small))
        logits, others = (m(ids[:, :-1])[0].log_softmax(-1) for m in (model, small))
    assert abs(other / loss - 1) < 0.01
    assert (logits - others).abs().mean() < 0.05 * logits.std()
    # the original is as it was, and the rest is shared
    assert (
        isinstance(model.lm_head, Linear) and model.lm_head.weight is model.transformer.wte.weight
    )
    assert small.transformer.wpe.weight is model.transformer.wpe.weight
    assert not any(isinstance(m, torch.nn.Linear) for m in small.modules())
    # row by row with the cache: what the whole text gives
    caches = small.new_caches()
    with torch.no_grad():
        rows = [small(ids[:1, t : t + 1], caches=caches)[0] for t in range(20)]
        whole, _ = small(ids[:1, :20])
    torch.testing.assert_close(torch.cat(rows, 1), whole, rtol=0, atol=0.05 * float(whole.std()))
    assert len(list(generate(small, [1, 2, 3], 20, generator=gen(0)))) == 20
