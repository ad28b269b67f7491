"""The first hour on a GPU as one command; without a GPU, its rehearsal on the CPU.

Each part is a process of its own with its own time: one that fails, hangs or runs out of memory is
recorded and does not end the rest. A part notes each figure as soon as it has it, and the file of
results is written after every part.
"""

import json
import multiprocessing
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import peers
from benchmarks.timing import ROOT, CannotRun, commit, made, packages, peak_memory
from gpt2edu.machine.atomic import write_atomically


@dataclass(frozen=True)
class Hour:
    "What a part is told: the sizes of the real thing, or of a rehearsal."

    work: str  # a folder for data and runs; goes at the end
    notes: str  # the file of this part's figures
    nanogpt: str | None = None
    rehearsal: bool = False
    device: str = "cuda"
    dtype: str = "bf16"  # what `auto` takes there
    sizes: tuple[int, int, int] = peers.GPT2
    T: int = 1024
    V: int = peers.V
    batches: tuple[int, ...] = (16, 32, 64)  # B
    steps: int = 100  # of the losses
    timed: int = 10  # steps that are timed
    backend: str = "inductor"  # of torch.compile

    def note(self, **figures):
        "Add figures to the file; what a part has noted stays if it ends early."
        path = Path(self.notes)
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        write_atomically(path, json.dumps(kept | figures).encode())  # it may be killed here


SMALL = {"sizes": (2, 2, 32), "T": 64, "V": 512, "batches": (2,), "steps": 20, "timed": 2}
SMALL |= {"device": "cpu", "dtype": "fp32", "backend": "aot_eager", "rehearsal": True}


def look(queue, device: str):
    "Describe the device, in a process that ends: CUDA must not begin in the one that forks."
    import torch

    from gpt2edu.machine import device as ours

    there = device == "cuda" and torch.cuda.is_available()
    dtype = ours.pick_dtype("auto", "cuda").value if there else torch.float32
    short = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "fp32")
    queue.put((there, ours.describe("cuda" if there else "cpu"), short))


# helpers of the parts


def wait(device: str):
    "Wait until the device has done what it was told."
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(hour: Hour, step: Callable) -> float:  # of one step, the median of three groups
    "Time steps after three that warm up."
    for _ in range(3):
        step()
    wait(hour.device)
    found = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(hour.timed):
            step()
        wait(hour.device)
        found.append((time.perf_counter() - began) / hour.timed)
    return statistics.median(found)


