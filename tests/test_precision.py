"""Under fp32 no operation sees a 16-bit number; under bf16 only products do.

A mode of PyTorch's dispatcher watches.

Defect: `--dtype fp32` was chosen since bf16 is emulated on many processors, and `torch.optim.Muon`
multiplied in bf16 all the same: 1.3 s a step instead of 0.04 s.
"""

import ast
import re
import symtable
from pathlib import Path
from typing import get_args

import nbformat
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gpt2edu.cli.chat import Chat
from gpt2edu.data import cache as prepare
from gpt2edu.evaluate.tasks import TASKS, Subject
from gpt2edu.machine import device, precision
from gpt2edu.machine.distributed import Ranks
from gpt2edu.model import generate, int8
from gpt2edu.model.variants import GPT2_BLOCK, Activation, Norm, Position
from gpt2edu.text import corpus
from gpt2edu.train import config as plan
from gpt2edu.train import grpo, optim, start
from gpt2edu.train.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "nbs").glob("*/ch[0-9][0-9]_*.ipynb"))
HALVES = (torch.float16, torch.bfloat16)
PRODUCTS = {"mkldnn::_linear_pointwise", "linear", "mm", "addmm", "bmm", "baddbmm"}


class Watch(TorchDispatchMode):
    "Note the precisions of all tensors that go into and come out of each operation."

    def __init__(self):
        super().__init__()
        self.seen = {}  # name of the operation: set of dtypes

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, out))
        name = func._schema.name.removeprefix("aten::")
        self.seen.setdefault(name, set()).update(
            t.dtype for t in leaves if isinstance(t, torch.Tensor)
        )
        return out

    def halves(self):
        "The operations that saw a 16-bit float."
        return sorted(name for name, dtypes in self.seen.items() if dtypes & {*HALVES})


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def tiny(data_dir, tmp_path, monkeypatch):
    "A trainer of the preset tiny or another, with a small corpus; what it is asked for is given."
    monkeypatch.setattr(prepare, "N_STORIES", 400)

    def make(name="tiny", trainer=Trainer, **flags):
        flags = {"device": "cpu", "dtype": "fp32", "compile": "off", "val_tokens": 2048} | flags
        flags |= {"data_dir": str(data_dir), "out_dir": str(tmp_path / "runs")}
        config = plan.preset(name, **flags)
        if config.init_from:
            config = start.fitted(config, config.init_from, config.out_dir)
        return trainer(config, tmp_path / "runs" / f"{name}-{flags['dtype']}")

    return make


LITTLE = {"total_batch": 1024, "micro_batch": 8, "choice_items": 4}


@pytest.fixture
def after(tiny):
    "A trainer of one of the kinds that come after pretraining."

    def make(kind, **flags):
        if kind == "LoRA":
            return tiny("tiny-lora", **flags, **LITTLE)
        talks = tiny("tiny-sft", conversations=20, **flags, **LITTLE)
        if kind == "SFT":
            return talks
        talks.save()  # what answers and is judged
        asked = {"init_from": talks.folder.name, "conversations": 5, "answer_tokens": 8, "group": 4}
        return tiny("tiny-grpo", grpo.RewardTrainer, **asked, **flags, **LITTLE)

    return make


KINDS = ("SFT", "LoRA", "GRPO")
VARIANTS = {
    "RoPE": {"position": "rope"}, "RMSNorm": {"norm": "rms"}, "SwiGLU": {"mlp": "swiglu"},
    "ReLU²": {"mlp": "relu2"}, "QK-norm": {"qk_norm": True}, "GQA": {"n_kv_head": 1},
    "a head of its own": {"tied": False}, "no bias": {"bias": False},
    "Llama": {
        "position": "rope", "norm": "rms", "mlp": "swiglu", "qk_norm": True, "n_kv_head": 1,
        "tied": False, "bias": False,
    },
}  # fmt: skip


def test_every_variant_of_the_block_is_watched():
    assert {k for flags in VARIANTS.values() for k in flags} == {*GPT2_BLOCK}
    words = {v for flags in VARIANTS.values() for v in flags.values() if isinstance(v, str)}
    known = {w for kind in (Position, Norm, Activation) for w in get_args(kind)}
    assert known - words == {"learned", "layer", "gelu"}  # GPT-2's


# a training step


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_training_step_in_fp32(tiny, optimizer):
    trainer = tiny(optimizer=optimizer)
    with Watch() as watch:
        for _ in range(2):  # the second meets what the first has left behind
            trainer.train_step()
    others = {"native_layer_norm_backward", "gelu_backward", "_fused_adamw_"}
    assert PRODUCTS & watch.seen.keys() and watch.seen.keys() >= others
    assert watch.halves() == []


