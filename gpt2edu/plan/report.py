"""Memory, time, money and disk of a run, predicted before it starts: gpt2edu_plan."""

# Made by tools/book.py from ../../book/tough/ch15b_planner.md: edit that, then `make book`.

# %% auto #0
__all__ = ['GPUS', 'ELSEWHERE', 'FINEWEB_TOKENS', 'LIBRARIES', 'ONE_THREAD', 'BANDWIDTH', 'STARTED',
           'Gpu', 'data_sheet_peak', 'PlanConfig', 'first_documents', 'extrapolate', 'look_at_data',
           'Machine', 'from_data_sheet', 'core_peak', 'rough', 'measured', 'cuda_is_here',
           'look_at_machine', 'Work', 'count_work', 'Room', 'find_room', 'Cost', 'sample_seconds',
           'as_training', 'find_cost', 'row', 'rows_of_work', 'rows_of_room', 'rows_of_cost',
           'rows_of_disk', 'in_numbers', 'plan']

# %% ../../nbs/tough/ch15b_planner.ipynb #29d3c745
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from gpt2edu.choices import check_choice
from gpt2edu.data.config import N_STORIES, TOKENIZER_CHARS
from gpt2edu.machine.limits import machine_memory
from gpt2edu.machine.progress import duration, gigabytes
from gpt2edu.model.variants import changed, multiplied, parameters
from gpt2edu.plan.memory import USABLE, largest_micro_batch, memory, row_tokens, time_parts
from gpt2edu.text.corpus import EMBEDDED, documents, find_files
from gpt2edu.train.config import (
    SAMPLE_TOKENS,
    TrainConfig,
    batch_advice,
    flops_again,
    horizon,
    measure_peak,
    mfu,
    padded,
    token_flops,
)

# %% ../../nbs/tough/ch15b_planner.ipynb #dfefefc8
@dataclass(frozen=True)
class Gpu:
    "What the data sheet of a GPU says."

    name: str
    half: float  # FLOP/s of dense products in bf16, or fp16
    single: float  # FLOP/s of fp32 products: in TF32, where there is such a thing
    memory: float  # bytes
    reached: float  # share of the peak that a run of GPT-2 in PyTorch is taken to reach
    called: str  # how PyTorch names it, a regular expression
    bf16: bool = True  # multiplies bf16 in hardware


GPUS = {
    "h100": Gpu("H100 SXM", 989.4e12, 494.7e12, 80e9, 0.3, r"H100 80GB HBM3"),
    "a100": Gpu("A100 80 GB", 312e12, 156e12, 80e9, 0.5, r"A100"),
    "rtx4090": Gpu("RTX 4090", 165.2e12, 82.6e12, 24e9, 0.5, r"RTX 4090$"),
    "t4": Gpu("T4", 65.1e12, 8.1e12, 16e9, 0.4, r"Tesla T4", bf16=False),
}
ELSEWHERE = 0.4  # share of the peak on other hardware


def data_sheet_peak(
    name: str,  # of a GPU, as PyTorch says it: NVIDIA H100 80GB HBM3
    dtype: str,  # fp32, bf16 or fp16
) -> float | None:  # FLOP/s; None for a card that is not in the table
    "Find the peak of a GPU by its name."
    gpu = next((gpu for gpu in GPUS.values() if re.search(gpu.called, name)), None)
    return gpu and (gpu.single if dtype == "fp32" else gpu.half)


@dataclass(frozen=True)
class PlanConfig(TrainConfig):
    "Every choice of a run, and where it is to run; each field is a flag of `gpt2edu_plan`."

    # this: this machine; auto: the same, but a100 for a GPT-2 where no GPU is
    gpu: Literal["auto", "this", *GPUS] = "auto"
    gpus: int = 1  # how many of them, one rank each
    # time the parts of a step on this machine, and train the tokenizer: some ten seconds, and a
    # better figure
    measure: bool = False
    # share of the peak that is taken to be reached where nothing is measured; by default the card's
    assume_mfu: float | None = None
    price: float = 2.0  # dollars for an hour of one GPU: an example, take your provider's
    memory: float = 0.0  # GB (1e9 bytes) of one device; 0: what the data sheet or this machine says
    # tokens in the training shards, if they are not here to be counted
    train_tokens: int | None = None

    def __post_init__(self):
        super().__post_init__()
        check_choice("gpu", self.gpu, Literal["auto", "this", *GPUS])
        if self.assume_mfu is not None and not 0 < self.assume_mfu <= 1:
            raise ValueError(f"assume_mfu={self.assume_mfu} must be above 0 and at most 1; try 0.4")
        if self.gpu == "t4" and self.dtype == "bf16":
            raise ValueError("gpu=t4 does not multiply bf16 in hardware; use --dtype fp16")
        if self.total_batch % (step := self.micro_batch * self.block_size * self.gpus):
            raise ValueError(
                f"total_batch={self.total_batch} tokens is not a whole number of micro-batches of "
                f"micro_batch={self.micro_batch} x block_size={self.block_size} "
                f"on gpus={self.gpus}, {step} tokens; {batch_advice(self, self.gpus)}"
            )

