"""Everything a run needs, built one part at a time, the cheapest checks first."""

# Made by tools/book.py from ../../book/tough/ch19c_setup.md: edit that, then `make book`.

# %% auto #0
__all__ = ['MONTH', 'begun_with', 'Machine', 'choose_machine', 'Data', 'open_data', 'sizes',
           'build_model', 'choose_optimizers', 'known_peak', 'Parts', 'check_step', 'build',
           'fixed_choices', 'data_facts', 'check_data', 'describe_machine', 'describe_parts']

# %% ../../nbs/tough/ch19c_setup.ipynb #ee5078b0
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from gpt2edu.data.cache import not_writable, prepare_data
from gpt2edu.data.loader import Loader
from gpt2edu.data.shards import ShardSet, open_shards
from gpt2edu.evaluate.tasks import TASKS, Task, Wanted
from gpt2edu.machine import device
from gpt2edu.machine import distributed as dist
from gpt2edu.machine.device import Choice
from gpt2edu.machine.distributed import Ranks
from gpt2edu.machine.progress import duration
from gpt2edu.model.gpt import GPT, GPTConfig, num_params
from gpt2edu.plan.report import data_sheet_peak
from gpt2edu.text.tokenizer import Tokenizer
from gpt2edu.train import checkpoint, selftest
from gpt2edu.train.config import (
    MAY_CHANGE,
    MODEL_SIZES,
    TrainConfig,
    flops_per_token,
    horizon,
    measure_peak,
    padded,
)
from gpt2edu.train.log import check_tracker
from gpt2edu.train.optim import build_optimizers
from gpt2edu.train.ready import check_disk, check_memory, memory_of, share_step
from gpt2edu.train.runs import RunState, begun_source, holds_run

MONTH = 30 * 86_400  # seconds

# %% ../../nbs/tough/ch19c_setup.ipynb #ec8a570f
def begun_with(
    folder: Path,  # of the run
    resume: bool,
) -> dict:  # the state of its latest checkpoint; {} without one
    "Return the state to resume from; refuse a second run in a folder. ValueError, one line."
    if not resume:
        if holds_run(folder):
            raise ValueError(
                f"{folder} holds a run already; go on with it with resume=True, "
                "or choose another folder"
            )
        return {}
    return checkpoint.latest_state(folder / "checkpoints", RunState)

# %% ../../nbs/tough/ch19c_setup.ipynb #303ac517
@dataclass
class Machine:
    "Where a run computes, and how."

    device: torch.device
    precision: Choice  # of a torch.dtype, for the matrix products
    compiled: Choice  # of a bool
    scaler: torch.amp.GradScaler  # of the loss, under fp16

    @property
    def dtype(self) -> torch.dtype:
        return self.precision.value


def choose_machine(config: TrainConfig, ranks: Ranks, say: Callable) -> Machine:
    "Choose device, precision and compiler. ValueError, one line, for what cannot work."
    c = config
    agree = dist.agreement(ranks)
    where = selftest.tested_device(c.device, c.dtype, c.self_test, say, agree).value
    precision = device.pick_dtype(c.dtype, where)
    compiled = device.pick_compile(c.compile, where)
    device.set_precision(where)
    if where.type == "cpu":
        device.keep_freed_memory()
    return Machine(where, precision, compiled, device.grad_scaler(where, precision.value))

# %% ../../nbs/tough/ch19c_setup.ipynb #af9fd6a2
class Data(NamedTuple):
    "What a run reads."

    folder: Path  # of the shards
    tokenizer: Tokenizer
    train: ShardSet
    val: ShardSet
    questions: dict[Task, list[dict]]  # of each task that is asked at a validation


def open_data(
    config: TrainConfig,
    folder: Path,  # of the run
    ranks: Ranks,
    say: Callable,
    begun: str | None = None,  # at a resume: SHA-256 of the run's text, if known
) -> Data:
    "Find or prepare shards and questions. ValueError, FileNotFoundError, OSError: one line."
    wanted = Wanted(config.hellaswag, choice_items=config.choice_items)
    with dist.rank0_first(ranks):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise not_writable(folder, e, "--out_dir") from e
        tokenizer, shards = prepare_data(config, say, begun)
        known = (tokenizer.hash, ranks.is_main, tokenizer.n_vocab)
        train, val = (open_shards(shards, split, *known) for split in ("train", "val"))
        asked = [task for task in TASKS.values() if task.applies(config)]
        questions = {task: task.items(wanted) for task in asked}
    if (n := min(config.val_tokens, len(val) - 1)) < config.block_size:
        few = config.val_tokens < config.block_size
        raise ValueError(
            f"{shards}: got {n} tokens to validate on, "
            f"expected block_size={config.block_size} at least; "
            + ("raise --val_tokens" if few else "give more text, or lower --block_size")
        )
    return Data(shards, tokenizer, train, val, questions)

