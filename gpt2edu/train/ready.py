"""Find a missing file, a full disk or a lack of memory before you pay for a rented machine."""

# Made by tools/book.py from ../../book/tough/ch19d_ready.md: edit that, then `make book`.

# %% auto #0
__all__ = ['share_step', 'rows_of_table', 'memory_of', 'check_memory', 'check_place', 'check_disk',
           'check_val', 'check_data', 'wanted_by', 'check_questions', 'fetch_questions',
           'torchrun_waits', 'check_processes', 'check_machine', 'check']

# %% ../../nbs/tough/ch19d_ready.ipynb #e4ba859e
import os
from collections.abc import Iterator
from pathlib import Path

from gpt2edu.machine.progress import free_bytes, gigabytes
from gpt2edu.machine.limits import machine_memory
from gpt2edu.model.heads import divisors
from gpt2edu.model.variants import parameters
from gpt2edu.plan import memory as plan
from gpt2edu.plan.memory import USABLE, largest_micro_batch, memory
from gpt2edu.plan.report import cuda_is_here
from gpt2edu.text.corpus import EMBEDDED, find_files
from gpt2edu.text.questions import GRAMMAR, read_questions
from gpt2edu.text.chat import chat_ids
from gpt2edu.text.tokenizer import GPT2_VOCAB, get_tokenizer, need_bytes
from gpt2edu.train.config import (
    PRESETS,
    TrainConfig,
    horizon,
    padded,
    trained_bytes,
)
from gpt2edu.train.log import check_tracker
from gpt2edu.train.start import check_start, describe_start

# %% ../../nbs/tough/ch19d_ready.ipynb #67e8eee7
def share_step(
    config: TrainConfig,
    world_size: int,  # ranks
) -> tuple[int, int]:  # windows in a micro-batch of one rank; micro-batches of one rank in a step
    "Find the largest micro-batch, at most the one asked for, in which the ranks can share a step."
    c, at_once = config, config.block_size * world_size  # tokens, one window on every rank
    windows, rest = divmod(c.total_batch, at_once)  # of one rank
    B = 0 if rest else max(b for b in divisors(windows) if b <= c.micro_batch)
    if not B:
        raise ValueError(
            f"total_batch={c.total_batch} tokens cannot be shared by {world_size} ranks in windows "
            f"of block_size={c.block_size}; "
            f"try --total_batch {max(1, c.total_batch // at_once) * at_once}"
        )
    return B, c.total_batch // (B * at_once)

# %% ../../nbs/tough/ch19d_ready.ipynb #b8c49b4a
def rows_of_table(config: TrainConfig) -> int:  # V
    "Return the rows of the token table; an upper limit if the tokenizer is still to be trained."
    known = {"gpt2": GPT2_VOCAB, "train": config.vocab_size}.get(config.tokenizer)
    tokenizer = None if known else get_tokenizer(config.tokenizer)
    n_vocab = known or tokenizer.n_vocab
    return padded(n_vocab + (chat_ids(tokenizer) if config.questions else 0))


def memory_of(where) -> float | None:  # of a torch.device, bytes; None if unknown
    "Ask how much memory a device has."
    if where.type != "cuda":
        return machine_memory()
    import torch

    return torch.cuda.get_device_properties(where).total_memory


def check_memory(
    config: TrainConfig,
    kind: str,  # cpu, cuda or mps
    width: int,  # bytes of a number in matrix products
    capacity: float | None,  # bytes of the device; None if unknown
    micro_batch: int,  # windows
    ranks: int = 1,
) -> str:
    "Say whether a step fits. ValueError, one line, if it cannot."
    V, cpu = rows_of_table(config), kind == "cpu"
    plan.check_memory(config, V, capacity, kind, width, ranks, micro_batch)
    peak = memory(config, V, width, ranks, micro_batch, cpu)["peak"]
    line = f"memory: a step with micro_batch={micro_batch} takes about {gigabytes(peak)}"
    if not capacity:
        return line
    line += f", and the device has {gigabytes(capacity)}"
    if peak <= USABLE[kind] * capacity:
        return line
    fits = largest_micro_batch(config, V, width, USABLE[kind] * capacity, ranks, cpu)
    other = "a smaller --block_size or a smaller model" if config.recompute else "--recompute"
    fix = f"try --micro_batch {fits}" if fits else f"try {other}"
    return f"{line}, which is little; if that runs out, {fix}"


def check_place(path: Path, flag: str):
    "Refuse a folder that cannot be made. NotADirectoryError, one line."
    there = next((p for p in (path, *path.parents) if os.path.lexists(p)), Path())
    if not there.is_dir():
        raise NotADirectoryError(f"{there} is not a folder; choose another one with --{flag}")


def check_disk(config: TrainConfig, folder: Path) -> str:  # of the run, or of all runs
    "Compute the room for checkpoints. OSError, one line, if the disk has too little."
    V, c = rows_of_table(config), config
    saved = 4 * parameters(c, V) + trained_bytes(c, V)
    there = sum(f.stat().st_size for f in folder.glob("checkpoints/*/*") if f.is_file())
    needed, free = max(0, (c.keep_last + 1) * saved - there), free_bytes(folder)
    line = f"disk: {gigabytes(needed)} for {c.keep_last + 1} checkpoints, {gigabytes(free)} free"
    if free < needed:
        fix = "free some, choose another disk with --out_dir, or lower --keep_last"
        raise OSError(f"{folder}: no room, {line.removeprefix('disk: ')}; {fix}")
    return line