# %% ../../nbs/tough/ch15b_planner.ipynb #75f65659
FINEWEB_TOKENS = 10_000_000_000  # sample-10BT, by its name


def first_documents(
    config: PlanConfig,
    estimates: bool,  # whether something will be estimated from them
) -> list[str]:  # a million characters, or all there are; [] if they are not needed
    "Read the first documents of a dataset, or look whether it is there at all; without a download."
    if config.shards or config.dataset[0] in ("fineweb-edu", "tinyshakespeare"):
        return []
    if config.dataset[0] not in EMBEDDED:
        from gpt2edu.data.cache import hub_name  # NumPy is loaded only where it is needed

        if hub_name(config.dataset):
            return []
    found = []
    characters = 0
    for text in documents(config.dataset, config.text_key, N_STORIES, separator=config.separator):
        if not estimates:
            break  # it is there
        found.append(text)
        characters += len(text)
        if characters >= TOKENIZER_CHARS:
            break
    return found


def extrapolate(
    config: PlanConfig,
    sample: list[str],  # the first documents
    tokenizer,
) -> int:  # training tokens
    "Estimate the tokens of a dataset from its first documents and its size. ValueError if empty."
    read = whole = sum(len(text.encode()) for text in sample)  # bytes
    if not read:
        raise ValueError(f"{', '.join(config.dataset)}: holds no text")
    if sum(map(len, sample)) >= TOKENIZER_CHARS:  # there may be more
        if config.dataset[0] == "stories":
            whole = read / len(sample) * N_STORIES
        else:
            whole = sum(path.stat().st_size for path in find_files(config.dataset))
    tokens = sum(len(ids) + 1 for ids in tokenizer.encode_batch(sample)) * whole / read
    return int(tokens - min(config.val_tokens, whole / 40))  # the rest validates


def look_at_data(
    config: PlanConfig,
) -> tuple[int, int | None, str]:  # ids; training tokens, None if not known; how they are known
    "Find the sizes of vocabulary and training data, without a download. ValueError, OSError."
    from gpt2edu.text.chat import chat_ids
    from gpt2edu.text.tokenizer import GPT2_VOCAB, Tokenizer, get_tokenizer

    c = config
    # whether how long the run is depends on the text
    by_text = c.num_epochs and not (c.train_tokens or c.questions)
    sample = []
    if c.tokenizer == "train" or by_text:
        sample = first_documents(c, bool(c.measure or by_text))
    tokenizer = None  # where its ids are known without it, and nothing is encoded
    if c.tokenizer != "train" and (c.tokenizer != "gpt2" or sample):
        tokenizer = get_tokenizer(c.tokenizer)
    elif sample:
        tokenizer = Tokenizer.train(sample, c.vocab_size, c.dataset[0])
    known = GPT2_VOCAB if c.tokenizer == "gpt2" else c.vocab_size
    n_vocab = tokenizer.n_vocab if tokenizer else known
    n_vocab += chat_ids(tokenizer) if c.questions else 0

    if c.train_tokens:
        return n_vocab, c.train_tokens, "--train_tokens"
    if c.questions:
        return n_vocab, None, ""
    if c.shards:
        from gpt2edu.data.shards import open_shards

        return n_vocab, len(open_shards(c.shards, "train", verify=False)), f"counted in {c.shards}"
    if c.dataset[0] == "fineweb-edu":
        return n_vocab, FINEWEB_TOKENS, "10BT, by its name"
    if not sample:
        return n_vocab, None, ""
    return n_vocab, extrapolate(c, sample, tokenizer), "estimated from the size of the text"

