"""Memory, time, money and disk of a run, predicted before it starts: gpt2edu_plan."""

# Made by tools/book.py from ../../book/tough/ch14b_planner.md: edit that, then `make book`.

# %% auto #0
__all__ = ['GPUS', 'N_STORIES', 'TOKENIZER_CHARS', 'FINEWEB_TOKENS', 'ONE_THREAD', 'Gpu',
           'PlanConfig', 'look_at_data', 'Machine', 'from_data_sheet', 'core_peak', 'rough',
           'measured', 'cuda_is_here', 'look_at_machine', 'duration', 'size', 'plan']

# %% ../../nbs/tough/ch14b_planner.ipynb #29d3c745
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gpt2edu.plan.memory import USABLE, largest_micro_batch, machine_memory, memory, time_parts
from gpt2edu.choices import check_choice
from gpt2edu.text.corpus import documents, find_files
from gpt2edu.train.config import (
    TrainConfig,
    count_params,
    flops_per_token,
    horizon,
    measure_peak,
    mfu,
    padded,
)

# %% ../../nbs/tough/ch14b_planner.ipynb #dfefefc8
@dataclass(frozen=True)
class Gpu:
    "What the data sheet of a GPU says."

    name: str
    half: float  # FLOP/s of dense products in bf16, or fp16
    single: (
        float  # FLOP/s of fp32 products as PyTorch runs them here: TF32 where there is such a thing
    )
    memory: float  # bytes
    bf16: bool = True  # multiplies bf16 in hardware


GPUS = {
    "h100": Gpu("H100 SXM", 989.4e12, 494.7e12, 80e9),
    "a100": Gpu("A100 80 GB", 312e12, 156e12, 80e9),
    "rtx4090": Gpu("RTX 4090", 165.2e12, 82.6e12, 24e9),
    "t4": Gpu("T4", 65.1e12, 8.1e12, 16e9, bf16=False),
}


