"""AdamW is torch's, the schedule is a literal list, and both optimisers resume bit for bit."""

import copy
import math
import textwrap

import numpy as np
import pytest
import torch
import warm
from small_runs import TWO_RANKS
from torch import nn

from gpt2edu.machine import precision
from gpt2edu.machine.precision import fast_dtype
from gpt2edu.train import optim
from gpt2edu.train.optim import (
    ROUNDS,
    Muon,
    block_matrices,
    build_optimizers,
    decay_groups,
    lr_at,
    orthogonalise,
    orthogonalise_wide,
    set_lr,
)


class Net(nn.Module):
    "GPT-2's names on one block: an embedding, a tied head, LayerNorms, biases, matrices."

    def __init__(self):
        super().__init__()
        block = nn.ModuleDict(
            {"ln_1": nn.LayerNorm(8), "mlp": nn.ModuleDict({"c_fc": nn.Linear(8, 32)})}
        )
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
    want = [
        0.25, 0.5, 0.75, 1.0, 1.0, 0.9698463103929542, 0.8830222215594891, 0.75, 0.5868240888334652,
    ]  # fmt: skip
    want += [0.41317591116653485, 0.25, 0.11697777844051099, 0.030153689607045803, 0.0, 0.0]
    got = [lr_at(s, 1.0, 0.0, warmup_steps=4, max_steps=13) for s in range(15)]
    assert got == pytest.approx(want, abs=1e-12)


def test_schedule_of_the_124m_run():
    at = {
        0: 1e-3 / 715,
        714: 1e-3,
        715: 1e-3,
        (715 + 19073) // 2: 5.5e-4,
        19073: 1e-4,
        30_000: 1e-4,
    }
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
    # the tied head is there once
    assert len(decay["params"]) + len(plain["params"]) == len(list(model.parameters()))


def test_muon_takes_the_block_matrices_only():
    model = net()
    muon, adamw = build_optimizers(model, "muon", lr=1e-3, muon_lr=2e-2)
    assert isinstance(muon, Muon) and isinstance(adamw, torch.optim.AdamW)
    theirs = [p for g in muon.param_groups for p in g["params"]]
    rest = [p for g in adamw.param_groups for p in g["params"]]
    assert (
        [p.shape for p in theirs] == [p.shape for p in block_matrices(model)] == [(32, 8), (8, 32)]
    )
    assert {id(p) for p in theirs} | {id(p) for p in rest} == {id(p) for p in model.parameters()}
    assert not {id(p) for p in theirs} & {id(p) for p in rest}
    assert [g["peak_lr"] for g in muon.param_groups + adamw.param_groups] == [2e-2, 1e-3, 1e-3]
    assert build_optimizers(model, "muon", lr=3e-3)[0].param_groups[0]["peak_lr"] == 3e-3


SHAPES = [(24, 24), (24, 72), (96, 24), (24, 96), (24, 24), (40, 8), (1, 16)]


def matrices(seed=0):
    g = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(s, generator=g)) for s in SHAPES]


def steps(optimizer, n, seed=1, skip=()):
    "Take n steps along random gradients; some matrices get none."
    g, (group,) = torch.Generator().manual_seed(seed), optimizer.param_groups
    for _ in range(n):
        for i, p in enumerate(group["params"]):
            # the scale of a gradient must not matter
            grad = torch.randn(p.shape, generator=g) * 10.0 ** (i - 3)
            p.grad = None if i in skip else grad
        optimizer.step()
    return [p.detach().clone() for p in group["params"]]


def torchs(params):
    return torch.optim.Muon(params, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("skip", [(), (0, 3)])
def test_muon_steps_as_torchs(dtype, skip):
    "To bf16's rounding: 2^-9 a number, and five rounds amplify it a little."
    before = matrices()
    ours = steps(Muon(matrices(), lr=0.02, dtype=dtype), 10, skip=skip)
    theirs = steps(torchs(matrices()), 10, skip=skip)
    for i, (b, o, t) in enumerate(zip(before, ours, theirs, strict=True)):
        if i in skip:
            assert torch.equal(o, b) and torch.equal(t, b)
        else:
            assert (o - t).norm() < 0.02 * (t - b).norm(), SHAPES[i]


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 16, 64), (2, 64, 16), (16, 48), (1, 8)])
def test_both_ways_of_orthogonalising_agree_with_the_svd(shape):
    "In float64: both are the same polynomial of the singular values; the vectors are untouched."
    G = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    U, s, Vh = torch.linalg.svd(G / G.norm(dim=(-2, -1), keepdim=True), full_matrices=False)
    for a, b, c in ROUNDS:
        s = a * s + b * s**3 + c * s**5
    for way in (orthogonalise, orthogonalise_wide):
        torch.testing.assert_close(way(G), U @ (s[..., None] * Vh), rtol=0, atol=1e-9)