def our_model(hour: Hour, sizes, T: int, chunked: bool, compiled: bool):
    "Build a GPT, and what gives its loss with all logits at once or a chunk of them at a time."
    import torch

    from gpt2edu.model.gpt import GPT, LOGITS_AT_ONCE, LOGITS_ON_CUDA, GPTConfig, cross_entropy

    torch._dynamo.reset()
    model = GPT(GPTConfig(*sizes, T, hour.V), torch.Generator().manual_seed(0)).to(hour.device)
    most = LOGITS_ON_CUDA if hour.device == "cuda" else LOGITS_AT_ONCE
    at_once = min(most, T * hour.V // 2) if chunked else sys.maxsize

    def loss_of(x, y):
        h = model.embed(x)
        for block in model.transformer.h:
            h = block(h)
        h = model.transformer.ln_f(h).flatten(0, 1)
        return cross_entropy(h, model.lm_head.weight, y.flatten(), at_once)

    if compiled:
        loss_of = torch.compile(loss_of, backend=hour.backend, dynamic=False)
    return model, loss_of


def peaks(hour: Hour) -> dict[str, float]:  # FLOP/s: measured, and of the data sheet if it is known
    "Find what the device can do at most in this run's precision."
    import torch

    from gpt2edu.plan.report import GPUS
    from gpt2edu.train.config import measure_peak

    seconds = 0.02 if hour.rehearsal else 1.0
    found = {"measured": measure_peak(hour.device, peers.torch_dtype(hour.dtype), seconds)}
    if hour.device == "cuda":
        name = torch.cuda.get_device_name().lower().replace(" ", "")
        sheet = next((g for key, g in GPUS.items() if key in name), None)
        if sheet:
            found["data sheet"] = sheet.half if hour.dtype != "fp32" else sheet.single
    return found


def measure_step(hour: Hour, sizes, B: int, chunked: bool, compiled: bool, peak: dict) -> dict:
    "Measure tokens/s, MFU and memory of one kind of step; says so where memory is not enough."
    import torch

    from gpt2edu.train.config import count_params, flops_per_token, mfu
    from gpt2edu.train.optim import build_optimizers

    if hour.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        model, loss_of = our_model(hour, sizes, hour.T, chunked, compiled)
        step = peers.whole_step(
            loss_of, model, build_optimizers(model), B, hour.T, hour.V, hour.dtype, hour.device
        )
        seconds = seconds_of(hour, step)
    except torch.OutOfMemoryError as e:
        return {"out of memory": str(e).splitlines()[0]}
    rate = B * hour.T / seconds
    L, _, C = sizes
    flops = flops_per_token(count_params(L, C, hour.T, hour.V), L, C, hour.T)
    taken = torch.cuda.max_memory_allocated() if hour.device == "cuda" else peak_memory()
    found = {"tokens/s": rate, "GB": taken / 1e9}
    return found | {f"MFU of the {k} peak": mfu(rate, flops, p) for k, p in peak.items()}


# the parts


def self_test(hour: Hour):
    "Compare a small step with the CPU's in each precision; measure the limits."
    from gpt2edu.machine import device
    from gpt2edu.train import selftest
    from gpt2edu.train.config import measure_peak

    hour.note(
        hardware=device.describe(hour.device), precision=str(device.pick_dtype("auto", hour.device))
    )
    for dtype in ("fp32", "bf16", "fp16"):
        found = selftest.self_test(hour.device, peers.torch_dtype(dtype))
        hour.note(**{dtype: found or "agrees with the CPU"})
        seconds = 0.02 if hour.rehearsal else 1.0
        rate = measure_peak(hour.device, peers.torch_dtype(dtype), seconds)
        hour.note(**{f"{dtype} products, TFLOP/s": rate / 1e12})
    hour.note(**{"memory is read at, GB/s": bandwidth(hour) / 1e9})


def bandwidth(hour: Hour) -> float:  # bytes/s
    "Measure how fast the device reads its memory: a sum over a gigabyte."
    import torch

    x = torch.ones((1 << 20) if hour.rehearsal else (1 << 28), device=hour.device)
    best = 0.0
    for _ in range(5):
        wait(hour.device)
        began = time.perf_counter()
        x.sum()
        wait(hour.device)
        best = max(best, x.nbytes / (time.perf_counter() - began))
    return best


def speed(hour: Hour):
    "Tokens/s and MFU of 124M: eager and compiled, plain and chunked loss, over batch sizes."
    from gpt2edu.machine import device

    device.set_precision(hour.device)
    peak = peaks(hour)
    hour.note(**{f"{k} peak, TFLOP/s": p / 1e12 for k, p in peak.items()})
    for compiled in (False, True):
        for B in hour.batches:
            for chunked in (True, False):
                name = f"{'compiled' if compiled else 'eager'}, "
                name += f"{'chunked' if chunked else 'plain'} loss, B {B}"
                hour.note(**{name: measure_step(hour, hour.sizes, B, chunked, compiled, peak)})


def memory(hour: Hour):
    "Memory of two steps beside the plan's estimate."
    import torch

    from benchmarks.plan import take_steps
    from gpt2edu.plan import memory as planned
    from gpt2edu.train.config import preset

    L, nh, C = hour.sizes
    width = 4 if hour.dtype == "fp32" else 2  # bytes of a number
    flags = {"n_layer": L, "n_head": nh, "n_embd": C, "block_size": hour.T}
    for B in hour.batches:
        config = preset("gpt2-124m", **flags, micro_batch=B, total_batch=B * hour.T)
        on_cpu = hour.device == "cpu"
        want = planned.memory(config, hour.V, width, cpu=on_cpu)
        before = peak_memory()
        if not on_cpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        take_steps(config, hour.V, peers.torch_dtype(hour.dtype), 2, hour.device)
        found = {"plan, GB": want["peak"] / 1e9, "fullest in": want["when"]}
        if on_cpu:
            got = peak_memory() - before
        else:
            got = torch.cuda.max_memory_allocated()
            found["reserved, GB"] = torch.cuda.max_memory_reserved() / 1e9
        found |= {"measured, GB": got / 1e9}
        if got:
            found["plan over measured"] = want["peak"] / got
        hour.note(**{f"B {B}": found})


def write_stories(hour: Hour) -> Path:
    "Write stories into a file, so that no network is needed."
    from gpt2edu.text.corpus import stories
    from gpt2edu.text.tokenizer import EOT

    path = Path(hour.work) / "stories.txt"
    if not path.exists():
        texts = (s.text for s in stories(400 if hour.rehearsal else 20_000))
        path.write_text(f"\n{EOT}\n".join(texts), encoding="utf-8")
    return path


def flags_of_run(hour: Hour, **more) -> dict:
    "Flags of a training on stories, of the hour's sizes."
    L, nh, C = hour.sizes
    B = hour.batches[0]
    flags = {"dataset": (str(write_stories(hour)),), "tokenizer": "train", "hellaswag": None}
    flags |= {"data_dir": f"{hour.work}/data", "out_dir": f"{hour.work}/runs"}
    flags |= {"n_layer": L, "n_head": nh, "n_embd": C, "block_size": hour.T, "vocab_size": 512}
    flags |= {"micro_batch": B, "total_batch": B * hour.T, "device": hour.device}
    flags |= {"val_tokens": 8 * hour.T, "choice_items": 0, "warmup_steps": 10}
    return flags | more


def losses(hour: Hour):
    "The loss over the same steps in bf16, fp16 and fp32: they must fall alike."
    from gpt2edu.train.config import preset
    from gpt2edu.train.trainer import Trainer

    far = 10_000
    for dtype in ("bf16", "fp16", "fp32"):
        rare = {"eval_every": far, "sample_every": far, "save_every": far}
        flags = flags_of_run(hour, dtype=dtype, max_steps=hour.steps, compile="off", **rare)
        folder = Path(hour.work) / f"losses-{dtype}"
        done = Trainer(preset("gpt2-124m", **flags), folder).run()
        lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
        events = [e for e in map(json.loads, lines) if e["event"] == "train"]
        found = {"losses": [e["loss"] for e in events], "validation": done["val_loss"]}
        found["norms"] = [e["norm"] for e in events]
        hour.note(**{dtype: found | {"tokens/s": events[-1]["tokens_per_s"]}})


def profile(hour: Hour):
    "Where the time of a step goes: the ten costliest kernels."
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    from gpt2edu.train.optim import build_optimizers

    B, on_gpu = hour.batches[0], hour.device == "cuda"
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    for compiled in (False, True):
        model, loss_of = our_model(hour, hour.sizes, hour.T, True, compiled)
        step = peers.whole_step(
            loss_of, model, build_optimizers(model), B, hour.T, hour.V, hour.dtype, hour.device
        )
        for _ in range(3):
            step()
        wait(hour.device)
        with profiler(activities=kinds) as seen:
            for _ in range(3):
                step()
            wait(hour.device)
        rows = sorted(seen.key_averages(), key=lambda e: -getattr(e, key))
        total = sum(getattr(e, key) for e in rows) or 1
        top = {e.key[:60]: round(getattr(e, key) / total, 4) for e in rows[:10]}
        ms = {"milliseconds of a step": total / 3 / 1000}
        hour.note(**{"compiled" if compiled else "eager": ms | {"share of each": top}})


def train_process(hour: Hour, name: str, resume: bool, **more) -> subprocess.Popen:
    "Start gpt2edu_train."
    n = 300 if hour.rehearsal else 120
    rare = {"max_steps": n, "eval_every": n, "sample_every": n, "save_every": n // 10}
    flags = flags_of_run(hour, dtype=hour.dtype, name=name, seed=1, **rare) | more
    typed = ["--preset", "gpt2-124m"]
    for k, v in flags.items():
        typed += [f"--{k}", *map(str, v if isinstance(v, tuple) else (v,))]
    if resume:
        typed = ["--resume", str(Path(hour.work) / "runs" / name)]
    command = [sys.executable, "-m", "gpt2edu.cli", "train", *typed]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=hour.work, env=env, **pipes)


def finished(process: subprocess.Popen) -> str:
    "Wait for a training; RuntimeError with its last line where it fails."
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError((said.strip().splitlines() or ["no message"])[-1])
    return said


def resume(hour: Hour):
    "Kill a real training after its first checkpoint, resume it, compare it with one left alone."
    began = time.perf_counter()
    finished(train_process(hour, "whole", resume=False))
    hour.note(**{"whole run, s": time.perf_counter() - began})
    killed = train_process(hour, "killed", resume=False)
    saved = Path(hour.work) / "runs" / "killed" / "checkpoints"
    while killed.poll() is None and not list(saved.glob("step_*/state.json")):
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    hour.note(killed=killed.wait() == -signal.SIGKILL)
    said = finished(train_process(hour, "killed", resume=True))
    at = re.search(r"^resume: .*, step (\d+)$", said, re.M)
    hour.note(**{"resumed at step": int(at[1])})
    ends = {}
    for name in ("whole", "killed"):
        log = Path(hour.work) / "runs" / name / "log.jsonl"
        ends[name] = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["val_loss"]
    difference = abs(ends["whole"] - ends["killed"])
    hour.note(**{"validation loss": ends, "difference, nats": difference})


def decoding(hour: Hour):
    "Tokens/s of greedy decoding, one text and many, beside the bandwidth's bound."
    import torch

    from gpt2edu.model.generate import generate
    from gpt2edu.model.gpt import GPT, GPTConfig, num_params

    model = GPT(GPTConfig(*hour.sizes, hour.T, hour.V)).to(hour.device).eval()
    ids = torch.randint(hour.V, (32,), generator=torch.Generator().manual_seed(0)).tolist()
    new = 16 if hour.rehearsal else 256
    hour.note(**{"bound of one text, tokens/s": bandwidth(hour) / (4 * num_params(model))})
    for texts in (1, 4 if hour.rehearsal else 64):
        best = 0.0
        for _ in range(3):
            began = time.perf_counter()
            for _ in generate(model, ids, new, num_seq=texts, temperature=0):
                pass
            best = max(best, texts * new / (time.perf_counter() - began))
        hour.note(**{f"fp32, {texts} at once, tokens/s": best})


def larger(hour: Hour):
    "A step of 350M, compiled, chunked loss."
    sizes = (3, 2, 32) if hour.rehearsal else (24, 16, 1024)
    peak = peaks(hour)
    B = hour.batches[0]
    for compiled in (False, True):
        name = f"{'compiled' if compiled else 'eager'}, B {B}"
        hour.note(**{name: measure_step(hour, sizes, B, True, compiled, peak)})


def beside_nanogpt(hour: Hour):
    "nanoGPT's step and ours in turn: compiled, autocast, its fused AdamW."
    import torch

    B, T = hour.batches[0], hour.T
    steps = {}
    for who in ("ours", "nanoGPT"):
        arguments = (who, hour.sizes, T, hour.V, hour.nanogpt, hour.device)
        model, loss_of = peers.build(*arguments)
        loss_of = torch.compile(loss_of, backend=hour.backend, dynamic=False)
        optimizers = peers.optimizers_of(who, model, 1e-4, hour.device)
        steps[who] = peers.whole_step(
            loss_of, model, optimizers, B, T, hour.V, hour.dtype, hour.device
        )
    found = {who: [] for who in steps}
    for i in range(4):
        for who, step in steps.items():
            seconds = seconds_of(hour, step)
            if i:
                found[who].append(B * T / seconds)
    rates = {who: statistics.median(v) for who, v in found.items()}
    hour.note(**{"commit of nanoGPT": commit(Path(hour.nanogpt)) or "no git history"})
    hour.note(**{f"{who}, tokens/s": rate for who, rate in rates.items()})
    hour.note(**{"ours over nanoGPT": rates["ours"] / rates["nanoGPT"]})


PARTS = {  # minutes of 25
    self_test: 1.5,
    speed: 7.0,
    memory: 1.5,
    losses: 3.5,
    profile: 2.0,
    resume: 4.0,
    decoding: 1.0,
    larger: 2.0,
    beside_nanogpt: 2.0,
}


# the hour


def play(name: str, hour: Hour, errors: str):
    "Be the process of a part: a group of its own, so that its children end with it."
    if hasattr(os, "setsid"):
        os.setsid()
    with open(errors, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 2)
        os.dup2(file.fileno(), 1)
    part = next(p for p in PARTS if p.__name__ == name)
    if part is beside_nanogpt:
        try:
            peers.nanogpt(hour.nanogpt)
        except CannotRun as why:
            return hour.note(skipped=str(why))
    part(hour)


def stop(process):
    "End a part that is over its time, and what it has started."
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):  # it has not made its group yet, or has just ended
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def take_part(context, part: Callable, hour: Hour, seconds: float) -> dict:
    "Run one part; its figures, its time, and what went wrong."
    began = time.perf_counter()
    errors = f"{hour.notes}.log"
    process = context.Process(target=play, args=(part.__name__, hour, errors))
    process.start()
    process.join(seconds)
    over = process.is_alive()
    if over:
        stop(process)
    notes = Path(hour.notes)
    found = {"seconds": time.perf_counter() - began, "budget": seconds}
    found["figures"] = json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else {}
    if why := found["figures"].pop("skipped", None):
        found["skipped"] = why
    elif over:
        found["error"] = f"over its time of {seconds:.0f} s"
    elif process.exitcode:
        said = Path(errors).read_text(encoding="utf-8").strip().splitlines()
        found["error"] = said[-1] if said else f"exit code {process.exitcode}"
    return found