# %% ../../nbs/tough/ch15b_planner.ipynb #e3478b77
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
    halves = "bf16" if gpu.bf16 and c.dtype != "fp16" else "fp16"
    dtype = "fp32" if c.dtype == "fp32" else halves
    peak = gpu.single if dtype == "fp32" else gpu.half
    return Machine(
        name=gpu.name,
        kind="cuda",
        dtype=dtype,
        memory=gpu.memory,
        peak=peak,
        peak_from="data sheet, dense",
        tokens_per_s=(c.assume_mfu or gpu.reached) * peak / flops,
        speed_from="data sheet",
    )

# %% ../../nbs/tough/ch15b_planner.ipynb #b40fbe0e
LIBRARIES = ("OMP", "OPENBLAS", "MKL")  # that multiply for NumPy; Apple's has another name
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in LIBRARIES} | {"VECLIB_MAXIMUM_THREADS": "1"}


def core_peak(
    n: int = 384,  # side of the matrices
) -> float:  # FLOP/s of fp32 products on one core
    "Measure one core without PyTorch."
    setup = f"import numpy; a = numpy.ones(({n}, {n}), 'float32')"
    timeit = [sys.executable, *"-m timeit -n 10 -r 7 -u sec -s".split(), setup, "a @ a"]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONINSPECT"} | ONE_THREAD
    # from a folder of Python's own: a numpy.py of the user's is not NumPy
    done = subprocess.run(timeit, env=env, cwd=sys.prefix, capture_output=True, encoding="utf-8")
    if not (found := re.search(r"([\d.e+-]+) sec per loop\s*$", done.stdout)):
        why = (done.stderr.strip() or "no answer").splitlines()[-1][:200]
        raise ValueError(f"NumPy could not be timed ({why}); mend NumPy, or name a --gpu")
    return 2 * n**3 / float(found[1])


def rough(c: PlanConfig, flops: int) -> Machine:
    "Guess at this machine's processor from NumPy's speed in fp32."
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    cores = int(asked) if asked.isdecimal() else mine
    peak = cores * core_peak()
    return Machine(
        name=f"this processor ({platform.machine()}), {cores} cores",
        kind="cpu",
        dtype="fp32" if c.dtype == "auto" else c.dtype,
        memory=machine_memory(),
        peak=peak,
        peak_from=f"NumPy in fp32, one core timed, times {cores}",
        tokens_per_s=(c.assume_mfu or ELSEWHERE) * peak / flops,
        speed_from="rough",
    )


def measured(c: PlanConfig, V: int) -> Machine:
    "Time the parts of a step on this machine, with PyTorch."
    import torch

    from gpt2edu.machine.device import describe, pick_device, pick_dtype, set_precision

    here = pick_device(c.device).value
    set_precision(here)
    dtype = pick_dtype(c.dtype, here).value
    of_gpu = here.type == "cuda" and torch.cuda.get_device_properties(here).total_memory
    name = describe(here).split(",")[0]
    words = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    known = data_sheet_peak(name, words)
    return Machine(
        name=name,
        kind=here.type,
        dtype=words,
        memory=of_gpu or machine_memory(),
        peak_from="data sheet, dense" if known else f"measured: {describe(here)}",
        tokens_per_s=c.total_batch / sum(time_parts(c, V, here, dtype).values()),
        peak=known or measure_peak(here, dtype),
        speed_from="measured",
    )

# %% ../../nbs/tough/ch15b_planner.ipynb #870f8355
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
    large = c.preset.startswith("gpt2-") or c.gpus > 1
    if gpu == "auto" and large and c.device != "cpu" and not cuda_is_here(c.device):
        gpu = "a100"
    if gpu in GPUS:
        return from_data_sheet(GPUS[gpu], c, flops)
    if c.measure or c.device == "mps" or cuda_is_here(c.device):
        return measured(c, V)
    return rough(c, flops)

# %% ../../nbs/tough/ch15b_planner.ipynb #b099c4d2
@dataclass(frozen=True)
class Work:
    "What a run has to do."

    config: PlanConfig
    n_vocab: int  # ids of the tokenizer
    vocab_size: int  # V, rows of the token table
    parameters: int  # N
    flops: int  # of training, for a token
    again: int  # FLOPs that `recompute` adds to them
    steps: int
    tokens: int  # that all steps read
    train_tokens: int | None  # that the training data holds; None if not known
    known_from: str  # how they are known