def test_muon_stacks_at_most_at_once(monkeypatch):
    "However many matrices are alike, a stack stays small, and the step is the same."
    whole = steps(Muon(matrices(), lr=0.02, dtype=torch.float32), 3)
    monkeypatch.setattr(optim, "AT_ONCE", 24 * 24)
    pieces = steps(Muon(matrices(), lr=0.02, dtype=torch.float32), 3)
    for w, p in zip(whole, pieces, strict=True):
        # a batched product may sum in another order
        torch.testing.assert_close(w, p, rtol=0, atol=1e-6)


def test_muon_never_changes_a_gradient_of_zero_into_a_step():
    (p,) = params = [nn.Parameter(torch.ones(4, 8))]
    p.grad = torch.zeros_like(p)
    Muon(params, lr=0.02, weight_decay=0.0).step()
    assert torch.equal(p.detach(), torch.ones(4, 8))


def test_muon_takes_matrices_only():
    with pytest.raises(ValueError) as e:
        Muon([nn.Parameter(torch.zeros(3))])
    assert (
        str(e.value) == "Muon got a tensor of shape (3,), expected matrices; give the rest to AdamW"
    )


def test_muon_loads_the_state_of_torchs():
    "A checkpoint of a run that trained with torch.optim.Muon goes on with ours."
    a, b = matrices(), matrices(seed=5)
    theirs = torchs(a)
    steps(theirs, 5)
    ours = Muon(b, lr=0.7)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    for p, q in zip(a, b, strict=True):
        q.data.copy_(p.data)
    start = [p.detach().clone() for p in a]
    for s, x, y in zip(start, steps(theirs, 5, seed=2), steps(ours, 5, seed=2), strict=True):
        assert (x - y).norm() < 0.02 * (x - s).norm()


def test_fast_dtype_is_what_the_hardware_multiplies(monkeypatch):
    cases = [
        ((), torch.float32),
        (("amx_bf16",), torch.bfloat16),
        (("avx512_bf16",), torch.bfloat16),
    ]
    for flags, dtype in cases:
        monkeypatch.setattr(precision, "cpu_flags", lambda flags=flags: frozenset(flags))
        assert fast_dtype("cpu") == dtype
        assert fast_dtype("mps") == torch.float32
    for capability, dtype in (
        ((7, 5), torch.float32),
        ((8, 0), torch.bfloat16),
        ((9, 0), torch.bfloat16),
    ):
        monkeypatch.setattr(
            torch.cuda, "get_device_capability", lambda device, capability=capability: capability
        )
        assert fast_dtype("cuda") == dtype


def test_set_lr_scales_each_group_from_its_peak():
    optimizers = build_optimizers(net(), "muon", lr=1e-3, muon_lr=2e-2)
    for fraction in (0.1, 0.5, 0.5, 1.0):  # from the peak, so the calls do not pile up
        set_lr(optimizers, fraction)
        lrs = [g["lr"] for o in optimizers for g in o.param_groups]
        assert lrs == pytest.approx([2e-2 * fraction, 1e-3 * fraction, 1e-3 * fraction])


@pytest.mark.parametrize("fused", [True, False])
def test_adamw_equals_the_formula_in_float64(fused):
    "100 steps against numpy, in float64: in float32, 1 - lr*wd alone is rounded by 3e-8 a step."
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
    # what is loaded wins over what was built
    others = build_optimizers(other, kind, lr=0.9, muon_lr=0.9)
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


SHARED = """
    import sys, torch
    from torch import distributed
    from gpt2edu.machine.distributed import stop
    from gpt2edu.train.optim import Muon
    distributed.init_process_group("gloo")
    g = torch.Generator().manual_seed(0)
    # three matrices of one shape for two ranks, one lying the other way; one too small to share
    shapes = [(512, 600), (600, 512), (512, 600), (512, 512), (32, 48)]
    start = [torch.randn(s, generator=g) for s in shapes]
    found = []
    for share in (False, True):
        matrices = [torch.nn.Parameter(t.clone()) for t in start]
        muon = Muon(matrices, 0.02, share=share, dtype=torch.float32)
        h = torch.Generator().manual_seed(1)
        for _ in range(2):
            for p in matrices:
                p.grad = torch.randn(p.shape, generator=h)
            muon.step()
        found.append([p.detach() for p in matrices])
    for alone, shared in zip(*found):
        torch.testing.assert_close(shared, alone, rtol=0, atol=1e-6)
        theirs = [torch.empty_like(shared) for _ in range(2)]
        distributed.all_gather(theirs, shared)
        assert torch.equal(*theirs)
    print("equal", sum(not torch.equal(a, b) for a, b in zip(start, found[1])))
    stop()
"""


def test_ranks_that_share_muons_products_take_the_same_step(tmp_path):
    script = tmp_path / "shared.py"
    script.write_text(textwrap.dedent(SHARED), encoding="utf-8")
    done = warm.run([*TWO_RANKS, script])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("equal") == done.stdout.count("5") == 2  # their lines may mix
