"""A device that computes wrongly is found before it trains; one that only rounds is believed.

The wrong device is the CPU, with one kernel that lies while the device's step is taken."""

import os
import textwrap
import time

import pytest
import torch
import warm
from small_runs import TWO_RANKS
from torch.utils._python_dispatch import TorchDispatchMode

from gpt2edu.cli import commands as cli
from gpt2edu.data import cache as prepare
from gpt2edu.machine import device as dv
from gpt2edu.machine import distributed as dist
from gpt2edu.train import checkpoint, selftest
from gpt2edu.train import config as plan
from gpt2edu.train.trainer import Trainer

aten = torch.ops.aten
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
DTYPES = {"fp32": FP32, "bf16": BF16, "fp16": FP16}


class Lies(TorchDispatchMode):
    "Inside, the kernels that `picks` chooses return what `lie` makes of their result."

    def __init__(self, picks, lie):
        super().__init__()
        self.picks, self.lie, self.told = picks, lie, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not self.picks(func):
            return out
        self.told += 1
        return self.lie(out, *args, **(kwargs or {}))


def wrong(kernel, lie):
    "A device on which one kernel lies."

    def step(device, *rest):
        with Lies(lambda func: func.overloadpacket == kernel, lie) as mode:
            found = selftest.probe_step("cpu", *rest)
        assert mode.told, f"{kernel} does not occur in the step"
        return found

    return step


def ops_of(run):
    "The kernels that run, by name."
    seen = set()
    with Lies(lambda func: seen.add(func.overloadpacket._qualified_op_name), None):
        run()
    return seen


# honest devices


