"""Checkpoints: the same bits back, damage refused by name, death and full disks survived."""

import copy
import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from gpt2edu.train import checkpoint as ck

FILES = (ck.MODEL, ck.OPTIM, ck.STATE)


class Tied(torch.nn.Module):
    "The smallest model with all that matters: an embedding tied to its head, a matrix, a bias."

    def __init__(self, seed=0, C=8, V=11):
        super().__init__()
        torch.manual_seed(seed)
        self.wte = torch.nn.Embedding(V, C)
        self.fc = torch.nn.Linear(C, C)
        self.lm_head = torch.nn.Linear(C, V, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, x):
        return self.lm_head(F.gelu(self.fc(self.wte(x))))


def optimizers(model, fused=False):
    adamw = torch.optim.AdamW(
        [model.wte.weight, model.fc.bias], lr=1e-2, betas=(0.9, 0.95), fused=fused
    )
    muon = torch.optim.Muon([model.fc.weight], lr=1e-2)
    for o in (adamw, muon):
        for g in o.param_groups:
            g["peak_lr"] = g["lr"] / 3  # a float whose decimal form is long
    return [adamw, muon]


def train(model, opts, steps, generator):
    for _ in range(steps):
        x, y = torch.randint(0, 11, (2, 4, 5), generator=generator)
        F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
        for o in opts:
            o.step()
            o.zero_grad()


def state_of(step, **more):
    return {
        "step": step,
        "position": 7 * step,
        "config": {"n_layer": 2, "n_embd": 8, "betas": (0.9, 0.95)},
        **more,
    }


def saved(folder, step=3, seed=0, **kw):
    model = Tied(seed)
    opts = optimizers(model)
    train(model, opts, step, torch.Generator().manual_seed(seed))
    return ck.save(folder, model.state_dict(), [o.state_dict() for o in opts], state_of(step), **kw)


def same(a, b):
    "Whether two nests are equal, types, dtypes and bits."
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        bits = (t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
        return (
            a.dtype == b.dtype
            and a.shape == b.shape
            and a.device == b.device
            and torch.equal(*bits)
        )
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


# ---- round trip


@pytest.mark.parametrize("fused", [False, True])
def test_continuation_is_bit_exact(tmp_path, fused):
    model, g = Tied(), torch.Generator().manual_seed(1)
    opts = optimizers(model, fused)
    train(model, opts, 3, g)
    states = [copy.deepcopy(o.state_dict()) for o in opts]
    path = ck.save(tmp_path, model.state_dict(), states, state_of(3, rng=ck.rng_state({"data": g})))
    train(model, opts, 4, g)

    again, g2 = Tied(seed=99), torch.Generator()
    opts2 = optimizers(again, fused)
    found = ck.load(path)
    # tuples, ints, floats, 0-d step tensors with their dtype and device
    assert same(found.optim, states)
    again.load_state_dict(found.model)
    for o, s in zip(opts2, found.optim, strict=True):
        o.load_state_dict(s)
    ck.set_rng_state(found.state["rng"], {"data": g2})
    train(again, opts2, 4, g2)
    assert same(dict(model.state_dict()), dict(again.state_dict()))
    assert same([o.state_dict() for o in opts], [o.state_dict() for o in opts2])


def test_every_dtype_shape_and_special_value_comes_back(tmp_path):
    odd = torch.tensor([float("nan"), -0.0, float("inf"), 1e-45])
    model = {
        "f32": odd, "bf16": odd.bfloat16(), "f16": odd.half(), "f64": odd.double() / 3,
        "i64": torch.tensor(2**62), "i32": torch.arange(3, dtype=torch.int32),
        "i16": torch.tensor([-1], dtype=torch.int16), "i8": torch.tensor([-1], dtype=torch.int8),
        "u8": torch.arange(5, dtype=torch.uint8), "bool": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3), "turned": torch.randn(3, 4).T,
        "part": torch.arange(10.0)[::2], "scalar": torch.tensor(3.5),
    }  # fmt: skip
    found = ck.load(ck.save(tmp_path, model, [], {"step": 1}))
    assert same(
        {k: v.contiguous() for k, v in model.items()},
        {k: v.contiguous() for k, v in found.model.items()},
    )
    assert found.optim == []


