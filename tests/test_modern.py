"""The seven choices of a block that are not GPT-2's, alone and together.

Chapter 26. transformers' LlamaForCausalLM and Qwen3ForCausalLM are the references.
"""

import itertools

import pytest
import torch
from small_runs import kept_for_backward

from gpt2edu.machine.device import autocast
from gpt2edu.machine.limits import machine_memory
from gpt2edu.model import attention
from gpt2edu.model.generate import check_room, generate
from gpt2edu.model.gpt import GPT, Block, GPTConfig, num_params
from gpt2edu.model.int8 import int8_model
from gpt2edu.model.lora import add_lora
from gpt2edu.model.modern import turns
from gpt2edu.model.variants import (
    block_shapes,
    changed,
    multiplied,
    numbers,
    outer_shapes,
    parameters,
)
from gpt2edu.plan.report import PlanConfig, plan
from gpt2edu.train.config import kept_bytes, optimizer_bytes, preset
from gpt2edu.train.optim import build_optimizers

SIZES = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 24, "vocab_size": 64}
ALONE = {
    "rope": {"position": "rope"},
    "rms": {"norm": "rms"},
    "swiglu": {"mlp": "swiglu"},
    "relu2": {"mlp": "relu2"},
    "qk_norm": {"qk_norm": True},
    "no_bias": {"bias": False},
    "untied": {"tied": False},
    "grouped": {"n_kv_head": 2},
}
LLAMA = {"position": "rope", "norm": "rms", "mlp": "swiglu", "bias": False, "tied": False}
LLAMA |= {"n_kv_head": 2}
TOGETHER = {"llama": LLAMA, "all": LLAMA | {"qk_norm": True}, "one_kv": LLAMA | {"n_kv_head": 1}}
EACH = pytest.mark.parametrize("flags", [*(ALONE | TOGETHER).values()], ids=[*ALONE, *TOGETHER])
EVERY = [
    dict(zip(("position", "norm", "mlp", "qk_norm", "bias", "tied", "n_kv_head"), v, strict=True))
    for v in itertools.product(
        ("learned", "rope"),
        ("layer", "rms"),
        ("gelu", "swiglu", "relu2"),
        (False, True),
        (True, False),
        (True, False),
        (None, 1, 2, 4),
    )
]


def build(flags, seed=0, **sizes):
    "A model whose biases and gains are random too, so that none of them can be forgotten."
    g = torch.Generator().manual_seed(seed)
    model = GPT(GPTConfig(**SIZES | sizes, **flags), g)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p.add_(torch.randn(p.shape, generator=g), alpha=0.3)
            else:
                p.mul_(5.0)  # attention that is not uniform
    return model


def ids_of(B=2, T=24, seed=1, V=64):
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))


def test_the_defaults_are_gpt2():
    assert changed(GPTConfig()) == changed(preset("tiny")) == {}
    assert GPTConfig(2, 4, 32, 24, 64) == GPTConfig(**SIZES)
    names = {n for n, _ in GPT(GPTConfig(**SIZES)).named_parameters()}
    assert not [n for n in names if "norm" in n or "gate" in n]


def test_shapes_and_counts_are_those_of_the_model_in_every_combination():
    for flags in EVERY:
        c = GPTConfig(**SIZES, **flags)
        with torch.device("meta"):
            model = GPT(c)
        want = {name: tuple(p.shape) for name, p in model.named_parameters()}
        got = {f"transformer.{k}": v for k, v in outer_shapes(c, 64).items() if k[0] != "l"}
        got |= {k: v for k, v in outer_shapes(c, 64).items() if k == "lm_head.weight"}
        got |= {f"transformer.{k}": v for k, v in outer_shapes(c, 64).items() if k[:4] == "ln_f"}
        for i in range(2):
            got |= {f"transformer.h.{i}.{k}": v for k, v in block_shapes(c).items()}
        assert got == want, flags
        assert parameters(c, 64) == num_params(model)
        assert c.matrix_numbers() == sum(p.numel() for p in model.parameters() if p.ndim == 2)
        assert multiplied(c, 64) == num_params(model) - (0 if c.tied else 64 * 32)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@EACH
def test_the_optimizers_memory_is_exact(flags, optimizer):
    c = preset("tiny", n_head=4, n_embd=32, optimizer=optimizer, **flags)
    with torch.device("meta"):
        model = GPT(GPTConfig(2, 4, 32, c.block_size, 128, **flags))
        for p in model.parameters():
            p.grad = torch.empty_like(p)
        optimizers = build_optimizers(model, optimizer)
    for o in optimizers:
        o.step()
    entries = [e for o in optimizers for e in o.state_dict()["state"].values()]
    assert optimizer_bytes(c, 128) == sum(t.nbytes for e in entries for t in e.values())