def count_work(config: PlanConfig) -> Work:
    "Count what a run has to do. ValueError, OSError: one line."
    c = config
    n_vocab, train_tokens, known_from = look_at_data(c)
    if train_tokens is None and c.num_epochs:
        raise ValueError(
            f"num_epochs={c.num_epochs:g} of unknown length; "
            "give --train_tokens, --max_tokens or --max_steps"
        )
    V = padded(n_vocab)
    N = parameters(c, V)
    steps = horizon(c, train_tokens or 0)
    return Work(
        config=c,
        n_vocab=n_vocab,
        vocab_size=V,
        parameters=N,
        flops=token_flops(c, V),
        again=flops_again(c, V),
        steps=steps,
        tokens=steps * c.total_batch,
        train_tokens=train_tokens,
        known_from=known_from,
    )


@dataclass(frozen=True)
class Room:
    "What a step takes of a device, and what the device has."

    parts: dict  # bytes, from `memory`
    capacity: float | None  # bytes of the device; None where it cannot be told
    fits: bool | None  # None where it cannot be told
    largest: int | None  # micro-batch that fits, windows; 0 if not even one does
    remedy: str = "take a smaller T or model"  # where not even one does


def find_room(work: Work, machine: Machine) -> Room:
    "Compare the memory of a step with that of the device."
    c = work.config
    cpu = machine.kind == "cpu"
    width = 4 if machine.dtype == "fp32" else 2
    parts = memory(c, work.vocab_size, width, c.gpus, cpu=cpu)
    capacity = c.memory * 1e9 or machine.memory
    if not capacity:
        return Room(parts, capacity, None, None)
    budget = USABLE[machine.kind] * capacity
    rest = (work.vocab_size, width, budget, c.gpus, cpu)
    room = Room(parts, capacity, parts["peak"] <= budget, largest_micro_batch(c, *rest))
    if room.largest == 0 and (fits := largest_micro_batch(replace(c, recompute=True), *rest)):
        return replace(room, remedy=f"--recompute --micro_batch {fits} does")
    return room


BANDWIDTH = {"cpu": 10e9, "mps": 100e9, "cuda": 1e12}  # bytes of memory read in a second
STARTED = 5e-4  # seconds to start the kernels of one block from Python


@dataclass(frozen=True)
class Cost:
    "How long a run takes, and what that costs."

    seconds: float
    judging: float  # share of them that validates
    sampling: float  # share of them in which all ranks wait for a sample
    gpu_hours: float
    dollars: float | None  # None for a machine that is not rented


def sample_seconds(work: Work, machine: Machine) -> float:
    "Estimate the time of one sample: each token reads all weights, and starts some kernels."
    read = 4 * work.parameters / BANDWIDTH[machine.kind]
    return SAMPLE_TOKENS * max(read, work.config.n_layer * STARTED)


def as_training(work: Work) -> tuple[float, float]:  # of the steps; of one validation
    "Turn the work into tokens of training; one that is only read is a third of that."
    c = work.config
    third = work.flops / (work.flops + work.again) / 3  # of a training token
    steps, judged = work.tokens, c.val_tokens / (1 - c.val_overlap) * third
    if c.questions:  # each is answered, and the true answer's loss is computed
        judged = 2 * c.choice_items * c.block_size * third
    if c.reward:  # answers are written, the start reads them, and then they are learned from
        steps *= row_tokens(c) / c.block_size * (2 / 3 + c.updates)
    return steps, judged


def find_cost(work: Work, machine: Machine) -> Cost:
    "Divide the work by the rate."
    c = work.config
    trained, judged = as_training(work)
    judged *= work.steps // c.eval_every
    rate = machine.tokens_per_s * c.gpus
    sampled = (work.steps - 1) // c.sample_every * sample_seconds(work, machine)
    seconds = (trained + judged) / rate + sampled
    hours = seconds / 3600 * c.gpus
    dollars = hours * c.price if machine.kind == "cuda" else None
    return Cost(seconds, judged / rate / seconds, sampled / seconds, hours, dollars)

# %% ../../nbs/tough/ch15b_planner.ipynb #fcdf18f9
def row(name: str, value: str, note: str = "") -> str:
    "Write one line of a plan."
    return f"{name:18}{value:>20}  {note}".rstrip()