# %% ../../nbs/tough/ch19d_ready.ipynb #253e068c
def check_val(
    config: TrainConfig,
    tokens: int,  # of the validation text
    where: Path,  # names it in the message
):
    "Refuse a validation text that is shorter than a window. ValueError, one line."
    if (n := min(config.val_tokens, tokens - 1)) < config.block_size:
        few = config.val_tokens < config.block_size
        raise ValueError(
            f"{where}: got {n} tokens to validate on, "
            f"expected block_size={config.block_size} at least; "
            + ("raise --val_tokens" if few else "give more text, or lower --block_size")
        )


def check_data(config: TrainConfig) -> str:
    "Find the data, and count tokens and steps. ValueError, FileNotFoundError: one line."
    from gpt2edu.data.cache import hub_name, prepare_data
    from gpt2edu.data.shards import open_shards

    c = config
    if c.questions == GRAMMAR:
        return f"data: questions about {c.conversations:,} stories, written at the start"
    if c.questions:
        return f"data: {c.questions}, {len(read_questions(c.questions)):,} questions"
    if not (c.shards or hub_name(c.dataset)):
        if c.dataset[0] not in EMBEDDED or len(c.dataset) > 1:
            find_files(c.dataset)
        if c.tokenizer == "train":
            need_bytes(c.vocab_size)
        return f"data: {', '.join(c.dataset)}, here; shards are written at the start if need be"
    tokenizer, folder = prepare_data(c)  # these two kinds are found, never written
    known = {"tokenizer_hash": tokenizer.hash, "verify": False}
    train, val = (len(open_shards(folder, split, **known)) for split in ("train", "val"))
    check_val(c, val, folder)
    return f"data: {folder}, {train:,} tokens to train on and {val:,} to validate on, " + (
        f"{horizon(c, train):,} steps"
    )


def wanted_by(config: TrainConfig):  # a `Wanted`
    "Say which questions a run asks."
    from gpt2edu.evaluate.tasks import Wanted

    c = config
    named = {"questions": c.questions, "trained": c.questions}
    return Wanted(data=c.hellaswag, choice_items=c.choice_items, **named)


def check_questions(config: TrainConfig) -> Iterator[str]:
    "Fetch the questions of each validation. ValueError, FileNotFoundError, OSError: one line."
    from gpt2edu.evaluate.tasks import TASKS

    wanted = wanted_by(config)
    for task in TASKS.values():
        if task.applies(config):
            yield f"questions: {task.title}, {len(task.items(wanted)):,} items"

# %% ../../nbs/tough/ch19d_ready.ipynb #ba06f9ab
def fetch_questions(
    dataset: tuple[str, ...],  # as it was prepared
    tokenizer: str,
) -> Iterator[str]:  # lines
    "Fetch the questions of the presets that train on a dataset."
    from gpt2edu.evaluate.tasks import get_items

    wanted = (
        p["hellaswag"]
        for p in PRESETS.values()
        if p.get("hellaswag") and (p["dataset"], p["tokenizer"]) == (dataset, tokenizer)
    )
    for name in sorted(set(wanted)):
        try:
            yield f"{name}: {len(get_items(name)):,} items in the cache"
        except (ValueError, OSError) as e:
            yield f"{e}"

# %% ../../nbs/tough/ch19d_ready.ipynb #c71ebc2b
def torchrun_waits() -> bool:
    "Whether torchrun takes from the environment how long a rank may save."
    from torch.distributed.launcher.api import LaunchConfig

    return "shutdown_timeout" in LaunchConfig.__dataclass_fields__


def check_processes(config: TrainConfig, ranks: int) -> Iterator[str]:
    "Check that the ranks can share a step. ValueError, one line."
    B, n_micro = share_step(config, ranks)
    yield f"ranks: {ranks}, each {n_micro} x {B} windows a step"
    if ranks > 1 and not torchrun_waits():
        short = "this PyTorch's torchrun gives the ranks 30 s for the last save, and no more"
        yield f"ranks: {short}; a newer one takes TORCH_ELASTIC_SHUTDOWN_TIMEOUT"

# %% ../../nbs/tough/ch19d_ready.ipynb #835595e4
def check_machine(config: TrainConfig, ranks: int) -> Iterator[str]:
    "Check memory and compiler of this machine. ValueError, one line."
    c, kind, capacity = config, "cpu", machine_memory()
    width = 4 if c.dtype in ("auto", "fp32") else 2
    if c.compile == "on" or c.device in ("cuda", "mps") or cuda_is_here(c.device):
        from gpt2edu.machine.device import pick_compile, pick_device, pick_dtype

        where = pick_device(c.device).value
        kind, width = where.type, pick_dtype(c.dtype, where).value.itemsize
        capacity = memory_of(where)
        asked = "on" if kind == "cuda" and c.compile == "auto" else c.compile
        yield f"compile: {pick_compile(asked, where)}"
    yield check_memory(c, kind, width, capacity, share_step(c, ranks)[0], ranks)


def check(
    config: TrainConfig,
    folder: Path | None,  # of the run at a resume
    ranks: int = 1,  # processes that the run will have
) -> Iterator[str]:  # lines
    "Check what can be known before a start. ValueError, FileNotFoundError, OSError: one line."
    if ranks > 1:
        yield from check_processes(config, ranks)
    if config.init_from and folder is None:
        check_start(config)
        yield describe_start(config)
    check_tracker(config.tracker)
    for flag in ("out_dir", "data_dir"):
        check_place(Path(getattr(config, flag)), flag)
    yield check_disk(config, folder or Path(config.out_dir))
    yield check_data(config)
    yield from check_machine(config, ranks)
    yield from check_questions(config)
