"""Everything a run needs, built one part at a time, the cheapest checks first."""

# Made by tools/book.py from ../../book/tough/ch19c_setup.md: edit that, then `make book`.

# %% auto #0
__all__ = ['MONTH', 'TURNS', 'HELD_OUT', 'begun_with', 'Machine', 'choose_machine', 'Data',
           'open_data', 'chat_tokenizer', 'open_questions', 'sizes', 'first_weights', 'is_split',
           'build_model', 'choose_optimizers', 'known_peak', 'Parts', 'pinned', 'check_step',
           'build', 'fixed_choices', 'check_newer', 'data_facts', 'check_data', 'describe_machine',
           'describe_parts']

# %% ../../nbs/tough/ch19c_setup.ipynb #ee5078b0
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from gpt2edu.data.cache import hub_name, not_writable, prepare_data, prepared_before
from gpt2edu.data.loader import Ahead, Loader
from gpt2edu.data.packing import PackedLoader, PackedSet, conversation
from gpt2edu.data.shards import ShardSet, open_shards
from gpt2edu.evaluate.tasks import TASKS, Task
from gpt2edu.machine import device
from gpt2edu.machine import distributed as dist
from gpt2edu.machine.device import Choice
from gpt2edu.machine.distributed import Ranks
from gpt2edu.machine.progress import duration
from gpt2edu.model.gpt import GPT, GPTConfig, num_params
from gpt2edu.plan.report import data_sheet_peak
from gpt2edu.text.chat import with_chat
from gpt2edu.text.questions import (
    GRAMMAR,
    Question,
    exam,
    hold_out,
    questions_about,
    read_questions,
)
from gpt2edu.text.tokenizer import Tokenizer, get_tokenizer
from gpt2edu.train import checkpoint, selftest, start
from gpt2edu.train.config import (
    MAY_CHANGE,
    MODEL_SIZES,
    NEWER,
    TrainConfig,
    horizon,
    measure_peak,
    padded,
    token_flops,
)
from gpt2edu.train.log import check_tracker
from gpt2edu.train.optim import build_optimizers
from gpt2edu.train.ready import (
    check_disk,
    check_memory,
    check_val,
    memory_of,
    share_step,
    wanted_by,
)
from gpt2edu.train.runs import RunState, begun_source, holds_run

MONTH = 30 * 86_400  # seconds
TURNS = 4  # questions about a story, at most
HELD_OUT = 400  # stories whose questions only judge

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
    train: ShardSet | PackedSet
    val: ShardSet | PackedSet
    questions: dict[Task, list]  # of each task that is asked at a validation, encoded
    samples: Sequence[Question] = ()  # held out; to show how the model answers


def open_data(
    config: TrainConfig,
    folder: Path,  # of the run
    ranks: Ranks,
    say: Callable,
    begun: str | None = None,  # at a resume: SHA-256 of the run's text, if known
) -> Data:
    "Find or prepare shards and questions. ValueError, FileNotFoundError, OSError: one line."
    wanted = wanted_by(config)
    with dist.rank0_first(ranks):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise not_writable(folder, e, "--out_dir") from e
        if hub_name(config.dataset) and not (config.shards or config.questions):
            prepared_before(config)
        asked = {task: task.items(wanted) for task in TASKS.values() if task.applies(config)}
        if config.questions:
            data = open_questions(config, folder, say)
        else:
            tokenizer, shards = prepare_data(config, say, begun)
            known = (tokenizer.hash, ranks.local_rank == 0, tokenizer.n_vocab)  # once on each node
            train, val = (open_shards(shards, split, *known) for split in ("train", "val"))
            data = Data(shards, tokenizer, train, val, {})
    if not config.questions:
        check_val(config, len(data.val), data.folder)
    questions = {task: task.encode(items, data.tokenizer) for task, items in asked.items()}
    return data._replace(questions=questions)

# %% ../../nbs/tough/ch19c_setup.ipynb #35dd2cb3
def chat_tokenizer(
    config: TrainConfig,
    folder: Path,  # of the run; holds its tokenizer once it has begun
) -> Tokenizer:
    "Find the tokenizer of a run that trains on questions. ValueError, one line."
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.load(folder)
    if config.tokenizer == "train":
        raise ValueError(
            f"questions={config.questions} are asked of a model that can read; "
            "name one to begin with: --init_from tiny"
        )
    return with_chat(get_tokenizer(config.tokenizer))


def open_questions(
    config: TrainConfig,
    folder: Path,  # of the run
    say: Callable,
) -> Data:
    "Write or read questions, and pack them. ValueError, FileNotFoundError: one line."
    c, tokenizer = config, chat_tokenizer(config, folder)
    if c.questions == GRAMMAR:
        say(f"data: questions about {c.conversations:,} stories")
        sizes = {"train": c.conversations, "held-out": HELD_OUT}
        parts = [[questions_about(i, s, TURNS) for i in range(n)] for s, n in sizes.items()]
        samples = exam(HELD_OUT)
    else:
        train, samples = hold_out(read_questions(c.questions), c.questions)
        say(f"data: {c.questions}, {len(train):,} questions, and {len(samples):,} held out")
        parts = [[[q] for q in part] for part in (train, samples)]
    packed = []
    for part in parts:
        talks = [conversation(tokenizer, asked, c.block_size) for asked in part]
        if c.questions != GRAMMAR and None in talks:
            q = part[talks.index(None)][0]
            raise ValueError(
                f"{c.questions}: the question {q.question[:40]!r} does not fit block_size="
                f"{c.block_size} tokens with its story and answer; shorten it"
            )
        if long := talks.count(None):
            left = f"left out {long:,} of {len(talks):,} stories"
            say(f"data: {left}, too long with a question for block_size={c.block_size} tokens")
        packed.append(PackedSet(filter(None, talks), c.block_size, c.questions))
    name = Path(f"questions-{packed[0].sha256[0][:12]}")
    return Data(name, tokenizer, *packed, {}, samples)