def two_steps(trainer):
    with Watch() as watch:
        for _ in range(2):
            trainer.train_step()
    return watch


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_and_a_text_of_every_variant_in_fp32(tiny, variant):
    trainer = tiny(n_layer=1, total_batch=1024, micro_batch=8, **VARIANTS[variant])
    assert {*VARIANTS[variant].items()} <= {*vars(trainer.model.config).items()}
    watch = two_steps(trainer)
    with watch:
        jobs(trainer)["generation"]()
    assert PRODUCTS & watch.seen.keys() and watch.halves() == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_every_kind_in_fp32(after, kind):
    trainer = after(kind)
    watch = two_steps(trainer)
    assert watch.seen.keys() >= {"native_layer_norm_backward", "_fused_adamw_"}
    assert ("searchsorted" in watch.seen) == (kind == "GRPO")  # its answers are drawn
    assert PRODUCTS & watch.seen.keys() and watch.halves() == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_every_kind_in_bf16_multiplies_in_bf16_alone(after, kind, monkeypatch):
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"amx_bf16"}))
    watch = two_steps(after(kind, dtype="bf16"))
    products = PRODUCTS & watch.seen.keys()
    assert products and all(watch.seen[name] == {torch.bfloat16} for name in products)
    assert watch.seen["native_layer_norm"] == watch.seen["_fused_adamw_"] == {torch.float32}


@pytest.mark.parametrize("flags, dtype", [({"amx_bf16"}, torch.bfloat16), ((), torch.float32)])
def test_muon_of_a_run_in_bf16_multiplies_as_the_hardware_does(tiny, monkeypatch, flags, dtype):
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset(flags))
    trainer = tiny(optimizer="muon", dtype="bf16", n_layer=1)
    trainer.accumulate()
    with Watch() as watch:
        trainer.optimizers[0].step()
    products = PRODUCTS & watch.seen.keys()
    assert products and all(watch.seen[name] == {dtype} for name in products)
    assert {t.dtype for t in tree_leaves(trainer.optimizers[0].state_dict()["state"])} == {
        torch.float32
    }


def test_the_watcher_sees_the_optimizer_of_before(tiny):
    "With `torch.optim.Muon` put back the test above must fail: it always multiplies in bf16."
    trainer = tiny(optimizer="muon")
    matrices = optim.block_matrices(trainer.model)
    trainer.optimizers[0] = torch.optim.Muon(
        matrices, lr=0.01, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"
    )
    for group in trainer.optimizers[0].param_groups:
        group["peak_lr"] = group["lr"]
    with Watch() as watch:
        trainer.train_step()
    assert "mm" in watch.halves()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_training_step_in_bf16(tiny, optimizer):
    """Products are in bf16.

    Attention on a CPU, norms, loss, weights, gradients and the optimisers' memory are in fp32.
    """
    trainer = tiny(optimizer=optimizer, dtype="bf16")
    with Watch() as mode:
        with device.autocast("cpu", torch.bfloat16):
            x, y = trainer.batch()[:2]
            loss = trainer.forward(x, y)[1]
        loss.backward()
    assert loss.dtype == torch.float32
    for name in PRODUCTS & mode.seen.keys():
        assert mode.seen[name] == {torch.bfloat16}, name
    attention = [name for name in mode.seen if name.startswith("_scaled_dot_product")]
    # quicker so
    assert len(attention) == 2 and all(mode.seen[name] == {torch.float32} for name in attention)
    for name in (
        "native_layer_norm", "native_layer_norm_backward", "_log_softmax",
        "_log_softmax_backward_data",
    ):  # fmt: skip
        assert mode.seen[name] == {torch.float32}, name
    assert {p.grad.dtype for p in trainer.model.parameters()} == {torch.float32}

    with Watch() as mode:
        for o in trainer.optimizers:
            o.step()
    assert mode.seen["_fused_adamw_"] == {torch.float32}
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    state = [
        t
        for o in trainer.optimizers
        for t in tree_leaves(o.state_dict()["state"])
        if isinstance(t, torch.Tensor)
    ]
    assert len(state) > 20 and {t.dtype for t in state} == {torch.float32}


# judging and writing


def jobs(trainer):
    "What is done with a model besides training."
    items = corpus.story_items(2)
    subject = Subject(trainer.model, trainer.tokenizer, trainer.device, trainer.dtype, Ranks(), 2)
    of_harness = [i | {"activity_label": "Play", "ctx_a": i["ctx"], "ctx_b": ""} for i in items]
    hellaswag = TASKS["hellaswag"].run
    return {
        "validation": trainer.judge,
        "generation": lambda: generate.complete(
            trainer.model, trainer.tokenizer, "One day", 5, num_seq=2, top_p=0.9
        ),
        "HellaSwag": lambda: hellaswag(subject, items),
        "HellaSwag, harness": lambda: hellaswag(subject, of_harness, "harness"),
    }


