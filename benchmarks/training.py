"""Rows about training: time to a loss, steps, memory, the share of the peak, Muon."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import peers
from benchmarks.timing import (
    ROOT,
    CannotRun,
    Subject,
    alone,
    commit,
    each,
    in_turn,
    ratio,
    spread,
)

SMALL = (4, 4, 128)  # n_layer, n_head, n_embd: nanoGPT's documented run on a CPU
MINI = (2, 2, 32)  # for trying the benchmarks themselves


def kinds(asked) -> list[str]:
    "The precisions of this machine: fp32, and bf16 where `auto` takes it."
    return ["fp32"] + ["bf16"] * (asked.auto == "bf16")


def missing(found: dict, names: dict[str, str]) -> dict[str, str]:  # bound → why not
    "Say of each bound whose subject did not run why."
    return {key: found[s]["cannot"] for key, s in names.items() if "cannot" in found.get(s, {})}


# time to a loss

# of gpt2edu_train. Seed 1, fp32: 450 steps ended at 1.864, 420 at 1.877 (in bf16 at 1.887);
# with 450 steps in bf16 one seed of three ended at 1.8814
RECIPE = {
    "n_layer": 4,
    "n_head": 4,
    "n_embd": 128,
    "block_size": 64,
    "micro_batch": 12,
    "total_batch": 768,
    "optimizer": "muon",
    "lr": 0.01,
    "min_lr": 0.0005,
    "muon_lr": 0.015,
    "warmup_steps": 20,
    "weight_decay": 0.05,
    "max_steps": 480,
}
DOCUMENTED = """--device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64
--batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000
--dropout=0.0""".split()
GOAL = 1.88  # nats/character on the validation text: what nanoGPT's README reports of that run


def shakespeare_text(folder: Path, nanogpt: str | None) -> str:
    "Find tiny Shakespeare in a checkout of nanoGPT, or download it once."
    from gpt2edu.text.corpus import SHAKESPEARE, SHAKESPEARE_SHA256, download

    there = Path(nanogpt or folder) / "data" / "shakespeare_char" / "input.txt"
    if not there.exists():
        try:
            there = download(SHAKESPEARE, SHAKESPEARE_SHA256, Path("data"))
        except ValueError as e:
            raise CannotRun(str(e)) from None
    return there.read_text(encoding="utf-8")


def write_characters(text: str, folder: Path):
    "Write shards of single bytes, split as nanoGPT splits: nine tenths, one tenth."
    from gpt2edu.data.shards import write_shards
    from gpt2edu.text.tokenizer import Tokenizer

    cut = len(text) * 9 // 10
    tokenizer = Tokenizer("characters", [])
    write_shards([text[cut:], text[:cut]], tokenizer, folder, "chars", val_tokens=len(text) - cut)
    tokenizer.save(folder)


def timed(command: list, cwd: Path) -> float:  # seconds
    "Run a command to its end; RuntimeError with its last line where it fails."
    began = time.perf_counter()
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, env=env)
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
    (cwd / "said.txt").write_text(done.stdout, encoding="utf-8")
    return time.perf_counter() - began


def our_run(folder: Path, shards: Path, recipe: dict, dtype: str, seed: int) -> tuple[float, float]:
    "Train as a user would; seconds of the whole process, and the validation loss at its end."
    n = recipe["max_steps"]
    flags = recipe | {"eval_every": n, "sample_every": n, "save_every": n, "choice_items": 0}
    flags |= {"shards": shards, "tokenizer": shards / "tokenizer.json", "dtype": dtype}
    flags |= {"seed": seed, "name": f"{dtype}-{seed}", "out_dir": folder}
    typed = [text for name, value in flags.items() for text in (f"--{name}", value)]
    seconds = timed([sys.executable, "-m", "gpt2edu.cli", "train", *typed], folder)
    log = (folder / flags["name"] / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return seconds, json.loads(log[-1])["val_loss"]


def their_run(folder: Path) -> tuple[float, float]:
    "Run nanoGPT's documented command; seconds of the whole process, and the loss it reports last."
    command = [sys.executable, "train.py", "config/train_shakespeare_char.py", *DOCUMENTED]
    seconds = timed(command, folder)
    said = (folder / "said.txt").read_text(encoding="utf-8").splitlines()
    return seconds, float(next(s for s in reversed(said) if "val loss" in s).split()[-1])


def copy_nanogpt(path: str | None, folder: Path, text: str) -> Path | None:
    "Copy a checkout of nanoGPT, and let it prepare its own data there."
    if not path or not (Path(path) / "train.py").exists():
        return None
    copy = folder / "nanogpt"
    shutil.copytree(path, copy, ignore=shutil.ignore_patterns(".git", "assets", "out*"))
    data = copy / "data" / "shakespeare_char"
    (data / "input.txt").write_text(text, encoding="utf-8")
    timed([sys.executable, "prepare.py"], data)
    return copy


def shakespeare(asked) -> dict:
    "Time both to the goal: ours at a horizon that reaches it, theirs as its README runs it."
    recipe = RECIPE | ({"max_steps": 3} if asked.tiny else {})
    kind, figures, ratios = asked.auto, {}, {}
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        text = shakespeare_text(folder, asked.nanogpt)
        write_characters(text, folder / "shards")
        theirs_at = None if asked.tiny else copy_nanogpt(asked.nanogpt, folder, text)
        ours, theirs = {k: [] for k in dict.fromkeys([kind, "fp32"])}, []
        for seed in range(1, 2 if asked.tiny else 4):
            for dtype, runs in ours.items():
                runs.append(our_run(folder, folder / "shards", recipe, dtype, seed))
            if theirs_at:
                theirs.append(their_run(theirs_at))
    for dtype, runs in ours.items():
        figures |= {f"ours {dtype}, s": spread([s for s, _ in runs])}
        figures |= {f"ours {dtype}, nats/character": spread([x for _, x in runs])}
        ratios[f"loss {dtype}"] = spread([max(x for _, x in runs)])
        if theirs:
            ratios[f"nanoGPT {dtype}"] = ratio([s for s, _ in runs], [s for s, _ in theirs])
    if theirs:
        figures |= {"nanoGPT, s": spread([s for s, _ in theirs])}
        figures |= {"nanoGPT, nats/character": spread([x for _, x in theirs])}
        settings = {"nanoGPT": commit(Path(asked.nanogpt)) or "no git history"}
    else:
        settings = {}
    return {"figures": figures, "ratios": ratios, "settings": settings | recipe}


# steps


def turns_of_steps(asked, sizes, B: int, T: int, who: list[tuple[str, str]], vocab_size: int):
    "Let models take whole training steps in turn; (who, dtype) → what `in_turn` found."
    subjects = {
        f"{name} {dtype}": Subject(
            "peers:training_step",
            who=name,
            sizes=sizes,
            B=B,
            T=T,
            dtype=dtype,
            vocab_size=vocab_size,
            nanogpt=asked.nanogpt,
        )
        for name, dtype in who
    }
    few = sizes != peers.GPT2
    return in_turn(subjects, 3 if asked.tiny else 15 if few else 7, n=20 if few else 1)


def small_step(asked) -> dict:
    "Whole steps of the small model, ours and nanoGPT's."
    dtypes = kinds(asked)
    pairs = [(name, dtype) for dtype in dtypes for name in ("ours", "nanoGPT")]
    found = turns_of_steps(asked, MINI if asked.tiny else SMALL, 12, 64, pairs, 65)
    there = {k: f["seconds"] for k, f in found.items() if "seconds" in f}
    figures = {f"{k}, ms": each(s, lambda t: 1000 * t) for k, s in there.items()}
    ratios = {
        f"nanoGPT {d}": ratio(there[f"ours {d}"], there[f"nanoGPT {d}"])
        for d in dtypes
        if f"nanoGPT {d}" in there
    }
    return {
        "figures": figures,
        "ratios": ratios,
        "missing": missing(found, {f"nanoGPT {d}": f"nanoGPT {d}" for d in dtypes}),
        "settings": {"B": 12, "T": 64, "sizes": SMALL, "steps in a turn": 20},
    }


def large_sizes(asked, B: int) -> tuple:  # sizes, B, T, V
    return (MINI, B, 32, 512) if asked.tiny else (peers.GPT2, B, 512, peers.V)


def step_124m(asked) -> dict:
    "Whole steps of GPT-2 124M, one window of 512 tokens."
    sizes, B, T, V = large_sizes(asked, 1)
    who = [("ours", "fp32"), ("nanoGPT", "fp32"), ("transformers", "fp32")]
    if asked.auto == "bf16":
        who += [("ours", "bf16"), ("nanoGPT", "bf16"), ("transformers", "bf16")]
    found = turns_of_steps(asked, sizes, B, T, who, V)
    there = {k: f["seconds"] for k, f in found.items() if "seconds" in f}
    against = {f"{name} {d}": (f"ours {d}", f"{name} {d}") for name, d in who if name != "ours"}
    against["nanoGPT README"] = ("ours bf16", "nanoGPT fp32")  # tokens/s: their time over ours
    ratios = {
        key: ratio(there[b], there[a])
        for key, (a, b) in against.items()
        if a in there and b in there
    }
    return {
        "figures": {f"{k}, tokens/s": each(s, lambda t: B * T / t) for k, s in there.items()},
        "ratios": ratios,
        "missing": missing(found, {key: b for key, (_, b) in against.items()}),
        "settings": {"B": B, "T": T, "V": V, "sizes": sizes},
    }


def memory_124m(asked) -> dict:
    "Peak memory of processes that take two steps of GPT-2 124M, four windows of 512 tokens."
    sizes, B, T, V = large_sizes(asked, 4)
    figures, ratios, lacking = {}, {}, {}
    for dtype in kinds(asked):
        peaks = {}
        for who in ("ours", "nanoGPT", "transformers"):
            arguments = {"sizes": sizes, "B": B, "T": T, "dtype": dtype, "vocab_size": V}
            name = "peers:training_step"
            subject = {who: Subject(name, who=who, nanogpt=asked.nanogpt, **arguments)}
            found = in_turn(subject, 1, n=2, warm=0)[who]  # one at a time: they need gigabytes
            if "cannot" in found:
                lacking[f"{who} {dtype}"] = found["cannot"]
                continue
            peaks[who] = found["peak"]
            figures[f"{who} {dtype}, GB"] = spread([found["peak"] / 1e9])
            if who != "ours":
                ratios[f"{who} {dtype}"] = spread([peaks["ours"] / peaks[who]])
    settings = {"B": B, "T": T, "V": V, "sizes": sizes, "what": "VmHWM of the whole process"}
    return {"figures": figures, "ratios": ratios, "missing": lacking, "settings": settings}


def peak_fraction(asked) -> dict:
    "The useful operations of a step over the measured peak, both measured in turn."
    from gpt2edu.train.config import count_params, flops_per_token

    sizes, B, T, V = large_sizes(asked, 4)
    L, _, C = sizes
    flops = B * T * flops_per_token(count_params(L, C, T, V), L, C, T)
    arguments = {"who": "ours", "sizes": sizes, "B": B, "T": T, "vocab_size": V}
    figures, ratios = {}, {}
    for dtype in kinds(asked):
        subjects = {
            "step": Subject("peers:training_step", dtype=dtype, **arguments),
            "peak": Subject("timing:make_limits", auto=asked.auto, tiny=asked.tiny),
        }
        turns, shares, peaks = (2 if asked.tiny else 5), [], []
        for s in subjects.values():
            s.answer()
        for i in range(turns + 1):
            peak = subjects["peak"].turn()["value"][dtype]
            seconds = subjects["step"].turn()["seconds"][0]
            if i:
                peaks.append(peak)
                shares.append(flops / seconds / peak)
        for s in subjects.values():
            s.close()
        figures[f"peak {dtype}, GFLOP/s"] = each(peaks, lambda p: p / 1e9)
        ratios[dtype] = spread(shares)
    settings = {"B": B, "T": T, "V": V, "sizes": sizes, "flops": "6N + 12·L·T·C a token"}
    return {"figures": figures, "ratios": ratios, "settings": settings}


# Muon, and what else a step costs


def preset_step(optimizer: str, dtype: str, keep: bool = True, small: bool = False):
    "Make a subject: whole steps of the preset `tiny`."
    import torch

    from gpt2edu.machine import device
    from gpt2edu.model.gpt import GPT, GPTConfig
    from gpt2edu.train.config import preset
    from gpt2edu.train.optim import block_matrices, build_optimizers

    if keep:
        device.keep_freed_memory()
    c, V = preset("tiny", **({"micro_batch": 2, "total_batch": 256} if small else {})), 896
    model = GPT(GPTConfig(c.n_layer, c.n_head, c.n_embd, c.block_size, V))
    products = None if dtype == "bf16" else torch.float32
    kind = "adamw" if optimizer == "adamw" else "muon"
    optimizers = build_optimizers(model, kind, dtype=products)
    if optimizer == "torch":
        optimizers[0] = torch.optim.Muon(block_matrices(model), adjust_lr_fn="match_rms_adamw")
    sizes = (c.micro_batch, c.block_size, 846)  # the ids of the stories' tokenizer
    step = peers.whole_step(lambda x, y: model(x, y)[1], model, optimizers, *sizes, dtype)
    return lambda: step().item()


def ways_of_a_step(asked, ways: dict[str, dict], base: str) -> dict:
    "Compare whole steps of `tiny` that differ in one thing, in each precision."
    figures, ratios = {}, {}
    for dtype in kinds(asked):
        subjects = {
            name: Subject("training:preset_step", dtype=dtype, small=asked.tiny, **way)
            for name, way in ways.items()
        }
        found = in_turn(subjects, 3 if asked.tiny else 12, n=10)
        for name, f in found.items():
            figures[f"{name} {dtype}, ms"] = each(f["seconds"], lambda t: 1000 * t)
            if name != base:
                ratios[f"{name} {dtype}"] = ratio(f["seconds"], found[base]["seconds"])
    return {"figures": figures, "ratios": ratios, "settings": {"preset": "tiny"}}


def muon(asked) -> dict:
    "A whole step with Muon beside one with AdamW, and beside torch.optim.Muon."
    kinds_of = {k: {"optimizer": k} for k in ("adamw", "muon", "torch")}
    return ways_of_a_step(asked, kinds_of, "adamw")


def freed_memory(asked) -> dict:
    "A whole step where freed memory is kept, beside one where it is given back."
    ways = {"given back": False, "kept": True}
    return ways_of_a_step(
        asked, {k: {"optimizer": "muon", "keep": v} for k, v in ways.items()}, "given back"
    )


def chunked_step(chunked: bool, B: int, T: int, sizes, vocab_size: int):
    "Make a subject: one step with all logits at once, or with a chunk of them at a time."
    import torch

    from gpt2edu.model.gpt import GPT, LOGITS_AT_ONCE, GPTConfig, cross_entropy

    torch.manual_seed(0)
    model = GPT(GPTConfig(*sizes, T, vocab_size))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(vocab_size, (B, T + 1))
    at_once = min(LOGITS_AT_ONCE, B * T * vocab_size // 2) if chunked else sys.maxsize

    def step() -> float:
        x = model.embed(ids[:, :-1])
        for block in model.transformer.h:
            x = block(x)
        x = model.transformer.ln_f(x).flatten(0, 1)
        loss = cross_entropy(x, model.lm_head.weight, ids[:, 1:].flatten(), at_once)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def chunked_loss(asked) -> dict:
    "Peak memory of one whole step with plain and with chunked cross-entropy."
    T, V, sizes = (32, 512, MINI) if asked.tiny else (1024, peers.V, peers.GPT2)
    arguments = {"B": 4, "T": T, "sizes": sizes, "vocab_size": V}
    plain, chunked = (alone("training:chunked_step", chunked=c, **arguments) for c in (False, True))
    assert abs(plain["value"] - chunked["value"]) < 1e-5 * plain["value"]
    figures = {"plain, GiB": plain, "chunked, GiB": chunked}
    return {
        "figures": {k: spread([f["peak"] / 2**30]) for k, f in figures.items()},
        "ratios": {"plain": spread([chunked["peak"] / plain["peak"]])},
        "settings": arguments,
    }


def attention_layer(dtype: str, B: int, nh: int, T: int, hs: int):
    "Make a subject: attention forward and backward, in fp32 or bf16, on bf16 inputs."
    import torch
    from torch.nn import functional as F

    g = torch.Generator().manual_seed(0)
    qkv = torch.randn(B, T, 3 * nh * hs, generator=g).bfloat16().requires_grad_()
    kind = peers.torch_dtype(dtype)

    def work():
        parts = qkv.split(nh * hs, dim=2)
        q, k, v = (p.view(B, T, nh, hs).transpose(1, 2).to(kind) for p in parts)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True).bfloat16()
        out.transpose(1, 2).reshape(B, T, nh * hs).sum().backward()

    return work


def attention(asked) -> dict:
    "Where a CPU's fused attention is quicker in fp32 than in bf16."
    figures, ratios = {}, {}
    for T in (32,) if asked.tiny else (64, 128, 256, 512):
        shape = {"B": max(1, 2048 // T), "nh": 3, "T": T, "hs": 64}
        who = {d: Subject("training:attention_layer", dtype=d, **shape) for d in peers.DTYPES}
        found = in_turn(who, 3 if asked.tiny else 10, n=5)
        for d, f in found.items():
            figures[f"T {T} {d}, ms"] = each(f["seconds"], lambda t: 1000 * t)
        ratios[f"T {T}"] = ratio(found["bf16"]["seconds"], found["fp32"]["seconds"])
    return {"figures": figures, "ratios": ratios, "settings": {"B x T": 2048, "nh": 3, "hs": 64}}


def counted_run(steps: int):
    "Make a subject: a short training, whose own share of a step is counted."
    import torch

    from gpt2edu.train.config import preset
    from gpt2edu.train.trainer import Trainer

    spent, times = [0.0], []  # seconds of the three parts so far; of each step, before it

    def counted(function):
        def call(*args, **kw):
            began = time.perf_counter()
            try:
                return function(*args, **kw)
            finally:
                spent[0] += time.perf_counter() - began

        return call

    def run() -> list[float]:  # of each step, the share that is not model and optimizers
        with tempfile.TemporaryDirectory() as work:
            rare = {k: 10_000 for k in ("sample_every", "save_every", "eval_every")}
            flags = rare | {"dataset": ("pydocs",), "data_dir": f"{work}/data"}
            flags |= {"max_steps": steps + 3, "val_tokens": 4096, "choice_items": 0}
            trainer = Trainer(preset("small-cpu", **flags), Path(work) / "run")
            trainer.forward = counted(trainer.forward)
            torch.Tensor.backward = counted(torch.Tensor.backward)
            for optimizer in trainer.optimizers:
                optimizer.step = counted(optimizer.step)
            step = trainer.train_step

            def train_step(stop=None):
                times.append((time.perf_counter(), spent[0]))
                return step(stop)

            trainer.train_step = train_step
            trainer.run()
        kept = times[2:]  # the first steps warm up
        pairs = itertools.pairwise(kept)
        return [1 - (b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs]

    return run


def overhead(asked) -> dict:
    "The trainer's own share of a step: all but forward, backward and the optimisers."
    shares = alone("training:counted_run", steps=3 if asked.tiny else 30)["value"]
    return {"figures": {"own share": spread(shares)}, "ratios": {}, "settings": {}}