def start_method():
    "Take the way of starting processes in which PyTorch is loaded once, where there is one."
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "benchmarks.gpu", "gpt2edu.train.trainer"])
    return context


def first_hour(
    minutes: float, nanogpt: str | None, path: Path | None, rehearse: bool
) -> int:  # exit code
    "Run every part and store what it finds."
    context = start_method()
    queue = context.Queue()
    process = context.Process(target=look, args=(queue, "cpu" if rehearse else "cuda"))
    process.start()
    there, hardware, dtype = queue.get()
    process.join()
    sizes = {"dtype": dtype} if there else SMALL
    slug = re.sub(r"[^a-z0-9]+", "-", hardware.split(",")[0].lower()).strip("-")
    default = ROOT / "benchmarks" / "results" / f"gpu-{slug}.json"
    if not there:
        default = Path("gpu-rehearsal.json")  # never among the results
        why = "asked for" if rehearse else "PyTorch finds no CUDA device here"
        print(f"rehearsal ({why}): every line runs on the CPU with small sizes; no figure counts")
    path = (path or default).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": {"hardware": hardware, "versions": packages()}, "made": made()}
    found |= {"rehearsal": not there, "minutes": minutes, "parts": {}}
    share = 60 * minutes / sum(PARTS.values())
    nanogpt = str(Path(nanogpt).resolve()) if nanogpt else None
    with tempfile.TemporaryDirectory() as work:
        for part, units in PARTS.items():
            name = part.__name__
            hour = Hour(work, f"{work}/{name}.json", nanogpt, **sizes)
            result = take_part(context, part, hour, units * share)
            found |= {
                "sizes": {k: v for k, v in asdict(hour).items() if k not in ("work", "notes")}
            }
            found["parts"][name] = result
            write_atomically(
                path, (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode()
            )
            end = result.get("error") or result.get("skipped") or "done"
            print(f"{name}: {end}, {result['seconds']:.0f} s", flush=True)
    print(f"results: {path}")
    return int(any("error" in r for r in found["parts"].values()))