# %% ../../nbs/tough/ch19c_setup.ipynb #35dd2cb3
def sizes(config: TrainConfig) -> dict[str, int]:
    "The sizes of the model that do not depend on the tokenizer."
    return {k: getattr(config, k) for k in MODEL_SIZES}


def build_model(
    config: TrainConfig,
    n_vocab: int,  # ids of the tokenizer
    machine: Machine,
    ranks: Ranks,
) -> tuple[GPT, nn.Module, nn.Module]:  # plain, compiled, and what training calls
    "Draw the weights from the seed, on the CPU, so that they are the same on every device."
    shape = GPTConfig(**sizes(config), vocab_size=padded(n_vocab))
    model = GPT(shape, torch.Generator().manual_seed(config.seed)).to(machine.device)
    compiled = torch.compile(model) if machine.compiled.value else model
    return model, compiled, dist.wrap(compiled, ranks)


def choose_optimizers(config: TrainConfig, model: GPT, machine: Machine) -> list:
    "Build the optimisers; Muon multiplies in fp32 unless the run is in bf16."
    c = config
    muon_dtype = None if machine.dtype == torch.bfloat16 else torch.float32  # None: the hardware's
    betas = (c.beta1, c.beta2)
    return build_optimizers(
        model, c.optimizer, c.lr, c.weight_decay, betas, c.muon_lr, dtype=muon_dtype
    )

# %% ../../nbs/tough/ch19c_setup.ipynb #cc3c0a89
def known_peak(machine: Machine) -> float | None:  # FLOP/s of one rank
    "Find this GPU's peak on its data sheet, as the planner does; None for other hardware."
    words = "fp32" if machine.dtype == torch.float32 else "half"
    if machine.device.type != "cuda":
        return None
    return data_sheet_peak(torch.cuda.get_device_name(machine.device), words)


@dataclass
class Parts:
    "What `Trainer` stores."

    B: int  # windows in a micro-batch of one rank
    n_micro: int  # micro-batches of one rank in a step
    machine: Machine
    data: Data
    max_steps: int
    model: GPT
    compiled: nn.Module  # the same weights
    forward: nn.Module  # what training calls
    optimizers: list
    loader: Loader
    peak: float  # FLOP/s that all ranks could do in matrix products; MFU is a share of it
    peak_from: str  # data sheet or measured
    measured: float  # FLOP/s of all ranks, as measured
    flops: float  # of training, for a token


def check_step(
    config: TrainConfig,
    seconds: float,  # of a token, at the peak
):
    "Refuse a step that would not end. ValueError, one line."
    wait = config.total_batch * seconds
    if wait > MONTH:
        raise ValueError(
            f"a step of total_batch={config.total_batch} tokens takes {duration(wait)} at the "
            f"peak of this machine; lower --total_batch, for example to "
            f"{config.micro_batch * config.block_size}"
        )