def rows_of_work(work: Work, machine: Machine) -> list[str]:
    "Say what the run is, and how long."
    w = work
    c = work.config
    chosen = " (no GPU is here: --gpu this plans for this machine)"
    chosen *= c.gpu == "auto" and machine.speed_from == "data sheet"
    trained = c.measure or w.known_from.startswith("estimated")  # as the run will train it
    exact = "at most" if c.tokenizer == "train" and not trained else "exact"
    sizes = f"{c.n_layer} blocks, C {c.n_embd}, T {c.block_size:,}, V {w.vocab_size:,}"
    N = multiplied(c, w.vocab_size)  # the parameters, but for a table that is only looked up
    flops = f"6 x {N:,} + 12 x {c.n_layer} x {c.block_size:,} x {c.n_embd}"
    pieces = c.total_batch // (c.micro_batch * c.block_size * c.gpus)
    step = f"{pieces} x {c.micro_batch} x {c.block_size:,} x {c.gpus}"
    known = f"; {w.train_tokens:,} to train on, {w.known_from}" if w.train_tokens else ""
    rule = "Chinchilla's rule of thumb is 20"
    table = f"for {w.n_vocab:,} ids; the tied table once" if c.tied else "and a head of its own"
    choices = ", ".join(f"{name}={value}" for name, value in changed(c).items())
    block = [row("block", "", choices)] if choices else []
    held = f"{c.gpus} ranks share every tensor" if c.gpus > 1 else "no effect with one rank"
    split = [row("  --shard", "", held)] if c.shard else []
    more = f"{1 + w.again / w.flops:.2f} x as many, for blocks computed twice; at most 4/3"
    again = [row("  --recompute", f"+ {w.again:,}", more)] if w.again else []
    asked, rows = c.total_batch // c.block_size, "micro-batches, windows, T, ranks"
    length = [
        row("step", f"{c.total_batch:,} tokens", f"= {step}: {rows}"),
        row("horizon", f"{w.steps:,} steps", f"{w.tokens:,} tokens{known}"),
        row("tokens/parameter", f"{w.tokens / w.parameters:.1f}", rule),
    ]
    if c.reward:
        step = f"{pieces} x {c.micro_batch} x {c.gpus}: micro-batches, questions, ranks"
        answers = f"{c.group} answers to each, of {c.answer_tokens} tokens at most"
        horizon = f"{w.steps * asked:,} questions, {w.steps * asked * c.group:,} answers"
        length = [
            row("step", f"{asked:,} questions", f"= {step}; {answers}"),
            row("horizon", f"{w.steps:,} steps", horizon),
        ]
    return [
        row("plan", c.preset, f"on {c.gpus} x {machine.name}, {machine.dtype}{chosen}"),
        row("parameters", f"{w.parameters:,}", f"{exact}: {sizes} {table}"),
        *block,
        row("FLOPs per token", f"{w.flops:,}", f"= {flops}"),
        *again,
        length[0],
        *split,
        *length[1:],
    ]


def rows_of_room(room: Room, machine: Machine) -> list[str]:
    "Say what a step holds, and whether the device has room for it."
    m = room.parts
    rows = ["memory of one rank"]
    for part in ("weights", "gradients", "optimizer"):
        rows.append(row(f"  {part}", f"{m[part]:,} bytes", f"exact, {gigabytes(m[part])}"))
    kept = "estimate, kept for the backward pass"
    rows.append(row("  activations", gigabytes(m["activations"]), kept))
    rows.append(row("  loss", gigabytes(m["loss"]), "estimate, at its fullest"))
    rows.append(row("  peak", gigabytes(m["peak"]), f"estimate, in {m['when']}"))
    if not room.capacity:
        return rows
    rest = "CUDA, its libraries and caches"
    if machine.kind == "cpu":
        rest = "libraries, and the holes that glibc keeps"
    fits = "fits" if room.fits else "does NOT fit"
    verdict = f"the peak {fits} in {USABLE[machine.kind]:.0%} of it; the rest is for {rest}"
    rows.append(row("  device", gigabytes(room.capacity), verdict))
    if room.largest:
        return [*rows, row("  largest", f"--micro_batch {room.largest}", "the largest that fits")]
    return [*rows, row("  largest", "none", f"not one window fits: {room.remedy}")]