class OtherSums(TorchDispatchMode):
    "Products in another precision: sums in another order (double), or inputs of 10 bits (TF32)."

    def __init__(self, tf32):
        super().__init__()
        self.tf32 = tf32

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket not in (aten.mm, aten.addmm, aten.bmm):
            return func(*args, **(kwargs or {}))
        if not self.tf32:
            return func(*(a.double() for a in args), **(kwargs or {})).float()
        rounded = [((a.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(FP32) for a in args]
        return func(*(args[:-2]), *rounded[-2:], **(kwargs or {}))


def rounds_honestly(seed):
    want = selftest.probe_step("cpu", FP32, seed=seed)
    for name, mode in (("fp32", OtherSums(False)), ("tf32", OtherSums(True))):
        with mode:
            assert (
                selftest.disagreement(
                    selftest.probe_step("cpu", FP32, seed=seed), want, selftest.UNITS[name]
                )
                == ""
            )
    for name in ("bf16", "fp16"):
        got = selftest.probe_step("cpu", DTYPES[name], seed=seed)
        assert selftest.disagreement(got, want, selftest.UNITS[name]) == ""


@pytest.mark.parametrize("seed", range(3))
def test_rounding_is_believed(seed):
    rounds_honestly(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_rounding_is_believed_for_fifty_seeds(seed):
    rounds_honestly(seed)


def test_the_bounds_leave_room_but_not_much():
    "Twice the bound is never needed, and a tenth of it would refuse an honest device."
    want, got = (selftest.probe_step("cpu", dtype) for dtype in (FP32, BF16))
    assert selftest.disagreement(got, want, selftest.UNITS["bf16"] / 1.2) == ""
    assert selftest.disagreement(got, want, selftest.UNITS["bf16"] / 10) != ""


# wrong devices


def erf_gelu(out, x, **kwargs):
    return torch.nn.functional.gelu(x)  # the other formula: at most 0.0005 away


def last_row_lost(out, *args, **kwargs):
    return torch.cat([out[:-1], torch.zeros_like(out[-1:])]) if len(out) % 64 else out


def counts_once(out, grad, ids, *args):
    return out / ids.flatten().bincount(minlength=len(out)).clamp(min=1)[:, None]


def no_update_if_odd(out, params, *args, **kwargs):
    for p in params[1::2]:  # as when a kernel ignores what does not lie in one piece
        p.add_(0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))


ATTENTION = aten._scaled_dot_product_flash_attention_for_cpu
FAULTS = {
    "GELU backward, 1 % too much": (aten.gelu_backward, lambda out, *a, **k: out * 1.01),
    "GELU backward, hands on its input": (
        aten.gelu_backward,
        lambda out, grad, *a, **k: grad.clone(),
    ),
    "GELU, the other formula": (aten.gelu, erf_gelu),
    "LayerNorm forgets the gain": (
        aten.native_layer_norm,
        lambda out, x, shape, *a: aten.native_layer_norm(x, shape, None, None, 1e-5),
    ),
    "LayerNorm backward, the gain's gradient of one row less": (
        aten.native_layer_norm_backward,
        lambda out, grad, *a: (out[0], out[1] - grad.flatten(0, -2)[-1], out[2]),
    ),
    "attention sees one future token": (
        ATTENTION,
        lambda out, q, k, v, *a, **kw: (out[0] + 0.01 * v.roll(-1, 2), *out[1:]),
    ),
    "attention backward, sign of the keys": (
        aten._scaled_dot_product_flash_attention_for_cpu_backward,
        lambda out, *a, **k: (out[0], -out[1], out[2]),
    ),
    "log-softmax, 1 % too large": (aten._log_softmax, lambda out, *a: out * 1.01),
    "loss backward, mean over ignored targets too": (
        aten.nll_loss_backward,
        lambda out, *a: out * 0.8,
    ),
    "embedding, neighbour's row": (
        aten.embedding,
        lambda out, weight, ids, *a: weight[(ids - 1).clamp(min=0)],
    ),
    "embedding backward, a repeated token counts once": (
        aten.embedding_dense_backward,
        counts_once,
    ),
    "product, last row lost where 64 does not divide": (aten.mm, last_row_lost),
    "product, not finite": (
        aten.mm,
        lambda out, *a: out.index_fill(0, torch.tensor([0]), float("nan")),
    ),
    "scatter of the chunked loss does nothing": (
        aten.scatter_add_,
        lambda out, x, dim, at, src: out.scatter_add_(dim, at, -src),
    ),
    "norm of the gradients, 1 % too small": (
        aten.linalg_vector_norm,
        lambda out, *a, **k: out * 0.99,
    ),
    "AdamW, some parameters drift": (aten._fused_adamw_, no_update_if_odd),
}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_kernel_is_found(fault, dtype):
    found = selftest.self_test("cpu", DTYPES[dtype], step=wrong(*FAULTS[fault]))
    assert found.startswith("computes a training step wrongly: in fp32 the ") and "\n" not in found


# zero, or overwritten
NO_NUMBERS = {
    "empty", "empty_like", "zeros", "zeros_like", "zero_", "uniform_", "fill_", "lift_fresh",
}  # fmt: skip


def one_per_cent(func, out, *args, **kwargs):
    "Make the first result 1 % larger, if it is a number; in place, the argument is changed."
    in_place = func._schema.name.endswith("_")
    target = args[0] if in_place else out
    target = target[0] if isinstance(target, tuple | list) and target else target
    if not (isinstance(target, torch.Tensor) and target.is_floating_point()):
        return out
    if in_place:
        target.mul_(1.01)
        return out
    return (target * 1.01, *out[1:]) if isinstance(out, tuple | list) else target * 1.01


def test_every_kernel_of_the_step_is_watched():
    "Each kernel that computes numbers is found wrong by 1 %: no part of the step is there in vain."
    want, kernels, changed, blind = selftest.probe_step("cpu", FP32), set(), 0, []
    with Lies(kernels.add, None):
        selftest.probe_step("cpu", FP32)
    for kernel in sorted(kernels, key=str):
        view = any(
            r.alias_info for r in kernel._schema.returns
        ) and not kernel._schema.name.endswith("_")
        if view or kernel._schema.name.split("::")[1] in NO_NUMBERS:
            continue
        with Lies(
            lambda func, kernel=kernel: func == kernel,
            lambda *a, kernel=kernel, **k: one_per_cent(kernel, *a, **k),
        ):
            got = selftest.probe_step("cpu", FP32)
        changed += (found := any(not torch.equal(got[k], want[k]) for k in want))
        if found and not selftest.disagreement(got, want, selftest.UNITS["fp32"]):
            blind.append(str(kernel))
    assert blind == [] and changed >= 30


def test_a_fault_in_16_bits_only_is_found():
    def step(device, dtype, update):
        if dtype == FP32:
            return selftest.probe_step("cpu", dtype, update)
        return wrong(*FAULTS["GELU backward, 1 % too much"])(device, dtype, update)

    assert "in bf16 the gradient of" in selftest.self_test("cpu", BF16, step=step)
    assert selftest.self_test("cpu", FP32, step=step) == ""


@pytest.mark.parametrize(
    "error", [NotImplementedError("The operator 'aten::x' is not\nthere"), TypeError("no float64")]
)
def test_a_kernel_that_is_missing_is_one_line(error):
    def step(*args):
        raise error

    found = selftest.self_test("cpu", FP32, step=step)
    assert found == f"cannot take a training step: {str(error).splitlines()[0]}"


def test_the_step_runs_what_a_training_runs(config, tmp_path):
    "A kernel that training uses and the self-test does not would be believed without a test."
    trainer = Trainer(config, tmp_path / "run")
    trainer.train_step()
    used, tested = ops_of(trainer.train_step), ops_of(lambda: selftest.probe_step("cpu", FP32))
    untested = {name.removeprefix("aten::") for name in used - tested}
    assert untested <= {
        "zero_", "stack", "zeros", "zeros_like", "div", "add_", "unbind", "select",
        "_local_scalar_dense",
    }, untested  # fmt: skip


def test_it_costs_little_and_leaves_no_trace():
    selftest.self_test("cpu", FP32)  # loads torch.optim, as a training does in any case
    before, precision = torch.get_rng_state(), torch.get_float32_matmul_precision()
    times = []
    for _ in range(3):
        t0 = time.perf_counter()
        assert selftest.self_test("cpu", FP32) == ""
        times.append(time.perf_counter() - t0)
    # a guard; one second is what it may cost on a machine that does nothing else
    assert min(times) < 10
    assert (
        torch.equal(torch.get_rng_state(), before)
        and torch.get_float32_matmul_precision() == precision
    )


# the decision


@pytest.fixture
def mac(monkeypatch):
    "A machine that has Apple's GPU; give it the kernel that lies, or None."

    def make(fault):
        honest = selftest.probe_step

        def probe(device, *rest):
            kernel, lie = FAULTS.get(fault, (None, None))
            with Lies(lambda func: str(device) == "mps" and func.overloadpacket == kernel, lie):
                return honest("cpu", *rest)

        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
        monkeypatch.setattr(selftest, "probe_step", probe)

    return make


FAULT = "GELU backward, hands on its input"


def test_auto_takes_the_cpu_if_the_device_fails(mac):
    mac(FAULT)
    said = []
    choice = selftest.tested_device("auto", say=said.append)
    assert choice == dv.Choice(torch.device("cpu"), "mps failed its test")
    (line,) = said
    assert line.startswith(
        "device=mps computes a training step wrongly: in fp32 the gradient of transformer.h.0."
    )
    assert line.endswith("; this runs on the CPU instead") and "\n" not in line


def test_a_device_that_was_asked_for_ends_in_one_line(mac):
    mac(FAULT)
    with pytest.raises(
        ValueError,
        match=r"^device=mps computes .*; "
        r"update PyTorch or the driver, take --device cpu, or insist",
    ) as e:
        selftest.tested_device("mps", "fp32")
    assert "\n" not in str(e.value)


def test_a_device_that_agrees_is_taken_and_the_cpu_is_not_tested(mac, monkeypatch):
    mac(None)
    choice = selftest.tested_device("auto")
    assert choice.value == torch.device("mps") and choice.reason.endswith(
        "a small step there agrees with the CPU's"
    )
    monkeypatch.setattr(selftest, "probe_step", lambda *a: pytest.fail("tested"))
    assert selftest.tested_device("mps", test=False).value.type == "mps"
    assert selftest.tested_device("cpu") == dv.Choice(torch.device("cpu"), "asked for")


# training


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "N_STORIES", 200)
    sizes = {
        "n_layer": 1, "n_head": 2, "n_embd": 32, "block_size": 32, "total_batch": 256,
        "micro_batch": 8, "max_steps": 3,
    }  # fmt: skip
    other = {
        "vocab_size": 300, "val_tokens": 2048, "choice_items": 0, "compile": "off",
        "optimizer": "adamw", "dtype": "fp32",
    }  # fmt: skip
    return plan.preset(
        "tiny", **sizes, **other, data_dir=str(tmp_path / "data"), out_dir=str(tmp_path)
    )


def flags(config):
    keep = "n_layer n_head n_embd block_size total_batch micro_batch max_steps".split()
    keep += "vocab_size val_tokens choice_items data_dir out_dir".split()
    given = [w for k in keep for w in (f"--{k}", str(getattr(config, k)))]
    return [*given, "--optimizer", "adamw", "--dtype", "fp32"]


def test_training_with_auto_goes_on_on_the_cpu(mac, config, tmp_path):
    Trainer(config, tmp_path / "cpu").run()
    mac(FAULT)
    said = []
    trainer = Trainer(config, tmp_path / "mac", say=said.append)
    trainer.run()
    assert trainer.device.type == "cpu" and any(
        "device=mps computes a training step wrongly" in line for line in said
    )
    a, b = (
        checkpoint.load(checkpoint.latest(tmp_path / name / "checkpoints")).model
        for name in ("cpu", "mac")
    )
    assert all(torch.equal(a[k], b[k]) for k in a)  # the test has not touched a random number


def test_the_command_ends_with_one_line_and_code_2(mac, config, capsys):
    mac(FAULT)
    with pytest.raises(SystemExit) as e:
        cli.train([*flags(config), "--device", "mps"])
    err = capsys.readouterr().err
    assert e.value.code == 2 and err.count("\n") == 1
    assert err.startswith(
        "gpt2edu_train: device=mps computes a training step wrongly: in fp32 the gradient of "
    )


def test_no_self_test_skips_it_and_may_change_on_resume(mac, config, monkeypatch, capsys):
    mac(FAULT)
    cli.train(flags(config))
    assert "this runs on the CPU instead" in capsys.readouterr().out
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(selftest, "self_test", lambda *a: pytest.fail("tested"))
    cli.train(["--resume", "--out_dir", config.out_dir, "--no_self_test", "--max_steps", "4"])
    assert "self_test" in plan.MAY_CHANGE


def test_generation_and_evaluation_test_too(mac, config, capsys):
    cli.train([*flags(config), "--device", "cpu"])
    mac(FAULT)
    run = f"{config.out_dir}/tiny"
    capsys.readouterr()
    cli.generate(["--run", run, "--max_tokens", "3"])
    assert "this runs on the CPU instead" in capsys.readouterr().err
    cli.eval_(["--model", run, "--tasks", "val"])
    assert "this runs on the CPU instead" in capsys.readouterr().out
    for command in (cli.generate, cli.eval_):
        with pytest.raises(SystemExit) as e:
            command(["--run", run, "--device", "mps"])
        err = capsys.readouterr().err
        assert (
            e.value.code == 2
            and err.count("\n") == 1
            and "device=mps computes a training step wrongly" in err
        )


@pytest.mark.parametrize("device", ["tpu", "cuda:7", "gpu"])
@pytest.mark.parametrize("command", ["train", "plan", "generate", "eval"])
def test_an_unknown_device_is_one_line(config, capsys, device, command, tmp_path):
    (tmp_path / "r").mkdir()
    # found before the model is read
    (tmp_path / "r" / "config.json").write_text(
        '{"dataset": ["stories"], "max_steps": 1}', encoding="utf-8"
    )
    name = (
        ["--run", str(tmp_path / "r")]
        if command in ("generate", "eval")
        else ["--out_dir", str(tmp_path)]
    )
    with pytest.raises(SystemExit) as e:
        getattr(cli, command.replace("eval", "eval_"))([*name, "--device", device])
    err = capsys.readouterr().err
    assert e.value.code == 2 and err.count("\n") == 1
    assert f"gpt2edu_{command}: device='{device}' is not known; use auto, cpu, cuda or mps" in err
    assert ("CUDA_VISIBLE_DEVICES=7" in err) == (device == "cuda:7")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_where_there_is_none_is_one_line(config, capsys):
    with pytest.raises(SystemExit) as e:
        cli.train([*flags(config), "--device", "cuda"])
    err = capsys.readouterr().err
    assert (
        e.value.code == 2 and err.count("\n") == 1 and "gpt2edu_train: device=cuda: PyTorch " in err
    )


# several ranks

RANKS = """
import sys, torch
from gpt2edu.machine import distributed as dist
from gpt2edu.train import selftest
ranks = dist.start("cpu")
torch.backends.mps.is_available = lambda: True
wrong = int(sys.argv[1])
said = "computes a training step wrongly: in fp32 the loss" if ranks.rank == wrong else ""
selftest.self_test = lambda *a: said
try:
    choice = selftest.tested_device("auto", agree=dist.agreement(ranks))
    print(f"{choice.value}\\n", end="")
except ValueError as e:
    print(f"{e}\\n", end="")
dist.stop()
"""


@pytest.mark.parametrize("wrong_rank", [1, 2])
def test_all_ranks_come_to_one_decision(tmp_path, wrong_rank):
    (tmp_path / "ranks.py").write_text(textwrap.dedent(RANKS), encoding="utf-8")
    cmd = [*TWO_RANKS, tmp_path / "ranks.py", str(wrong_rank)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    p = warm.run(cmd, env=env)
    assert p.returncode == 0, p.stderr
    lines = p.stdout.splitlines()
    assert len(lines) == 2 and lines[0] == lines[1]
    assert ("mps" == lines[0]) == (wrong_rank == 2) and (f"(rank {wrong_rank})" in lines[0]) == (
        wrong_rank < 2
    )


def test_alone_there_is_nobody_to_agree_with():
    assert dist.agreement(dist.Ranks()) is None
