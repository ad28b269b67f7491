"""AdamW is torch's, the schedule is a literal list, and both optimisers resume bit for bit."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from gpt2edu.optim import block_matrices, build_optimizers, decay_groups, lr_at, set_lr


class Net(nn.Module):
    "GPT-2's names on a model of one block: an embedding, a tied head, LayerNorms, biases, matrices."

    def __init__(self):
        super().__init__()
        block = nn.ModuleDict({"ln_1": nn.LayerNorm(8), "mlp": nn.ModuleDict({"c_fc": nn.Linear(8, 32)})})
        block["mlp"]["c_proj"] = nn.Linear(32, 8)
        self.transformer = nn.ModuleDict(
            {"wte": nn.Embedding(11, 8), "h": nn.ModuleList([block]), "ln_f": nn.LayerNorm(8)}
        )
        self.lm_head = nn.Linear(8, 11, bias=False)
        self.lm_head.weight = self.transformer.wte.weight

    def forward(self, idx):
        x = self.transformer.wte(idx)
        for b in self.transformer.h:
            x = x + b["mlp"]["c_proj"](torch.tanh(b["mlp"]["c_fc"](b["ln_1"](x))))
        return self.lm_head(self.transformer.ln_f(x))


def net(seed=0):
    torch.manual_seed(seed)
    return Net()


def step(model, optimizers, i):
    idx = torch.randint(11, (4, 6), generator=torch.Generator().manual_seed(i))
    loss = nn.functional.cross_entropy(model(idx).flatten(0, 1), idx.roll(-1, 1).flatten())
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    set_lr(optimizers, lr_at(i, 0.01, 0.001, 5, 100) / 0.01)
    for o in optimizers:
        o.step()
        o.zero_grad(set_to_none=True)
    return loss.item()


def test_schedule_is_this_list():
    want = [0.25, 0.5, 0.75, 1.0, 1.0, 0.9698463103929542, 0.8830222215594891, 0.75, 0.5868240888334652]
    want += [0.41317591116653485, 0.25, 0.11697777844051099, 0.030153689607045803, 0.0, 0.0]
    got = [lr_at(s, 1.0, 0.0, warmup_steps=4, max_steps=13) for s in range(15)]
    assert got == pytest.approx(want, abs=1e-12)


def test_schedule_of_the_124m_run():
    at = {0: 1e-3 / 715, 714: 1e-3, 715: 1e-3, (715 + 19073) // 2: 5.5e-4, 19073: 1e-4, 30_000: 1e-4}
    assert {s: lr_at(s, 1e-3, 1e-4, 715, 19073) for s in at} == pytest.approx(at, rel=1e-9)


@pytest.mark.parametrize("warmup,steps", [(0, 10), (10, 10), (715, 5), (0, 0)])
def test_schedule_survives_short_runs(warmup, steps):
    lrs = [lr_at(s, 1.0, 0.1, warmup, steps) for s in range(20)]
    assert all(0 < x <= 1 for x in lrs)


def test_groups():
    model = net()
    decay, plain = decay_groups(model, 0.1)
    names = {id(p): n for n, p in model.named_parameters()}
    assert [names[id(p)] for p in decay["params"]] == [
        "transformer.wte.weight",
        "transformer.h.0.mlp.c_fc.weight",
        "transformer.h.0.mlp.c_proj.weight",
    ]
    assert all(names[id(p)].endswith("bias") or ".ln_" in names[id(p)] for p in plain["params"])
    assert (decay["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert len(decay["params"]) + len(plain["params"]) == len(list(model.parameters()))  # the tied head is there once


def test_muon_takes_the_block_matrices_only():
    model = net()
    muon, adamw = build_optimizers(model, "muon", lr=1e-3, muon_lr=2e-2)
    assert isinstance(muon, torch.optim.Muon) and isinstance(adamw, torch.optim.AdamW)
    theirs = [p for g in muon.param_groups for p in g["params"]]
    rest = [p for g in adamw.param_groups for p in g["params"]]
    assert [p.shape for p in theirs] == [p.shape for p in block_matrices(model)] == [(32, 8), (8, 32)]
    assert {id(p) for p in theirs} | {id(p) for p in rest} == {id(p) for p in model.parameters()}
    assert not {id(p) for p in theirs} & {id(p) for p in rest}
    assert [g["peak_lr"] for g in muon.param_groups + adamw.param_groups] == [2e-2, 1e-3, 1e-3]
    assert build_optimizers(model, "muon", lr=3e-3)[0].param_groups[0]["peak_lr"] == 3e-3


def test_set_lr_scales_each_group_from_its_peak():
    optimizers = build_optimizers(net(), "muon", lr=1e-3, muon_lr=2e-2)
    for fraction in (0.1, 0.5, 0.5, 1.0):  # from the peak, so the calls do not pile up
        set_lr(optimizers, fraction)
        lrs = [g["lr"] for o in optimizers for g in o.param_groups]
        assert lrs == pytest.approx([2e-2 * fraction, 1e-3 * fraction, 1e-3 * fraction])


@pytest.mark.parametrize("fused", [True, False])
def test_adamw_equals_the_formula_in_float64(fused):
    "100 steps against numpy. Both in float64: in float32, 1 - lr*wd alone is rounded by 3e-8 a step."
    model = net().double()
    (adamw,) = build_optimizers(model, "adamw", lr=0.01, weight_decay=0.1, fused=fused)
    decayed = {id(p) for p in decay_groups(model, 0.1)[0]["params"]}
    state = {p: [p.detach().numpy().copy(), 0.0, 0.0] for p in model.parameters()}
    b1, b2 = 0.9, 0.95
    rng = np.random.default_rng(0)
    for t in range(1, 101):
        for p, s in state.items():
            g = rng.normal(size=p.shape)
            p.grad = torch.tensor(g)
            w, s[1], s[2] = s[0], b1 * s[1] + (1 - b1) * g, b2 * s[2] + (1 - b2) * g * g
            w = w * (1 - 0.01 * (0.1 if id(p) in decayed else 0.0))
            s[0] = w - 0.01 * (s[1] / (1 - b1**t)) / (np.sqrt(s[2] / (1 - b2**t)) + 1e-8)
        adamw.step()
    for p, (w, _, _) in state.items():
        np.testing.assert_allclose(p.detach().numpy(), w, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_resume_is_bit_exact(kind):
    model = net()
    optimizers = build_optimizers(model, kind, lr=0.01, muon_lr=0.02)
    first = [step(model, optimizers, i) for i in range(20)]
    saved = copy.deepcopy((model.state_dict(), [o.state_dict() for o in optimizers]))
    rest = [step(model, optimizers, i) for i in range(20, 40)]
    assert rest[-1] < first[0]

    other = net(seed=1)
    others = build_optimizers(other, kind, lr=0.9, muon_lr=0.9)  # what is loaded wins over what was built
    other.load_state_dict(saved[0])
    for o, s in zip(others, saved[1], strict=True):
        o.load_state_dict(s)
    assert [step(other, others, i) for i in range(20, 40)] == rest
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_unknown_kind():
    with pytest.raises(ValueError) as e:
        build_optimizers(net(), "sgd")
    assert str(e.value) == "optimizer 'sgd' is unknown; use 'adamw' or 'muon'"


def test_lr_is_finite_everywhere():
    assert all(math.isfinite(lr_at(s, 1e-3, 1e-4, 3, 3)) for s in range(10))