def rows_of_cost(work: Work, machine: Machine, cost: Cost) -> list[str]:
    "Say how fast the machine is, how long the run takes and what it costs."
    c = work.config
    rough = machine.speed_from == "rough"
    peak_from = machine.peak_from if rough else f"{machine.dtype}, {machine.peak_from}"
    timed = machine.speed_from == "measured"
    by = "predicted from timed parts of a step" if timed else "assumed: --assume_mfu"
    by += ", of this peak"
    by += " for all operations, but MFU counts none twice" if work.again else ""
    share = mfu(machine.tokens_per_s, work.flops, machine.peak)
    alone = "exchange between ranks not counted" if c.gpus > 1 else ""
    note = f"{cost.judging:.1%} of it for validation, {cost.sampling:.1%} for samples; "
    note += "other scores not counted"
    if rough:
        note = "rough: half or double is possible; --measure times a step here"
    rows = [
        "time and cost: an estimate",
        row("  peak", f"{machine.peak / 1e12:,.3f} TFLOP/s", peak_from),
        row("  MFU", f"{share:.1%}", by),
        row("  tokens/s", f"{machine.tokens_per_s * c.gpus:,.0f}", alone),
        row("  time", duration(cost.seconds), note),
    ]
    if cost.dollars is not None:
        hours = f"{cost.gpu_hours:,.1f} GPU-hours at ${c.price:g}: --price"
        rows.append(row("  cost", f"${cost.dollars:,.2f}", hours))
    return rows


def rows_of_disk(work: Work, room: Room) -> list[str]:
    "Say what the run writes."
    rows = ["disk"]
    if work.train_tokens:
        rows.append(row("  shards", gigabytes(2 * work.train_tokens), "two bytes a token"))
    saved = room.parts["saved"]  # weights, and what the optimizer remembers
    n = work.config.keep_last + 1
    note = f"= {n} x {gigabytes(saved)}: --keep_last, and the one being written"
    return [*rows, row("  checkpoints", gigabytes(n * saved), note)]

# %% ../../nbs/tough/ch15b_planner.ipynb #0bccb4e6
def in_numbers(work: Work, machine: Machine, room: Room, cost: Cost) -> dict:
    "List the numbers of a plan; documented in book/commands.qmd."
    c = work.config
    m = room.parts
    parts = ("weights", "gradients", "optimizer", "activations", "loss", "peak")
    checkpoints = (c.keep_last + 1) * m["saved"]
    return {
        "preset": c.preset,
        "machine": machine.name,
        "device": machine.kind,
        "dtype": machine.dtype,
        "ranks": c.gpus,
        "parameters": work.parameters,
        "tokenizer_ids": work.n_vocab,
        "vocabulary_rows": work.vocab_size,
        "flops_per_token": work.flops,
        "recomputed_flops_per_token": work.again,
        "tokens_per_step": c.total_batch,
        "steps": work.steps,
        "tokens": work.tokens,
        "train_tokens": work.train_tokens,
        "peak_moment": m["when"],
        **{f"{part}_bytes": m[part] for part in parts},
        "device_bytes": room.capacity,
        "fits": room.fits,
        "largest_micro_batch": room.largest,
        "peak_flops_per_second": machine.peak,
        "mfu": mfu(machine.tokens_per_s, work.flops, machine.peak),
        "speed_from": machine.speed_from,
        "tokens_per_second": machine.tokens_per_s * c.gpus,
        "seconds": cost.seconds,
        "cost_dollars": cost.dollars,
        "shards_bytes": 2 * work.train_tokens if work.train_tokens else None,
        "checkpoints_bytes": checkpoints,
    }


def plan(
    config: PlanConfig,
    say: Callable,  # called with each line of the plan
) -> dict:  # the numbers behind the lines
    "Say what a run would need and cost. ValueError, OSError: one line."
    work = count_work(config)
    machine = look_at_machine(config, work.vocab_size, work.flops + work.again)
    room = find_room(work, machine)
    cost = find_cost(work, machine)
    rows = rows_of_work(work, machine) + rows_of_room(room, machine)
    rows += rows_of_cost(work, machine, cost) + rows_of_disk(work, room)
    for line in rows:
        say(line)
    return in_numbers(work, machine, room, cost)