@pytest.mark.parametrize("job", ["validation", "generation", "HellaSwag", "HellaSwag, harness"])
def test_judging_and_writing_in_fp32(tiny, job):
    run = jobs(tiny(choice_items=4))[job]
    with Watch() as watch:
        run()
    assert PRODUCTS & watch.seen.keys() and watch.halves() == []


@pytest.mark.parametrize("kind", KINDS)
def test_judging_and_chatting_of_every_kind_in_fp32(after, kind):
    trainer = after(kind)
    chat = None
    if kind != "LoRA":
        chat = Chat(trainer.model.eval(), trainer.tokenizer, max_tokens=5, top_p=0.9)
    with Watch() as watch:
        trainer.judge()
        if chat:
            said = chat.answer(chat.fit([{"role": "user", "content": "Where is Tom?"}]).ids)
            assert chat.read == 0 and list(said) and chat.read > 5
    assert PRODUCTS & watch.seen.keys() and watch.halves() == []


@pytest.mark.parametrize("kernel", [True, False])
def test_int8_rounds_to_bf16_and_multiplies_nothing_in_it(tiny, kernel, monkeypatch):
    "But in its kernel, which is fast on processors without bf16 too; the rest is in fp32."
    if kernel and not int8.has_kernel("cpu"):
        pytest.skip("PyTorch has no int8 kernel for this processor")
    monkeypatch.setattr(int8, "has_kernel", lambda *_: kernel)
    trainer = tiny(n_layer=1)
    trainer.model = int8.int8_model(trainer.model.eval())
    with Watch() as watch:
        jobs(trainer)["generation"]()
    own = {"_weight_int8pack_mm"} if kernel else set()
    assert own <= {*watch.halves()} and not PRODUCTS & {*watch.halves()}
    views = {"view", "_unsafe_view", "detach", "alias", "unsqueeze", "select", "slice"}
    assert {*watch.halves()} - views <= own | {"to", "_to_copy", "add"}
    assert watch.seen["layer_norm"] == {torch.float32}  # not taken apart without gradients


@pytest.mark.parametrize("job", ["validation", "HellaSwag"])
def test_judging_in_bf16(tiny, job):
    run = jobs(tiny(choice_items=0, dtype="bf16"))[job]
    with Watch() as watch:
        run()
    assert watch.seen["addmm"] == {torch.bfloat16}
    assert watch.seen["native_layer_norm"] == {torch.float32}
    assert watch.seen.get("_log_softmax", {torch.float32}) == {torch.float32}


# the solutions of all exercises


def names(table):
    """The top-level names that a statement binds, and those that it reads.

    Those read inside functions count too.
    """
    bound = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    read = {s.get_name() for s in table.get_symbols() if s.is_referenced()}
    inner = list(table.get_children())
    for scope in inner:
        read |= {s.get_name() for s in scope.get_symbols() if s.is_global()}
        inner += scope.get_children()
    return bound, read


def statements(source):
    "Each statement of a cell, with the names that it binds and reads."
    for statement in ast.parse(source).body:
        text = ast.unparse(statement)
        yield text, *names(symtable.symtable(text, "cell", "exec"))


def solutions(path):
    """Each exercise of a chapter with the statements that its solution and its check need.

    They are found by the names they bind.
    """
    before, exercise = [], None
    for cell in nbformat.read(path, 4).cells:
        source = cell.source
        if cell.cell_type != "code" or re.search(r"^#\|\s*eval:\s*false|^\s*[%!]", source, re.M):
            continue
        if name := re.search(r"^#\|\s*exercise:\s*(\w+)", source, re.M):
            exercise = name[1]
        elif "#| code-summary" in source and "ex.check_" in source:
            before += statements(source)
            need, wanted = [before[-1][0]], before[-1][2]
            for text, bound, read in reversed(before[:-1]):
                if bound & wanted:
                    need.insert(0, text)
                    wanted = (wanted - bound) | read
            yield exercise, need
        elif not source.startswith("ex.check_"):
            before += statements(source)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_solutions_in_fp32(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    # a processor that has no bf16: auto takes fp32
    monkeypatch.setattr(device, "cpu_flags", frozenset)
    found = {}
    cells = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    asked = re.findall(r"^#\|\s*exercise:\s*(\w+)", "\n".join(cells), re.M)
    for exercise, need in solutions(path):
        space = {"__name__": "__main__"}
        with Watch() as watch:
            exec("\n".join(need[:-1]), space)  # noqa: S102  what a reader runs
            verdict = eval(need[-1], space)
        assert verdict.passed, f"{exercise}: {verdict}"
        found[exercise] = watch.halves()
    assert len(asked) >= 3 and found == {name: [] for name in asked}, found