@dataclass(frozen=True)
class PlanConfig(TrainConfig):
    "Every choice of a training run, and where it is to run;"

    "each field is a flag of `gpt2edu_plan`."

    gpu: Literal["auto", "this", *GPUS] = (
        "auto"  # this: this machine; auto: the same, but a100 for a GPT-2 where no GPU is
    )
    gpus: int = 1  # how many of them, one rank each
    measure: bool = False  # time the parts of a step on this machine, and train the tokenizer: some ten seconds, and a better figure
    assume_mfu: float = (
        0.4  # share of the peak that is taken to be reached where nothing is measured
    )
    price: float = 2.0  # dollars for an hour of one GPU: an example, take your provider's
    memory: float = 0.0  # GB (1e9 bytes) of one device; 0: what the data sheet or this machine says
    train_tokens: int | None = (
        None  # tokens in the training shards, if they are not here to be counted
    )

    def __post_init__(self):
        super().__post_init__()
        check_choice("gpu", self.gpu, Literal["auto", "this", *GPUS])
        if not 0 < self.assume_mfu <= 1:
            raise ValueError(f"assume_mfu={self.assume_mfu} must be above 0 and at most 1; try 0.4")
        if self.gpu == "t4" and self.dtype == "bf16":
            raise ValueError("gpu=t4 does not multiply bf16 in hardware; use --dtype fp16")
        if self.total_batch % (step := self.micro_batch * self.block_size * self.gpus):
            fix = max(self.micro_batches(), default=0)
            fix = (
                f"try --micro_batch {fix}"
                if fix
                else f"try --total_batch {max(1, self.total_batch // step) * step}"
            )
            raise ValueError(
                f"total_batch={self.total_batch} tokens is not a whole number of micro-batches of "
                f"micro_batch={self.micro_batch} x "
                f"block_size={self.block_size} on gpus={self.gpus}, {step} tokens; {fix}"
            )

    def micro_batches(self) -> list[int]:
        "List the micro-batches that divide the batch, up to the one that was asked for."
        most = min(self.micro_batch, self.total_batch // self.block_size)
        return [
            b
            for b in range(1, most + 1)
            if self.total_batch % (b * self.block_size * self.gpus) == 0
        ]

# %% ../../nbs/tough/ch14b_planner.ipynb #75f65659
N_STORIES, TOKENIZER_CHARS = 24_000, 1_000_000  # of gpt2edu.data.cache
FINEWEB_TOKENS = 10_000_000_000  # sample-10BT, by its name


def look_at_data(
    config: PlanConfig,
) -> tuple[
    int, int | None, str
]:  # ids of the tokenizer; training tokens, None if not known; how they are known
    """Find the size of the vocabulary and of the training data, without a download.

    ValueError, OSError: one line.
    """
    from gpt2edu.text.tokenizer import GPT2_VOCAB, Tokenizer, get_tokenizer

    c, name, sample, size = config, config.dataset[0], [], 0
    epochs = c.num_epochs and not c.train_tokens  # their length is that of the text
    enough = (
        TOKENIZER_CHARS if c.measure or epochs else 1
    )  # else the first document is only looked at: is it there?
    if (
        (c.tokenizer == "train" or epochs)
        and not c.shards
        and name not in ("fineweb-edu", "tinyshakespeare")
    ):
        for text in documents(c.dataset, c.text_key, N_STORIES):
            sample.append(text)
            if (size := size + len(text)) >= enough:
                break
        sample *= enough > 1
    tokenizer, n_vocab = None, GPT2_VOCAB if c.tokenizer == "gpt2" else c.vocab_size
    if c.tokenizer != "train" and (c.tokenizer != "gpt2" or sample):
        tokenizer = get_tokenizer(c.tokenizer)
    elif sample:
        tokenizer = Tokenizer.train(sample, c.vocab_size, name)
    n_vocab = tokenizer.n_vocab if tokenizer else n_vocab
    if c.train_tokens:
        return n_vocab, c.train_tokens, "--train_tokens"
    if c.shards:
        from gpt2edu.data.shards import open_shards  # NumPy is loaded only where it is needed

        return n_vocab, len(open_shards(c.shards, "train", verify=False)), f"counted in {c.shards}"
    if name == "fineweb-edu":
        return n_vocab, FINEWEB_TOKENS, "10BT, by its name"
    if not sample:
        return n_vocab, None, ""
    read = whole = sum(len(t.encode()) for t in sample)
    if not read:
        raise ValueError(f"{', '.join(c.dataset)}: holds no text")
    if size >= TOKENIZER_CHARS:
        whole = (
            read / len(sample) * N_STORIES
            if name == "stories"
            else sum(p.stat().st_size for p in find_files(c.dataset))
        )
    tokens = sum(len(ids) + 1 for ids in tokenizer.encode_batch(sample)) * whole / read
    return (
        n_vocab,
        int(tokens - min(c.val_tokens, whole / 40)),
        "estimated from the size of the text",
    )  # the rest validates

# %% ../../nbs/tough/ch14b_planner.ipynb #e3478b77
@dataclass(frozen=True)
class Machine:
    "What a plan knows of the hardware of one rank."

    name: str
    kind: str  # cpu, cuda or mps
    dtype: str  # fp32, bf16 or fp16
    memory: float | None  # bytes; None where it cannot be told
    peak: float  # FLOP/s of matrix products
    peak_from: str  # where the peak comes from
    tokens_per_s: float
    speed_from: str  # data sheet, rough or measured


def from_data_sheet(gpu: Gpu, c: PlanConfig, flops: int) -> Machine:
    "Take a GPU at its data sheet, and a share of it as reached. `flops` are those of a token."
    dtype = "fp32" if c.dtype == "fp32" else "bf16" if gpu.bf16 and c.dtype != "fp16" else "fp16"
    peak = gpu.single if dtype == "fp32" else gpu.half
    return Machine(
        gpu.name,
        "cuda",
        dtype,
        gpu.memory,
        peak,
        "data sheet, dense",
        c.assume_mfu * peak / flops,
        "data sheet",
    )


ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


def core_peak(
    n: int = 384,  # side of the matrices: a product takes a millisecond, so other programs seldom cut into the best one
) -> float:  # FLOP/s of fp32 products on one core
    "Measure one core without PyTorch: NumPy in a Python of its own, since threads are set when"
    "NumPy is loaded."
    setup = f"import numpy; a = numpy.ones(({n}, {n}), 'float32')"
    timeit = [
        sys.executable,
        "-m",
        "timeit",
        "-n",
        "10",
        "-r",
        "7",
        "-u",
        "sec",
        "-s",
        setup,
        "a @ a",
    ]
    said = subprocess.run(
        timeit, env=os.environ | ONE_THREAD, capture_output=True, encoding="utf-8", check=True
    ).stdout
    return 2 * n**3 / float(re.search(r"([\d.e+-]+) sec per loop", said)[1])


def rough(c: PlanConfig, flops: int) -> Machine:
    "Guess at this machine's processor from NumPy's speed in fp32."
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    cores = int(asked) if asked.isdecimal() else mine
    peak, dtype = cores * core_peak(), "fp32" if c.dtype == "auto" else c.dtype
    name, peak_from = (
        f"this processor ({platform.machine()}), {cores} cores",
        f"NumPy in fp32, one core timed, times {cores}",
    )
    return Machine(
        name, "cpu", dtype, machine_memory(), peak, peak_from, c.assume_mfu * peak / flops, "rough"
    )


def measured(c: PlanConfig, V: int) -> Machine:
    "Time the parts of a step on this machine, with PyTorch."
    import torch

    from gpt2edu.machine.device import describe, pick_device, pick_dtype, set_precision

    here = pick_device(c.device).value
    set_precision(here)
    dtype = pick_dtype(c.dtype, here).value
    memory = (
        torch.cuda.get_device_properties(here).total_memory
        if here.type == "cuda"
        else machine_memory()
    )
    rate = c.total_batch / sum(time_parts(c, V, here, dtype).values())
    peak, short = (
        measure_peak(here, dtype),
        {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype],
    )
    return Machine(
        describe(here).split(",")[0],
        here.type,
        short,
        memory,
        peak,
        f"measured: {describe(here)}",
        rate,
        "measured",
    )


def cuda_is_here(
    device: str,  # auto, cpu, cuda or mps: what was asked for
) -> bool:
    """Whether the run would take a CUDA GPU.

    PyTorch is asked only where a driver's tool is on the path.
    """
    if device != "auto" or not any(map(shutil.which, ("nvidia-smi", "rocm-smi"))):
        return device == "cuda"
    from gpt2edu.machine.device import pick_device

    return pick_device(device).value.type == "cuda"


def look_at_machine(c: PlanConfig, V: int, flops: int) -> Machine:
    "Choose among the three. ValueError, one line, for a device that is not here."
    gpu = c.gpu
    if gpu == "auto" and c.preset.startswith("gpt2-") and not cuda_is_here(c.device):
        gpu = "a100"
    if gpu in GPUS:
        return from_data_sheet(GPUS[gpu], c, flops)
    return (
        measured(c, V)
        if c.measure or c.device == "mps" or cuda_is_here(c.device)
        else rough(c, flops)
    )

# %% ../../nbs/tough/ch14b_planner.ipynb #fcdf18f9
def duration(seconds: float) -> str:
    "Write a time in the unit that suits it."
    for unit, size in (("years", 31_557_600), ("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} seconds"


def size(n_bytes: float) -> str:
    "Write a number of bytes in GB, or in MB where it is small."
    return f"{n_bytes / 1e9:,.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"


def plan(
    config: PlanConfig,
    say: Callable,  # told the plan, line by line
) -> (
    dict
):  # the numbers behind the lines, with their units in their names; documented in book/commands.qmd
    "Say what a run would need and cost. ValueError, OSError: one line."

    def row(name, value, note=""):
        say(f"{name:18}{value:>20}  {note}".rstrip())

    c = config
    n_vocab, train_tokens, how = look_at_data(c)
    if train_tokens is None and c.num_epochs:
        raise ValueError(
            f"num_epochs={c.num_epochs:g} of unknown length; "
            "give --train_tokens, --max_tokens or --max_steps"
        )
    V = padded(n_vocab)
    N = count_params(c.n_layer, c.n_embd, c.block_size, V)
    flops, steps = (
        flops_per_token(N, c.n_layer, c.n_embd, c.block_size),
        horizon(c, train_tokens or 0),
    )
    tokens, step = steps * c.total_batch, c.micro_batch * c.block_size * c.gpus
    machine = look_at_machine(c, V, flops)
    width, capacity = 4 if machine.dtype == "fp32" else 2, c.memory * 1e9 or machine.memory
    m = memory(c, V, width, c.gpus, cpu=machine.kind == "cpu")

    chosen = " (no GPU is here: --gpu this plans for this machine)" * (
        c.gpu == "auto" and machine.speed_from == "data sheet"
    )
    row("plan", c.preset, f"on {c.gpus} x {machine.name}, {machine.dtype}{chosen}")
    at_most = "at most: " * (
        c.tokenizer == "train" and not (c.measure or how.startswith("estimated"))
    )
    row(
        "parameters",
        f"{N:,}",
        f"{at_most or 'exact: '}{c.n_layer} blocks, C {c.n_embd}, T {c.block_size:,}, V {V:,} for "
        f"{n_vocab:,} ids; the tied table once",
    )
    row(
        "FLOPs per token",
        f"{flops:,}",
        f"= 6 x {N:,} + 12 x {c.n_layer} x {c.block_size:,} x {c.n_embd}",
    )
    row(
        "step",
        f"{c.total_batch:,} tokens",
        f"= {c.total_batch // step} x {c.micro_batch} x {c.block_size:,} x {c.gpus}: "
        "micro-batches, windows, T, ranks",
    )
    row(
        "horizon",
        f"{steps:,} steps",
        f"{tokens:,} tokens" + (f"; {train_tokens:,} to train on, {how}" if train_tokens else ""),
    )
    row("tokens/parameter", f"{tokens / N:.1f}", "Chinchilla's rule of thumb is 20")
    say("memory of one rank")
    for part in ("weights", "gradients", "optimizer"):
        row(f"  {part}", f"{m[part]:,} bytes", f"exact, {size(m[part])}")
    row("  activations", size(m["activations"]), "estimate, kept for the backward pass")
    row("  loss", size(m["loss"]), "estimate, at its fullest")
    row("  peak", size(m["peak"]), f"estimate, in {m['when']}")
    most = fits = None
    if capacity:
        budget = USABLE[machine.kind] * capacity
        most, fits = (
            largest_micro_batch(c, V, width, budget, c.gpus, machine.kind == "cpu"),
            m["peak"] <= budget,
        )
        rest = (
            "libraries, and the holes that glibc keeps"
            if machine.kind == "cpu"
            else "CUDA, its libraries and caches"
        )
        verdict = (
            f"the peak {'fits' if fits else 'does NOT fit'} in {USABLE[machine.kind]:.0%} of it"
        )
        row("  device", size(capacity), f"{verdict}; the rest is for {rest}")
        row(
            "  largest",
            f"--micro_batch {most}" if most else "none",
            "the largest that fits" if most else "not one window fits: take a smaller T or model",
        )
    say("time and cost: an estimate")
    rate, peak = machine.tokens_per_s, machine.peak
    row(
        "  peak",
        f"{peak / 1e12:,.3f} TFLOP/s",
        f"{machine.dtype}, {machine.peak_from}"
        if machine.speed_from != "rough"
        else machine.peak_from,
    )
    by = (
        "predicted from timed parts of a step"
        if machine.speed_from == "measured"
        else "assumed: --assume_mfu"
    )
    row("  MFU", f"{mfu(rate, flops, peak):.1%}", by)
    row(
        "  tokens/s",
        f"{rate * c.gpus:,.0f}",
        "exchange between ranks not counted" if c.gpus > 1 else "",
    )
    judged = (
        steps // c.eval_every * c.val_tokens / (1 - c.val_overlap) / 3
    )  # forward only: a third of a training token
    seconds = (tokens + judged) / (rate * c.gpus)
    note = f"{judged / (tokens + judged):.1%} of it for validation; samples and other scores not counted"
    row(
        "  time",
        duration(seconds),
        "rough: half or double is possible; --measure times a step here"
        if machine.speed_from == "rough"
        else note,
    )
    hours = seconds / 3600 * c.gpus
    if machine.kind == "cuda":
        row(
            "  cost", f"${hours * c.price:,.2f}", f"{hours:,.1f} GPU-hours at ${c.price:g}: --price"
        )
    saved = m["weights"] + m["optimizer"]
    say("disk")
    if train_tokens:
        row("  shards", size(2 * train_tokens), "two bytes a token")
    row(
        "  checkpoints",
        size((c.keep_last + 1) * saved),
        f"= {c.keep_last + 1} x {size(saved)}: --keep_last, and the one being written",
    )
    out = {
        "preset": c.preset,
        "machine": machine.name,
        "device": machine.kind,
        "dtype": machine.dtype,
        "ranks": c.gpus,
        "parameters": N,
        "tokenizer_ids": n_vocab,
        "vocabulary_rows": V,
        "flops_per_token": flops,
        "tokens_per_step": c.total_batch,
        # fmt: skip
        "steps": steps,
        "tokens": tokens,
        "train_tokens": train_tokens,
        "peak_moment": m["when"],
    }
    out |= {
        f"{part}_bytes": m[part]
        for part in ("weights", "gradients", "optimizer", "activations", "loss", "peak")
    }
    return out | {
        "device_bytes": capacity, "fits": fits, "largest_micro_batch": most, "peak_flops_per_second": peak, "mfu": mfu(rate, flops, peak),
        "speed_from": machine.speed_from, "tokens_per_second": rate * c.gpus, "seconds": seconds,
        "cost_dollars": hours * c.price if machine.kind == "cuda" else None,
        "shards_bytes": 2 * train_tokens if train_tokens else None, "checkpoints_bytes": (c.keep_last + 1) * saved,
    }  # fmt: skip