# %% ../../nbs/tough/ch19c_setup.ipynb #ec74da0d
def sizes(config: TrainConfig) -> dict:  # field: value
    "What describes the model and does not depend on the tokenizer."
    return {k: getattr(config, k) for k in MODEL_SIZES}


def first_weights(
    config: TrainConfig,
    tokenizer: Tokenizer,
    begun: bool,  # whether a checkpoint will replace the weights
) -> GPT:  # on the CPU
    "Draw the weights from the seed, the same on every device, or take those of `init_from`."
    if config.init_from and not begun:
        return start.load_start(config, tokenizer)
    shape = GPTConfig(**sizes(config), vocab_size=padded(tokenizer.n_vocab))
    return GPT(shape, torch.Generator().manual_seed(config.seed))


def is_split(config: TrainConfig, ranks: Ranks) -> bool:
    "Whether each rank holds only a part of the model."
    return config.shard and ranks.world_size > 1


def build_model(
    config: TrainConfig,
    tokenizer: Tokenizer,
    machine: Machine,
    ranks: Ranks,
    begun: bool = False,  # whether a checkpoint will replace the weights
) -> tuple[GPT, nn.Module, nn.Module]:  # plain, compiled, and what training calls
    "Build the model that a run trains."
    model = first_weights(config, tokenizer, begun)
    start.choose_trained(config, model)
    model.recompute = config.recompute
    model = model.to(machine.device)
    if machine.compiled.value:
        device.keep_kernels_apart()
    if is_split(config, ranks):
        blocks = model.transformer.h
        if machine.compiled.value:
            for block in blocks:  # each by itself: what exchanges the weights stays between them
                block.compile()
        return (dist.shard(model, blocks, ranks),) * 3
    compiled = torch.compile(model) if machine.compiled.value else model
    return model, compiled, dist.wrap(compiled, ranks)


def choose_optimizers(config: TrainConfig, model: GPT, machine: Machine, ranks: Ranks) -> list:
    "Build the optimisers; Muon multiplies in fp32 unless the run is in bf16."
    c = config
    muon_dtype = None if machine.dtype == torch.bfloat16 else torch.float32  # None: the hardware's
    options = {"muon_lr": c.muon_lr, "dtype": muon_dtype, "share": ranks.world_size > 1}
    return build_optimizers(model, c.optimizer, c.lr, c.weight_decay, (c.beta1, c.beta2), **options)

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
    split: bool  # whether each rank holds only a part of the model
    n_micro: int  # micro-batches of one rank in a step
    machine: Machine
    data: Data
    max_steps: int
    model: GPT
    compiled: nn.Module  # the same weights
    forward: nn.Module  # what training calls
    optimizers: list
    loader: Loader | PackedLoader | Ahead
    peak: float  # FLOP/s that all ranks could do in matrix products; MFU is a share of it
    peak_from: str  # data sheet or measured
    measured: float  # FLOP/s of all ranks, as measured
    flops: float  # of training, for a token


def pinned(
    batch: Sequence[torch.Tensor],
) -> list[torch.Tensor]:
    "Move a batch to memory that the system never moves, so that the GPU copies it by itself."
    return [t.pin_memory() for t in batch]


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
    if c.init_from and not resume:
        start.check_start(c)
    B, n_micro = share_step(c, ranks.world_size)

    def begin() -> dict:
        claim()
        return begun_with(folder, resume)

    begun = dist.from_rank0(ranks, begin)
    if c.init_from and not begun:
        say(start.describe_start(c))
    machine = choose_machine(c, ranks, say)
    kind, width = machine.device.type, machine.dtype.itemsize
    check_memory(c, kind, width, memory_of(machine.device), B, ranks.world_size)
    dist.from_rank0(ranks, lambda: check_disk(c, folder))
    data = open_data(c, folder, ranks, say, begun_source(c, begun))
    max_steps = horizon(c, len(data.train))
    model, compiled, forward = build_model(c, data.tokenizer, machine, ranks, bool(begun))
    optimizers = choose_optimizers(c, model, machine, ranks)
    share = (c.seed, ranks.rank, ranks.world_size)
    if c.questions:
        loader = PackedLoader(data.train, B, n_micro, *share)
    else:
        loader = Loader(data.train, B, c.block_size, *share)
    if kind == "cuda":
        loader = Ahead(loader, pinned)
    measured = measure_peak(machine.device, machine.dtype) * ranks.world_size
    known = known_peak(machine)
    flops = token_flops(c, model.config.vocab_size)
    check_step(c, flops / measured)
    return Parts(
        B=B,
        split=is_split(c, ranks),
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


def check_newer(path: Path, state: dict, fixed: dict):
    "Compare the choices that earlier versions did not write. ValueError, one line."
    checkpoint.check_config(path, NEWER | state["config"], {k: fixed[k] for k in NEWER})


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
    trained = sum(p.numel() for p in parts.model.parameters() if p.requires_grad)
    some = f", {trained:,} of them trained ({trained / n:.2%})" if trained < n else ""
    alone = "shard: no effect with one rank; start several with torchrun --nproc_per_node=N"
    shared = f"shard: each of {ranks.world_size} ranks holds its part of every tensor"
    return [
        f"model: {n:,} parameters{some}, vocabulary {n_vocab:,} of {padded(n_vocab):,}",
        f"machine: {describe_machine(machine, ranks)}, {peak}",
        f"precision: {machine.precision}; compile: {machine.compiled}{smaller}",
        *([shared if parts.split else alone] if config.shard else []),
    ]