def build(
    config: TrainConfig,
    folder: Path,  # of the run
    ranks: Ranks,
    say: Callable,
    resume: bool = False,
    claim: Callable = lambda: None,  # takes the lock of the folder; called on rank 0
) -> Parts:
    "Build every part of a run. ValueError, FileNotFoundError, OSError: one line."
    c = config
    GPTConfig(**sizes(c))  # wrong choices are refused on every rank, before any work
    check_tracker(c.tracker)
    B, n_micro = share_step(c, ranks.world_size)

    def begin() -> dict:
        claim()
        return begun_with(folder, resume)

    begun = dist.from_rank0(ranks, begin)
    machine = choose_machine(c, ranks, say)
    kind, width = machine.device.type, machine.dtype.itemsize
    check_memory(c, kind, width, memory_of(machine.device), B, ranks.world_size)
    dist.from_rank0(ranks, lambda: check_disk(c, folder))
    data = open_data(c, folder, ranks, say, begun_source(c, begun))
    max_steps = horizon(c, len(data.train))
    model, compiled, forward = build_model(c, data.tokenizer.n_vocab, machine, ranks)
    optimizers = choose_optimizers(c, model, machine)
    loader = Loader(data.train, B, c.block_size, c.seed, ranks.rank, ranks.world_size)
    measured = measure_peak(machine.device, machine.dtype) * ranks.world_size
    known = known_peak(machine)
    flops = flops_per_token(num_params(model), c.n_layer, c.n_embd, c.block_size)
    check_step(c, flops / measured)
    return Parts(
        B=B,
        n_micro=n_micro,
        machine=machine,
        data=data,
        max_steps=max_steps,
        model=model,
        compiled=compiled,
        forward=forward,
        optimizers=optimizers,
        loader=loader,
        peak=known * ranks.world_size if known else measured,
        peak_from="data sheet" if known else "measured",
        measured=measured,
        flops=flops,
    )

# %% ../../nbs/tough/ch19c_setup.ipynb #dfb369db
def fixed_choices(config: TrainConfig, data: Data) -> dict:
    "List the choices that have to be the same at a resume, as JSON has them."
    saved = json.loads(json.dumps(asdict(config)))
    del saved["separator"]  # it is in the name of the data, and runs older than it have none
    fixed = {k: v for k, v in saved.items() if k not in MAY_CHANGE}
    return fixed | {"tokenizer_hash": data.tokenizer.hash, "data": data.folder.name}


def data_facts(data: Data) -> dict:
    "Name a run's data: the source, and the SHA-256 of each shard, in order."
    source = (data.train.manifest or {}).get("source", {})
    return {"source": source, "train": data.train.sha256, "val": data.val.sha256}


def check_data(path: Path, state: dict, data: Data):
    "Refuse a checkpoint that was trained on other data than these. ValueError, one line."
    choices, fix = state["config"], "restore the data it was begun with, or begin another run"
    if "data" not in state and choices["data"] != data.folder.name:  # of an earlier version
        raise ValueError(
            f"{path} was trained on other data: its shards were {choices['data']}, "
            f"not {data.folder.name}; {fix}"
        )
    for split, shards in (("train", data.train), ("val", data.val)):
        was = state.get("data", {}).get(split, shards.sha256)
        if len(was) != len(shards.sha256):
            what = f"{data.folder} has {len(shards.sha256)} {split} shards, expected {len(was)}"
            raise ValueError(f"{path} was trained on other data: {what}; {fix}")
        for file, now, then in zip(shards.paths, shards.sha256, was, strict=True):
            if now != then:
                what = f"{file} has SHA-256 {now[:12]}, expected {then[:12]}"
                raise ValueError(f"{path} was trained on other data: {what}; {fix}")
    if choices["tokenizer_hash"] != data.tokenizer.hash:
        raise ValueError(
            f"{path} was trained with another tokenizer: got {data.tokenizer.hash[:12]}, "
            f"expected {choices['tokenizer_hash'][:12]}; name the one it was begun with, "
            "or begin another run"
        )


def describe_machine(machine: Machine, ranks: Ranks) -> str:
    "Name hardware and ranks, for the log."
    n = ranks.world_size
    return f"{device.describe(machine.device)}, {n} rank{'s' * (n > 1)}"


def describe_parts(parts: Parts, config: TrainConfig, ranks: Ranks) -> list[str]:
    "Describe the model, the machine and the precision, a line each."
    n_vocab, n = parts.data.tokenizer.n_vocab, num_params(parts.model)
    machine, smaller = parts.machine, ""
    if parts.B < config.micro_batch:
        smaller = f"; micro_batch {parts.B}, so that {ranks.world_size} ranks share a step"
    peak = f"{parts.measured / 1e12:.2f} TFLOP/s measured"
    if parts.peak_from != "measured":
        peak += f", {parts.peak / 1e12:.0f} on the data sheet, of which MFU is a share"
    return [
        f"model: {n:,} parameters, vocabulary {n_vocab:,} of {padded(n_vocab):,}",
        f"machine: {describe_machine(machine, ranks)}, {peak}",
        f"precision: {machine.precision}; compile: {machine.compiled}{smaller}",
    ]
