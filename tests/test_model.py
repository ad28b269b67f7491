"""The model is GPT-2: same sizes, same logits, loss and gradients as Hugging Face's."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import gpt2edu.model.gpt
from gpt2edu.machine.device import autocast
from gpt2edu.model.gpt import GPT, IGNORE, GPTConfig, cross_entropy, num_params
from gpt2edu.model.lora import add_lora

TINY = GPTConfig(n_layer=3, n_head=4, n_embd=32, block_size=24, vocab_size=101)


def tiny(seed=0, config=TINY):
    return GPT(config, torch.Generator().manual_seed(seed))


def shaken(model, seed=1):
    "Random weights everywhere, biases and gains included: nothing is hidden by a zero."
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=g), alpha=0.05)
    return model


def ids(*shape, config=TINY, seed=2):
    return torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


# External truth


def twin(model):
    "Hugging Face's GPT-2 with the same weights."
    from transformers import GPT2Config, GPT2LMHeadModel

    c = model.config
    config = GPT2Config(
        n_layer=c.n_layer, n_head=c.n_head, n_embd=c.n_embd,
        n_positions=c.block_size, vocab_size=c.vocab_size,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    hf = GPT2LMHeadModel._from_config(config)
    with torch.no_grad():
        theirs = dict(hf.named_parameters())
        ours = dict(model.named_parameters())
        assert theirs.keys() == ours.keys()
        for name, p in theirs.items():
            p.copy_(transposed(name, ours[name]))
    return hf


def transposed(name, p):
    "Hugging Face keeps the matrices of the blocks as (in, out)."
    return p.t() if p.ndim == 2 and ".h." in name else p


def assert_relative(got, want, tol, what):
    error = (got - want).abs().max().item() / want.abs().max().item()
    assert error < tol, f"{what}: relative error {error:.1e}"


@pytest.mark.parametrize(
    "config,B,T",
    [(TINY, 3, 24), (TINY, 1, 1), (GPTConfig(), 1, 12)],
    ids=["tiny", "one-token", "124m"],
)
def test_equals_hugging_face(config, B, T):
    model = shaken(tiny(config=config))
    hf = twin(model)
    x, y = ids(B, T, config=config), ids(B, T, config=config, seed=3)
    y[0, -1] = IGNORE if T > 1 else y[0, -1]
    logits, none = model(x)
    assert none is None
    theirs = hf(x).logits
    assert_relative(logits, theirs, 1e-5, "logits")
    none, loss = model(x, y)
    assert none is None
    want = F.cross_entropy(theirs.flatten(0, 1), y.flatten(), ignore_index=IGNORE)
    assert_relative(loss, want, 1e-5, "loss")
    loss.backward()
    want.backward()
    theirs = dict(hf.named_parameters())
    for name, p in model.named_parameters():
        # The gradient of a key's bias is zero in exact arithmetic (softmax ignores a constant),
        # rounding in both.
        want = transposed(name, theirs[name].grad)
        if name.endswith("c_attn.bias"):
            C = config.n_embd
            assert p.grad[C : 2 * C].abs().max() <= 1e-5 * want.abs().max()
        assert_relative(p.grad, want, 1e-5, f"gradient of {name}")


@pytest.mark.parametrize("vocab_size,want", [(50257, 124_439_808), (50304, 124_475_904)])
def test_gpt2_has_the_known_number_of_parameters(vocab_size, want):
    with torch.device("meta"):
        assert num_params(GPT(GPTConfig(vocab_size=vocab_size))) == want


# At the start


@pytest.mark.parametrize("config,B,T", [(TINY, 8, 24), (GPTConfig(), 1, 64)], ids=["tiny", "124m"])
def test_loss_at_init_is_near_ln_v(config, B, T):
    with torch.no_grad():
        _, loss = tiny(config=config)(ids(B, T, config=config), ids(B, T, config=config, seed=3))
    assert abs(loss.item() - math.log(config.vocab_size)) < 0.25


def test_init_has_gpt2s_spreads():
    config = GPTConfig(n_layer=8, n_head=4, n_embd=128, block_size=64, vocab_size=512)
    for name, p in tiny(config=config).named_parameters():
        if p.ndim == 1:
            assert (p == (0 if name.endswith("bias") else 1)).all(), name
        else:
            want = 0.02 / 4 if name.endswith("c_proj.weight") else 0.02  # sqrt(2 * 8) = 4
            assert p.std().item() == pytest.approx(want, rel=0.05), name
            assert abs(p.mean().item()) < want / 20, name


def test_generator_decides_the_weights():
    def weights(seed):
        return torch.cat([p.flatten() for p in tiny(seed).parameters()])

    assert torch.equal(weights(5), weights(5)) and not torch.equal(weights(5), weights(6))


def test_head_is_tied():
    model = tiny()
    assert model.lm_head.weight is model.transformer.wte.weight
    names = [name for name, _ in model.named_parameters()]
    assert "transformer.h.0.attn.c_attn.weight" in names and "lm_head.weight" not in names


# Causality and the cache


def test_no_gradient_reaches_a_later_position():
    model = shaken(tiny())
    stream = {}

    def keep(module, args):
        stream["x"] = args[0].detach().requires_grad_(True)
        return (stream["x"], *args[1:])

    model.transformer.h[0].register_forward_pre_hook(keep)
    logits, _ = model(ids(1, 12))
    for t in range(12):
        (grad,) = torch.autograd.grad(logits[0, t].square().sum(), stream["x"], retain_graph=True)
        assert (grad[0, t + 1 :] == 0).all()
        assert (grad[0, : t + 1].abs().sum(-1) > 0).all()


@settings(max_examples=15, deadline=None)
@given(T=st.integers(2, 24), data=st.data())
def test_output_does_not_depend_on_later_tokens(T, data):
    model, a = shaken(tiny()), ids(1, T)
    t = data.draw(st.integers(1, T - 1))
    b = a.clone()
    b[0, t:] = (b[0, t:] + 1) % TINY.vocab_size
    with torch.no_grad():
        la, lb = model(a)[0], model(b)[0]
    assert torch.equal(la[:, :t], lb[:, :t])
    assert not torch.allclose(la[:, t:], lb[:, t:])


@settings(max_examples=15, deadline=None)
@given(
    B=st.integers(1, 3),
    cuts=st.lists(st.integers(1, 8), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_cached_pieces_equal_the_whole(B, cuts, seed):
    model, x = shaken(tiny()), ids(B, sum(cuts), seed=seed)
    with torch.no_grad():
        want, caches, got = model(x)[0], model.new_caches(), []
        for piece in x.split(cuts, dim=1):
            got.append(model(piece, caches=caches)[0])
    # logits of order 5 after three layers
    torch.testing.assert_close(torch.cat(got, 1), want, rtol=1e-5, atol=1e-5)
    assert all(c.length == x.shape[1] for c in caches)


def test_last_only_is_the_last_row():
    model, x = shaken(tiny()), ids(2, 10)
    with torch.no_grad():
        last = model(x, last_only=True)[0]
        torch.testing.assert_close(last, model(x)[0][:, -1:], rtol=1e-5, atol=1e-5)
    assert last.shape == (2, 1, TINY.vocab_size)


def test_attention_weights_are_those_of_the_forward_pass():
    model, x = shaken(tiny()), ids(2, 11)
    w = model.attention_weights(x)
    assert w.shape == (3, 2, 4, 11, 11)
    torch.testing.assert_close(w.sum(-1), torch.ones(3, 2, 4, 11))
    assert (w.triu(1) == 0).all()
    hf = twin(model)
    hf.config._attn_implementation = (
        "eager"  # the fast ones keep no weights; 4.50 has no method for it
    )
    with torch.no_grad():
        theirs = torch.stack(hf(x, output_attentions=True).attentions)
    torch.testing.assert_close(w, theirs, rtol=1e-5, atol=1e-6)


# The loss


@settings(max_examples=25, deadline=None)
@given(
    N=st.integers(1, 40),
    V=st.integers(2, 60),
    at_once=st.integers(1, 3000),
    ignored=st.integers(0, 40),
    seed=st.integers(0, 999),
)
def test_chunked_loss_equals_the_plain_one(N, V, at_once, ignored, seed):
    g = torch.Generator().manual_seed(seed)
    x, w = torch.randn(N, 16, generator=g), torch.randn(V, 16, generator=g)
    t = torch.randint(V, (N,), generator=g)
    t[torch.randperm(N, generator=g)[: min(ignored, N - 1)]] = IGNORE

    def value_and_grads(loss_of):
        xs, ws = x.clone().requires_grad_(True), w.clone().requires_grad_(True)
        loss = loss_of(xs, ws)
        (3 * loss).backward()  # as gradient accumulation scales a loss
        return loss.detach(), xs.grad, ws.grad

    plain = value_and_grads(lambda xs, ws: F.cross_entropy(xs @ ws.t(), t))
    chunked = value_and_grads(lambda xs, ws: cross_entropy(xs, ws, t, at_once))
    for a, b in zip(chunked, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6 * max(1.0, b.abs().max().item()))
    with torch.no_grad():
        torch.testing.assert_close(cross_entropy(x, w, t, at_once), plain[0], rtol=1e-6, atol=1e-6)


def test_chunk_sizes_follow_the_vocabulary(monkeypatch):
    calls = []
    loss = gpt2edu.model.gpt.ChunkedCrossEntropy
    monkeypatch.setattr(loss, "apply", lambda *a: calls.append(a[3]) or torch.zeros(()))
    with torch.device("meta"):
        cross_entropy(
            torch.empty(16 * 256, 8), torch.empty(1024, 8), torch.empty(16 * 256, dtype=torch.int64)
        )
        assert calls == []  # a small model: one chunk, the plain path
        cross_entropy(
            torch.empty(4 * 1024, 8),
            torch.empty(50304, 8),
            torch.empty(4 * 1024, dtype=torch.int64),
        )
    assert calls == [1024]  # rows: four chunks


def test_model_trains_the_same_with_chunks(monkeypatch):
    x, y = ids(3, 20), ids(3, 20, seed=3)

    def grads(at_once):
        monkeypatch.setattr(cross_entropy, "__defaults__", (at_once,))
        model = shaken(tiny())
        model(x, y)[1].backward()
        return [p.grad for p in model.parameters()]

    for a, b in zip(grads(700), grads(2**26), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6 * max(1.0, b.abs().max().item()))


def large_tensors_of(work, numbers):
    "Count the new tensors of at least so many numbers that are made."
    made = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            before = {t.data_ptr() for t in tree_leaves(args) if isinstance(t, torch.Tensor)}
            out = func(*args, **(kwargs or {}))
            for t in tree_leaves(out):
                new = isinstance(t, torch.Tensor) and t.data_ptr() not in before
                if new and t.numel() >= numbers:
                    made.append(str(func))
            return out

    with Watch():
        work()
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_chunk_of_logits_is_held_once(dtype):
    "Its softmax and its gradient are computed a few rows at a time and take its place."
    N, C, V = 512, 8, 1000
    x, weight = torch.randn(N, C, requires_grad=True), torch.randn(V, C, requires_grad=True)
    targets = torch.randint(V, (N,))

    def work():
        with autocast("cpu", dtype):
            cross_entropy(x, weight, targets, N * V // 4).backward()

    assert len(large_tensors_of(work, N // 4 * V)) == 4  # one a chunk


@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "an adapter"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gelu_that_is_forgotten_changes_no_bit(dtype, lora, monkeypatch):
    ids = torch.randint(256, (2, 33), generator=torch.Generator().manual_seed(0))
    calls, found = [], []

    def counted(h):
        calls.append(h.shape)
        return F.gelu(h, approximate="tanh")

    monkeypatch.setattr(gpt2edu.model.gpt, "gelu", counted)
    for forget, recompute in ((2**22, False), (1, False), (1, True)):
        monkeypatch.setattr(gpt2edu.model.gpt, "FORGET", forget)
        model = GPT(GPTConfig(2, 2, 64, 32, 256), torch.Generator().manual_seed(1))
        if lora:
            add_lora(model, 4, 16.0, ("mlp.c_fc", "mlp.c_proj"), torch.Generator().manual_seed(2))
        model.recompute = recompute
        calls.clear()
        with autocast("cpu", dtype):
            model(ids[:, :-1], ids[:, 1:])[1].backward()
        assert len(calls) > 2 if forget == 1 else len(calls) == 2
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    for grads in zip(*found, strict=True):
        assert grads[0].any() or lora  # half of a new adapter gets no gradient
        assert all(torch.equal(g, grads[0]) for g in grads)


def test_targets_that_are_ignored_do_not_count():
    model, x, y = shaken(tiny()), ids(2, 10), ids(2, 10, seed=3)
    y[:, 4:] = IGNORE
    torch.testing.assert_close(model(x, y)[1], model(x[:, :4], y[:, :4])[1])


@pytest.mark.parametrize("at_once", [700, 2**26], ids=["chunked", "plain"])
def test_bf16_autocast_keeps_the_loss_in_fp32(monkeypatch, at_once):
    monkeypatch.setattr(cross_entropy, "__defaults__", (at_once,))
    model, x, y = shaken(tiny()), ids(2, 20), ids(2, 20, seed=3)
    model(x, y)[1].backward()
    want = model.lm_head.weight.grad.clone()
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        _, loss = model(x, y)
    loss.backward()
    assert loss.dtype == torch.float32
    got = model.lm_head.weight.grad
    assert got.dtype == torch.float32
    # bf16 keeps 8 bits; a few dozen roundings in a row
    assert (got - want).norm() < 0.03 * want.norm()


@pytest.mark.parametrize("at_once", [700, 2**26], ids=["chunked", "plain"])
def test_compiles_to_one_graph(monkeypatch, at_once):
    monkeypatch.setattr(cross_entropy, "__defaults__", (at_once,))
    model, x, y = shaken(tiny()), ids(2, 20), ids(2, 20, seed=3)
    torch._dynamo.reset()
    fast = torch.compile(model, backend="aot_eager", fullgraph=True)
    fast(x, y)[1].backward()
    got = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model(x, y)[1].backward()
    for a, p in zip(got, model.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-5, atol=1e-6)


# Errors


@pytest.mark.parametrize(
    "sizes,text",
    [
        ({"n_head": 7}, "n_head=7 must divide n_embd=768; try 6, 8 or 12"),
        ({"n_head": 5, "n_embd": 128}, "n_head=5 must divide n_embd=128; try 2, 4 or 8"),
        ({"n_head": 5, "n_embd": 7}, "n_head=5 must divide n_embd=7; try 1 or 7"),
        ({"n_layer": 0}, "n_layer=0 must be a whole number, 1 or more; GPT-2 124M has 12"),
        (
            {"block_size": -3},
            "block_size=-3 must be a whole number, 1 or more; GPT-2 124M has 1024",
        ),
        ({"n_embd": 76.8}, "n_embd=76.8 must be a whole number, 1 or more; GPT-2 124M has 768"),
        (
            {"vocab_size": "50257"},
            "vocab_size='50257' must be a whole number, 1 or more; GPT-2 124M has 50257",
        ),
    ],
)
def test_config_errors(sizes, text):
    with pytest.raises(ValueError) as e:
        GPTConfig(**sizes)
    assert str(e.value) == text


def test_too_long_a_text_is_an_error():
    model = tiny()
    with pytest.raises(ValueError) as e:
        model(ids(1, 25))
    assert str(e.value) == (
        "25 tokens do not fit a context of 24 (block_size); "
        "pass at most 24, or build the model with a larger block_size"
    )
    with torch.no_grad():
        caches = model.new_caches()
        model(ids(1, 20), caches=caches)
        with pytest.raises(ValueError, match="26 tokens do not fit a context of 24"):
            model(ids(1, 6), caches=caches)
        model(ids(1, 4), caches=caches)  # what fits still fits
    assert caches[0].length == 24


@pytest.mark.parametrize(
    "N,V,at_once,rows", [(32768, 50304, 2**28, 4736), (4096, 50304, 2**28, 4096), (40, 30, 100, 4)]
)
def test_rows_of_a_chunk_are_few_and_even(N, V, at_once, rows):
    from gpt2edu.model.gpt import chunk_rows

    assert chunk_rows(N, V, at_once) == rows and (rows < 128 or rows % 128 == 0)


def test_small_probabilities_keep_their_gradient_in_fp16():
    "Defect: a softmax of 1 / V was cast to fp16 as it was, and lost digits before any loss scale."
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(64, 32, generator=g), 0.02 * torch.randn(50304, 32, generator=g)
    targets = torch.randint(100, (64,), generator=g)  # all other rows have small gradients only

    def grads(dtype, at_once):
        a, b = x.clone().requires_grad_(), weight.clone().requires_grad_()
        with torch.autocast("cpu", torch.float16, enabled=dtype == "fp16"):
            cross_entropy(a, b, targets, at_once).backward()
        return a.grad, b.grad[100:]

    exact = grads("fp32", 2**30)
    for half, full in zip(grads("fp16", 2**20), exact, strict=True):
        # 11 bits: a half-unit in the last place is 2**-11
        assert (half - full).norm() < 2**-10 * full.norm()