def test_the_files_are_what_the_safetensors_library_reads_and_would_write(tmp_path):
    path = saved(tmp_path)
    found = ck.load(path)
    stored = {k: t for k, t in found.model.items() if k != "lm_head.weight"}
    assert same(safetensors.torch.load_file(path / ck.MODEL), stored) and len(stored) == 3
    tensors = {"b": torch.randn(2, 3), "a": torch.randn(4), "h": torch.randn(3).half()}
    assert b"".join(ck.pack(tensors)) == safetensors.torch.save(tensors)


def test_tied_weights_are_stored_once_and_come_back_as_one(tmp_path):
    path = saved(tmp_path)
    assert sorted(safetensors.torch.load_file(path / ck.MODEL)) == [
        "fc.bias",
        "fc.weight",
        "wte.weight",
    ]
    found = ck.load(path)
    assert found.model["lm_head.weight"] is found.model["wte.weight"]
    Tied(5).load_state_dict(found.model, strict=True)


def test_names_of_compiled_and_wrapped_models_are_plain(tmp_path):
    model = Tied()
    compiled = torch.compile(model, backend="eager")
    assert "_orig_mod.fc.weight" in compiled.state_dict()
    ddp_like = {f"module.{k}": v for k, v in compiled.state_dict().items()}
    for i, state in enumerate((compiled.state_dict(), ddp_like)):
        found = ck.load(ck.save(tmp_path / str(i), state, [], {"step": 1}))
        assert same(found.model, dict(model.state_dict()))


def test_rng_state_is_text_and_exact():
    g = torch.Generator().manual_seed(3)
    torch.rand(5), torch.rand(5, generator=g)
    text = json.loads(json.dumps(ck.rng_state({"sampling": g})))
    want = torch.rand(9), torch.randn(9, generator=g)
    torch.manual_seed(0)
    g2 = torch.Generator()
    ck.set_rng_state(text, {"sampling": g2})
    assert same(want, (torch.rand(9), torch.randn(9, generator=g2)))


def test_state_keeps_what_json_can_hold(tmp_path):
    more = {
        "best_loss": 0.1 + 0.2,
        "floor": float("inf"),
        "tokenizer": "ab" * 32,
        "scaler": {"scale": 65536.0},
    }
    state = state_of(5, note="Ünï\n", **more)
    found = ck.load(ck.save(tmp_path, {}, [], state)).state
    assert found == json.loads(json.dumps(state)) and found["best_loss"] == 0.1 + 0.2
    with pytest.raises(TypeError):
        ck.save(tmp_path, {}, [], {"step": 6, "loss": torch.tensor(1.0)})
    assert [p.name for p in tmp_path.iterdir()] == ["step_00000005"]


# ---- damage


def alter(path, offset, rng):
    raw = bytearray(path.read_bytes())
    raw[offset] ^= rng.randrange(1, 256)
    path.write_bytes(raw)


def altered_bytes_are_refused(tmp_path, count):
    whole, rng = saved(tmp_path / "whole"), random.Random(count)
    for i in range(count):
        name = FILES[i % 3]
        bad = shutil.copytree(whole, tmp_path / "bad", dirs_exist_ok=True)
        alter(bad / name, rng.randrange((whole / name).stat().st_size), rng)
        with pytest.raises(ValueError, match=name) as e:
            ck.load(bad)
        assert "\n" not in str(e.value) and str(bad) in str(e.value)
    assert ck.load(whole).state["step"] == 3


def test_altered_bytes_are_refused_by_name(tmp_path):
    altered_bytes_are_refused(tmp_path, 30)


@pytest.mark.slow
def test_altered_bytes_are_refused_by_name_300(tmp_path):
    altered_bytes_are_refused(tmp_path, 300)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0, 1, 0.5, -1])