@pytest.mark.parametrize("wide", [False, True], ids=["as on a GPU", "as on a CPU"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_block_keeps_is_exact_in_every_combination(dtype, wide, monkeypatch):
    monkeypatch.setattr(attention, "SHORT", 256 if wide else 0)
    B, T, C, nh = 2, 16, 64, 4
    turn = turns(torch.arange(T), C // nh)
    for flags in EVERY:
        if not flags["tied"]:
            continue
        c = GPTConfig(n_embd=C, n_head=nh, **flags)
        block = Block(C, nh, c)
        x = torch.randn(B, T, C, requires_grad=True)
        with kept_for_backward([*turn, *block.parameters()]) as kept, autocast("cpu", dtype):
            block(x, turn=turn if c.position == "rope" else None).sum()
        copies = dtype.itemsize * numbers(block_shapes(c), 2) if dtype == torch.bfloat16 else 0
        assert sum(kept.values()) == kept_bytes(B * T, c, dtype.itemsize, wide) + copies, flags


def gradients(model, dtype=torch.float32, forward=None):
    "Those of one text in each row, and of two; None where a weight is frozen."
    ids, found, forward = ids_of(T=25), [], model if forward is None else forward
    positions = torch.cat([torch.arange(10), torch.arange(14)]).expand(2, -1)  # two texts in a row
    text = (torch.arange(24) >= 10).int()
    mask = (text[:, None] == text) & torch.ones(24, 24, dtype=torch.bool).tril()  # (T, T)
    rows = {"positions": positions, "mask": mask.expand(2, 1, 24, 24)}
    for more in ({}, rows):
        model.zero_grad()
        with autocast("cpu", dtype, cache=not model.recompute):
            loss = forward(ids[:, :-1], ids[:, 1:], **more)[1]
        loss.backward()
        found += [p.grad.clone() for p in model.parameters() if p.requires_grad]
    return found


@pytest.mark.parametrize("trained", ["all", "the last block", "an adapter"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("flags", [{}, *(ALONE | TOGETHER).values()])
def test_blocks_computed_twice_give_the_very_gradients(flags, dtype, trained):
    model = build(flags)
    if trained == "an adapter":
        add_lora(model, 2, 16.0, ("c_attn", "mlp.c_proj"), torch.Generator().manual_seed(0))
    for name, p in model.named_parameters():
        p.requires_grad_(p.requires_grad and (trained != "the last block" or ".h.1." in name))
    once = gradients(model, dtype)
    model.recompute = True
    assert len(once) >= 8 and all(map(torch.equal, once, gradients(model, dtype)))


def test_compiled_blocks_computed_twice_give_the_gradients():
    model = build({}, n_layer=1)
    once = gradients(model)
    model.recompute = True
    compiled = torch.compile(model, backend="aot_eager")
    for a, b in zip(once, gradients(model, forward=compiled), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@EACH
def test_the_cache_gives_the_numbers_of_the_whole_text(flags):
    model, ids = build(flags), ids_of()
    with torch.no_grad():
        whole = model(ids)[0]
        caches = model.new_caches()
        pieces = (ids[:, :7], ids[:, 7:12], *ids[:, 12:].split(1, 1))
        parts = [model(p, caches=caches)[0] for p in pieces]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=2e-5)
    heads = flags.get("n_kv_head", 4)
    assert caches[0].k.shape == (2, heads, 24, 8)


@EACH
def test_the_future_stays_hidden(flags):
    model, ids = build(flags), ids_of(1)
    x = model.embed(ids).detach().requires_grad_()
    y, turn = x, model.turn(ids)
    for block in model.transformer.h:
        y = block(y, turn=turn)
    (grad,) = torch.autograd.grad(y[0, 9].sum(), x)
    assert (grad[0, 10:] == 0).all() and (grad[0, :10] != 0).any(1).all()


@EACH
def test_packed_rows_are_the_texts_by_themselves(flags):
    "As HellaSwag packs them: positions begin anew, and a mask separates the texts."
    model, ids = build(flags), ids_of(1)
    a, b = ids[:, :10], ids[:, 10:]
    owner = torch.tensor([0] * 10 + [1] * 14)
    mask = (owner[:, None] == owner) & torch.ones(24, 24, dtype=torch.bool).tril()
    positions = torch.cat([torch.arange(10), torch.arange(14)])[None]
    with torch.no_grad():
        packed = model(ids, positions=positions, mask=mask[None, None])[0]
        alone = torch.cat([model(a)[0], model(b)[0]], 1)
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=2e-5)


@EACH
def test_generation_and_int8_work(flags):
    model = build(flags, n_embd=64)
    seeds = [torch.Generator().manual_seed(3) for _ in range(2)]
    texts = [list(generate(model, [1, 2, 3], 12, generator=s)) for s in seeds]
    assert texts[0] == texts[1] and len(texts[0]) == 12
    small = int8_model(model)
    ids = ids_of(1)
    with torch.no_grad():
        a, b = model(ids)[0].log_softmax(-1), small(ids)[0].log_softmax(-1)
    assert (a - b).abs().mean() < 0.25 * a.std()
    rows = model.attention_weights(ids).sum(-1)
    torch.testing.assert_close(rows, torch.ones_like(rows))


def test_the_room_for_caches_counts_the_heads_that_are_kept():
    "As many sequences as fill the memory once and a half fit with a quarter of the heads."
    wide = {"n_layer": 1, "n_embd": 128}
    full, quarter = (build({"n_kv_head": n}, **wide) for n in (None, 1))
    n = int(1.5 * machine_memory() / (2 * 128 * 4 * 24))
    with pytest.raises(ValueError, match=rf"^num_seq={n} needs at least"):
        check_room(full, [[0] * 4], 20, n)
    check_room(quarter, [[0] * 4], 20, n)


def test_a_plan_says_what_the_block_is():
    said = []
    found = plan(
        PlanConfig(
            max_steps=10, assume_mfu=0.4, gpu="a100", **TOGETHER["llama"] | {"n_kv_head": 1}
        ),
        said.append,
    )
    text = "\n".join(said)
    assert "position=rope, norm=rms, mlp=swiglu, bias=False, tied=False, n_kv_head=1" in text
    c = preset("tiny", **TOGETHER["llama"] | {"n_kv_head": 1})
    assert found["parameters"] == parameters(c, found["vocabulary_rows"])
    looked_up = found["vocabulary_rows"] * 96
    scores = 12 * 2 * 128 * 96
    assert found["flops_per_token"] == 6 * (found["parameters"] - looked_up) + scores
    said.clear()
    plan(PlanConfig(max_steps=10, assume_mfu=0.4, gpu="a100"), said.append)
    assert not [line for line in said if line.startswith("block")]


def test_rope_depends_on_distances_alone():
    model = build({"position": "rope"})
    attn, x = model.transformer.h[0].attn, torch.randn(1, 6, 32)
    scores = []
    for start in (0, 11):
        q, k, _ = attn.qkv(x, turns(torch.arange(start, start + 6), 8))
        scores.append(q @ k.mT)
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_qk_norm_bounds_the_scores(scale):
    "Whatever the weights, a score is at most sqrt(hs) with gains of one."
    model = GPT(GPTConfig(**SIZES, qk_norm=True), torch.Generator().manual_seed(0))
    attn = model.transformer.h[0].attn
    with torch.no_grad():
        attn.c_attn.weight.mul_(scale)
        q, k, _ = attn.qkv(torch.randn(1, 9, 32))
    assert (q @ k.mT / 8**0.5).abs().max() <= 8**0.5 * (1 + 1e-5)


def test_the_down_projection_of_a_gate_begins_small():
    "It adds to the stream, as c_proj of GPT-2 does: 0.02 / sqrt(2 n_layer)."
    c = GPTConfig(n_layer=8, n_head=4, n_embd=128, block_size=8, vocab_size=64, mlp="swiglu")
    mlp = GPT(c, torch.Generator().manual_seed(0)).transformer.h[3].mlp
    assert mlp.c_proj.weight.detach().std().item() == pytest.approx(0.02 / 4, rel=0.03)
    for layer in (mlp.c_gate, mlp.c_fc):
        assert layer.weight.detach().std().item() == pytest.approx(0.02, rel=0.03)


@pytest.mark.parametrize(
    "flags,words",
    [
        ({"position": "alibi"}, "position='alibi' is unknown; use learned or rope"),
        ({"norm": "batch"}, "norm='batch' is unknown; use layer or rms"),
        ({"mlp": "relu"}, "mlp='relu' is unknown; use gelu, swiglu or relu2"),
        ({"bias": "no"}, "bias='no' must be True or False"),
        ({"qk_norm": "yes"}, "qk_norm='yes' must be True or False"),
        ({"n_kv_head": 3}, "n_kv_head=3 must divide n_head=4; try 1, 2 or 4"),
        ({"n_kv_head": 0}, "n_kv_head=0 must "),
        ({"n_kv_head": True}, "n_kv_head=True must divide"),
        ({"position": "rope", "n_embd": 36}, "n_embd=36 / n_head=4 = 9 is odd; take an even"),
    ],
)
def test_what_cannot_be_built_is_one_line(flags, words):
    for make in (lambda: GPTConfig(**SIZES | flags), lambda: preset("tiny", **four(flags))):
        with pytest.raises(ValueError) as e:
            make()
        assert words in str(e.value) and "\n" not in str(e.value)


def four(flags):
    return {"n_head": 4, "n_embd": 32} | flags