def test_truncated_files_are_refused_by_name(tmp_path, name, keep):
    path = saved(tmp_path)
    raw = (path / name).read_bytes()
    (path / name).write_bytes(raw[: int(len(raw) * keep) if keep == 0.5 else keep])
    with pytest.raises(ValueError, match=f"{name}.*cut short.*use an earlier checkpoint"):
        ck.load(path)
    assert ck.latest(tmp_path) is None  # incomplete: not offered


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(tmp_path, name):
    path = saved(tmp_path)
    (path / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        ck.load(path)
    assert ck.latest(tmp_path) is None


def test_missing_folder_and_unknown_format(tmp_path):
    with pytest.raises(FileNotFoundError, match="step_00000009: no such checkpoint"):
        ck.load(tmp_path / "step_00000009")
    path = saved(tmp_path)
    content = ck.unseal((path / ck.STATE).read_bytes()) | {"format": "gpt2edu checkpoint 2"}
    (path / ck.STATE).write_bytes(ck.sealed(content))
    message = 'format is "gpt2edu checkpoint 2", expected "gpt2edu checkpoint 1"; update gpt2edu'
    with pytest.raises(ValueError, match=message):
        ck.load(path)


class Bomb:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("forged", [False, True], ids=["planted", "planted and re-hashed"])
@pytest.mark.parametrize("name", [ck.MODEL, ck.OPTIM])
def test_a_pickle_is_refused_and_never_unpickled(tmp_path, name, forged):
    path, crater = saved(tmp_path / "run"), tmp_path / "crater"
    torch.save({"fc.weight": Bomb(crater)}, path / name)
    for raw in (pickle.dumps(Bomb(crater)), (path / name).read_bytes()):
        (path / name).write_bytes(raw)
        if forged:
            content = ck.unseal((path / ck.STATE).read_bytes())
            content["files"][name] = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
            (path / ck.STATE).write_bytes(ck.sealed(content))
        with pytest.raises(
            ValueError, match=f"{name} is not a safetensors file" if forged else name
        ):
            ck.load(path)
        assert not crater.exists()
    # the bomb is live: unpickling it twice would have been seen
    with pytest.raises(FileExistsError):
        pickle.loads(pickle.dumps(Bomb(crater))), pickle.loads(pickle.dumps(Bomb(crater)))  # noqa: S301


# ---- another config


@dataclass
class Config:
    n_layer: int = 2
    n_embd: int = 8
    betas: tuple = (0.9, 0.95)


def test_config_must_agree(tmp_path):
    path = saved(tmp_path)
    assert ck.load(path, config=Config()).state["step"] == 3
    # only what is asked for is compared
    assert ck.load(path, config={"n_embd": 8}).state["step"] == 3
    for config, message in [
        (Config(n_layer=3, n_embd=9), "n_layer=2, not 3; use n_layer=2 or another run folder"),
        ({"n_embd": 9}, "n_embd=8, not 9"),
        ({"betas": (0.9, 0.99)}, r"betas=\[0.9, 0.95\], not \[0.9, 0.99\]"),
        ({"n_head": 2}, "n_head='absent', not 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            ck.load(path, config=config)
    nested = ck.save(tmp_path, {}, [], {"step": 9, "config": {"model": {"n_layer": 2}, "lr": 1.0}})
    with pytest.raises(ValueError, match=r"model\.n_layer=2, not 4"):
        ck.load(nested, config={"model": {"n_layer": 4}, "lr": 2.0})


# ---- order, keeping, leftovers


def test_latest_goes_by_step_and_passes_over_leftovers(tmp_path):
    assert ck.latest(tmp_path / "absent") is None
    for step in (9, 10, 100_000_000, 2):
        ck.save(tmp_path, {}, [], {"step": step})
    assert ck.latest(tmp_path).name == "step_100000000"
    (tmp_path / "step_200000000").mkdir()
    (tmp_path / "step_x").mkdir()
    shutil.copytree(tmp_path / "step_00000010", tmp_path / ".tmp-step_300000000-1")
    (tmp_path / "step_400000000").write_text("a file", encoding="utf-8")
    assert ck.latest(tmp_path).name == "step_100000000"
    ck.save(tmp_path, {}, [], {"step": 11})
    assert not list(tmp_path.glob(".tmp*"))


def test_keep_last(tmp_path):
    for step in range(1, 6):
        saved(tmp_path, step, keep_last=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_00000004", "step_00000005"]
    # resumed from an earlier one: what was just saved is never deleted
    saved(tmp_path, 1, keep_last=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "step_00000001",
        "step_00000004",
        "step_00000005",
    ]
    for n in (0, -1):
        with pytest.raises(
            ValueError, match=f"keep_last={n} would keep no checkpoint; use 1 or more"
        ):
            saved(tmp_path, 7, keep_last=n)


def test_saving_a_step_again_replaces_it_at_every_point_of_failure(tmp_path, monkeypatch):
    saved(tmp_path, 3, seed=0)
    second = saved(tmp_path, 3, seed=1)
    assert same(
        ck.load(second).model["fc.bias"], ck.load(saved(tmp_path / "b", 3, seed=1)).model["fc.bias"]
    )
    assert [p.name for p in tmp_path.iterdir() if p.name != "b"] == ["step_00000003"]

    real, left = ck.Path.rename, 0

    def rename(self, target):
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        return real(self, target)

    for n in range(4):
        left = n
        monkeypatch.setattr(ck.Path, "rename", rename)
        try:
            saved(tmp_path, 3, seed=n)
        except KeyboardInterrupt:
            pass
        monkeypatch.undo()
        assert ck.load(ck.latest(tmp_path)).state["step"] == 3
        assert not list(tmp_path.glob(".tmp-*"))
    saved(tmp_path, 3)
    assert [p.name for p in tmp_path.iterdir() if p.name != "b"] == ["step_00000003"]


# ---- asynchronous


def test_async_save_is_a_snapshot_and_errors_surface_at_the_next_call(tmp_path):
    model, saver = Tied(), ck.AsyncSaver()
    opts = optimizers(model)
    train(model, opts, 2, torch.Generator().manual_seed(0))
    want, want_optim = copy.deepcopy((dict(model.state_dict()), [o.state_dict() for o in opts]))
    state = state_of(2)
    saver.save(tmp_path, model.state_dict(), [o.state_dict() for o in opts], state)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    for o in opts:
        for entry in o.state.values():
            for v in entry.values():
                v.zero_()
    state["position"] = -1
    found = ck.load(saver.wait())
    assert (
        same(found.model, want) and same(found.optim, want_optim) and found.state["position"] == 14
    )
    assert saver.wait() is None

    (tmp_path / "file").write_text("", encoding="utf-8")
    saver.save(tmp_path / "file" / "run", {}, [], {"step": 1})
    with pytest.raises(OSError, match="could not save"):
        saver.save(tmp_path, {}, [], {"step": 5})
    saver.save(tmp_path, {}, [], {"step": 5})
    assert saver.wait() == ck.latest(tmp_path) == tmp_path / "step_00000005"


# ---- disks and death


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(
        OSError, match=r"could not save .*file/run/step_00000003: Not a directory"
    ) as e:
        saved(tmp_path / "file" / "run")
    assert "\n" not in str(e.value)


WRITER = """
import resource, signal, sys, torch
from pathlib import Path
from gpt2edu.train import checkpoint as ck
folder, mode = Path(sys.argv[1]), sys.argv[2]
model = {f"w{i}": torch.full((20_000,), float(i)) for i in range(20)}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
step = 0
while True:
    step += 1
    try:
        ck.save(folder, model, [], {"step": step}, keep_last=2)
    except OSError as e:
        print(type(e).__name__, e.errno, e)
        sys.exit(3)
    print(step, flush=True)
    if mode == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
"""


def writer(folder, mode):
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(folder), mode]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def refused(folder, process, reason):
    out = process.communicate(timeout=600)[0]
    last = out.strip().splitlines()[-1]
    assert process.returncode == 3 and "Traceback" not in out
    assert f": {reason}; the last whole checkpoint is {folder}/step_00000" in last
    assert not list(folder.glob(".tmp-*"))
    assert ck.load(ck.latest(folder)).model["w19"][0] == 19
    return last


def test_full_disk_by_limit_leaves_the_previous_checkpoint_whole(tmp_path):
    folder = tmp_path / "run"
    last = refused(folder, writer(folder, "limit"), "File too large")
    assert (
        "could not save" in last
        and "step_00000002" in last
        and ck.latest(folder).name == "step_00000001"
    )


def test_full_disk_on_a_real_small_file_system(tmp_path):
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", tmp_path], capture_output=True
    )
    if mount.returncode:
        pytest.skip("mounting a tmpfs is not permitted here; the test by RLIMIT_FSIZE stands in")
    try:
        folder = tmp_path / "run"  # a checkpoint takes 1.6 MB: two fit, the third does not
        last = refused(folder, writer(folder, "loop"), "No space left on device")
        assert "step_00000003" in last and ck.latest(folder).name == "step_00000002"
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def killed_while_saving(tmp_path, times):
    rng, folder, before = random.Random(times), tmp_path / "run", 0
    for _ in range(times):
        process = writer(folder, "loop")
        # it is saving now; every run starts at step 1 again
        assert process.stdout.readline().strip() == "1"
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found = ck.load(ck.latest(folder))
        assert found.state["step"] >= max(before, 1) and found.model["w7"].eq(7).all()
        for path in folder.glob("step_*"):
            ck.load(path)  # at no time is there a checkpoint that does not load
        before = found.state["step"]


BUSY = """
import sys
from pathlib import Path
from gpt2edu.train.config import preset
from gpt2edu.train.trainer import Trainer
place, shards = Path(sys.argv[1]), sys.argv[2]
config = preset(
    "tiny", dataset=("pydocs",), data_dir=shards, vocab_size=300, n_layer=1, n_head=2, n_embd=16,
    block_size=32, total_batch=64, micro_batch=2, val_tokens=512, choice_items=0, device="cpu",
    dtype="fp32", compile="off", max_steps=10**6, save_every=1, keep_last=1, eval_every=10**6,
    sample_every=10**6,
)
Trainer(config, place).run()
"""


def readers_beside_a_trainer(tmp_path, times):
    "Load a run while a training saves and prunes at every step, as often as it can."
    from gpt2edu.train.runs import load_run

    folder = tmp_path / "run"
    command = [sys.executable, "-c", BUSY, folder, tmp_path / "data"]
    training = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        while ck.latest(folder / "checkpoints") is None:
            assert training.poll() is None, training.stderr.read()
            time.sleep(0.05)
        seen, n = set(), 0
        while n < times or len(seen) <= times // 10:  # until it has moved meanwhile
            assert training.poll() is None, training.stderr.read()
            model, _ = load_run(folder)
            seen.add(model.transformer.wte.weight.sum().item())
            n += 1
    finally:
        training.kill()
        training.communicate()


def test_readers_beside_a_trainer_that_prunes(tmp_path):
    readers_beside_a_trainer(tmp_path, 30)


@pytest.mark.slow
def test_readers_beside_a_trainer_that_prunes_300(tmp_path):
    readers_beside_a_trainer(tmp_path, 300)


def test_a_broken_checkpoint_is_reported_and_not_asked_for_again(tmp_path):
    assert ck.load_latest(tmp_path) is None
    path = ck.save(tmp_path, {"w": torch.ones(3)}, [], {"step": 1})
    assert ck.load_latest(tmp_path)[0] == path
    (path / ck.MODEL).write_bytes(b"")
    with pytest.raises(ValueError, match="cut short"):
        ck.load_latest(tmp_path)
    (path / ck.STATE).unlink()
    with pytest.raises(ValueError, match="is missing"):
        ck.load_latest(tmp_path)


def test_killed_while_saving(tmp_path):
    killed_while_saving(tmp_path, 4)


@pytest.mark.slow
def test_killed_while_saving_20(tmp_path):
    killed_while_saving(tmp_path, 20)
