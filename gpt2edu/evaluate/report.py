"""Every figure of any model: HellaSwag, validation loss, story choice; on one rank or many."""

# Made by tools/book.py from ../../book/tough/ch18b_report.md: edit that, then `make book`.

# %% auto #0
__all__ = ['EVERY', 'CONVENTIONS', 'ModelName', 'EvalConfig', 'choose_tasks', 'wanted',
           'run_of_adapter', 'run_of', 'is_report', 'check_out', 'questions', 'check_batch',
           'load_subject', 'tell_of_long', 'ask', 'text_of', 'validation', 'evaluate', 'figures']

# %% ../../nbs/tough/ch18b_report.ipynb #310f745e
import contextlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gpt2edu.choices import Device, Dtype, check_choice
from gpt2edu.machine.atomic import write_atomically
from gpt2edu.machine.limits import machine_memory, need_memory
from gpt2edu.machine.state import loads
from gpt2edu.evaluate.tasks import HUB, TASKS, Subject, Task, Wanted, is_hub_name
from gpt2edu.train.config import GPT2_RUN, MOST_ITEMS, TrainConfig
from gpt2edu.train.runs import (
    RunState,
    begun_source,
    find_run,
    is_adapter,
    is_exported,
    load_model,
    model_place,
    read_config,
)

# %% ../../nbs/tough/ch18b_report.ipynb #ff63f424
EVERY = (*TASKS, "val")  # what --tasks may name: questions, and the loss on a text
CONVENTIONS = {"plain": ("plain",), "harness": ("harness",), "both": ("plain", "harness")}
ModelName = Annotated[str | None, tyro.conf.arg(aliases=("--run",))]  # as in gpt2edu_generate


@dataclass(frozen=True)
class EvalConfig:
    "What to judge, and by what; each field is a flag of `gpt2edu_eval`."

    # a run or an exported folder, gpt2, gpt2-medium, gpt2-large or gpt2-xl; default: the latest run
    model: ModelName = None
    # gpt2 or a tokenizer.json: for a folder of transformers that has none
    tokenizer: str | None = None
    tasks: str = "auto"  # any of hellaswag,stories,val; auto: those that fit the model
    # multiple choice

    # a .jsonl file with HellaSwag's fields, or a dataset of the hub; by default Rowan/hellaswag
    data: str | None = None
    convention: Literal[*CONVENTIONS] = "both"  # gpt2 has 0.2955 by plain and 0.3114 by harness
    limit: int | None = None  # judge only the first items, up to this number
    choice_items: int = 400  # stories to ask about
    # questions to answer word for word: stories (the grammar's), or a .jsonl file
    questions: str | None = None
    # validation loss
    shards: str | None = None  # a folder of shards; by default those that the run was validated on
    # tokens to validate on; by default the run's own number, 10,485,760 with --shards
    val_tokens: int | None = None
    # the machine
    device: Device = "auto"  # where to compute
    self_test: bool = True  # compare a small step with the CPU's before using another device
    dtype: Dtype = "fp32"  # published figures are in fp32; the others are faster and less exact
    int8: bool = False  # judge the model as `gpt2edu_generate --int8` uses it
    # items or windows at a time, on each rank; by default 8 on a CPU, 64 elsewhere
    batch_size: int | None = None
    # the result
    out: str | None = None  # a .json file for all figures and all predictions
    out_dir: str = "runs"  # where runs are kept

    def __post_init__(self):
        check_choice("convention", self.convention, Literal[*CONVENTIONS])
        if self.tasks != "auto" and (
            unknown := [t for t in self.tasks.split(",") if t not in EVERY]
        ):
            known = f"expected auto, or some of {','.join(EVERY)} with commas between"
            raise ValueError(f"unknown task {unknown[0]!r}; {known}")
        for f in fields(self):
            value = getattr(self, f.name)
            if type(value) is int and value < 1:  # a bool is an int too
                raise ValueError(f"{f.name}={value} must be 1 or more")
        if self.choice_items > MOST_ITEMS:
            raise ValueError(
                f"choice_items={self.choice_items} must be {MOST_ITEMS:,} or less; try 400"
            )

# %% ../../nbs/tough/ch18b_report.ipynb #33dc3cf1
def choose_tasks(
    config: EvalConfig,
    run: TrainConfig | None,  # of the model, if it is a run of ours
) -> tuple[str, ...]:
    "Choose the tasks. ValueError, one line, for a task that this model cannot do."
    if config.tasks != "auto":
        has_text = config.shards or (run and not run.questions)
        if "val" in config.tasks.split(",") and not has_text:
            raise ValueError("validation loss needs a text: name a folder of shards with --shards")
        return tuple(t for t in EVERY if t in config.tasks.split(","))
    fits = [name for name, task in TASKS.items() if task.fits(run, wanted(config, run))]
    has_text = config.shards or (run and not run.questions)
    return (*fits, "val") if has_text else tuple(fits)


def wanted(config: EvalConfig, run: TrainConfig | None) -> Wanted:
    "Collect which questions the flags ask for."
    conventions = CONVENTIONS[config.convention]
    asked = config.questions or (run.questions if run else None)
    begun = run or run_of_adapter(config)
    trained = begun.questions if begun else None
    return Wanted(config.data, conventions, config.limit, config.choice_items, asked, trained)


def run_of_adapter(config: EvalConfig) -> TrainConfig | None:
    "Read the config of the run in whose folder an adapter lies; None for any other model."
    with contextlib.suppress(ValueError, OSError):  # it may lie elsewhere, or not be there
        place = model_place(config.model, config.out_dir)
        if not isinstance(place, str) and is_adapter(place):
            return read_config(place.absolute().parent)
    return None

# %% ../../nbs/tough/ch18b_report.ipynb #89a7ce81
def run_of(config: EvalConfig) -> TrainConfig | None:
    "Read the config of the run to judge; None for a model that is not a run of ours."
    place = model_place(config.model, config.out_dir)
    if isinstance(place, str) or is_adapter(place) or is_exported(place):
        return None
    return read_config(place)


def is_report(file: Path) -> bool:
    "Whether an earlier evaluation has written this file, or nobody has written anything."
    try:
        text = file.read_text(encoding="utf-8")
        return not text or {"model", "parameters", "tasks"} <= {*loads(text)}
    except (ValueError, TypeError, RecursionError):
        return False


def check_out(config: EvalConfig) -> None:
    "Refuse an --out that cannot be written. FileNotFoundError, ValueError: one line."
    if not config.out:
        return
    if not Path(config.out).absolute().parent.is_dir():
        raise FileNotFoundError(f"no folder for {config.out}; make it first")
    if Path(config.out).exists() and not Path(config.out).is_file():
        raise ValueError(f"out={config.out!r} is not a file; name one, for example result.json")
    if Path(config.out).exists() and not is_report(Path(config.out)):
        raise ValueError(
            f"out={config.out!r} is there, and is not a report of gpt2edu_eval; name another file"
        )


def questions(
    config: EvalConfig, run: TrainConfig | None, tasks: tuple[str, ...], local: bool
) -> dict[str, list]:
    "Fetch the questions: `local`, those on this machine; else those to download."
    from_hub = {"hellaswag": is_hub_name(config.data or HUB)}
    names = [t for t in tasks if t in TASKS and from_hub.get(t, False) != local]
    return {name: TASKS[name].items(wanted(config, run)) for name in names}

# %% ../../nbs/tough/ch18b_report.ipynb #659bdbb8
def check_batch(batch: int, shape, where):  # windows; a GPTConfig; a torch.device
    "Refuse more windows at a time than the device can hold. ValueError, one line."
    import torch

    memory = machine_memory()
    if where.type == "cuda":
        memory = torch.cuda.get_device_properties(where).total_memory
    window = 9 * 4 * shape.n_embd * shape.block_size  # bytes
    fits = max(1, int(0.5 * (memory or 0) / window))
    what = f"batch_size={batch} windows of {shape.block_size} tokens"
    need_memory(batch * window, what, f"try --batch_size {min(fits, 64)}", memory)


def load_subject(config: EvalConfig, ranks, say: Callable) -> tuple[Subject, str]:
    "Load the model on the chosen device; return with it the reason for its precision."
    from gpt2edu.machine import device, distributed
    from gpt2edu.train.selftest import tested_device

    kind = (config.device, config.dtype, config.self_test)
    where = tested_device(*kind, say, distributed.agreement(ranks), update=False).value
    dtype = device.pick_dtype(config.dtype, where)
    if config.dtype != "fp32":
        device.set_precision(where)  # TF32, where published figures have fp32
    batch = config.batch_size or (8 if where.type == "cpu" else 64)
    with distributed.rank0_first(ranks):  # a download happens once
        model, tokenizer = load_model(config.model, config.out_dir, where, config.tokenizer)
    check_batch(batch, model.config, where)
    return Subject(model, tokenizer, where, dtype.value, ranks, batch), str(dtype)


def tell_of_long(task: Task, subject: Subject, items: list, say: Callable):
    "Say how many questions leave no room for an answer."
    from gpt2edu.evaluate.answers import fits, prompts_of
    from gpt2edu.text.chat import is_chat
    from gpt2edu.text.questions import Question

    asked = [q for q in items if isinstance(q, Question)]
    if not asked or not is_chat(subject.tokenizer):
        return
    most = subject.model.config.block_size
    if n := sum(not fits(ids, most) for ids in prompts_of(subject.tokenizer, asked)):
        fit = f"do not fit block_size={most} tokens, and count as wrong"
        say(f"{task.name}: {n:,} of {len(asked):,} questions {fit}")


def ask(task: Task, subject: Subject, items: list[dict], convention: str, say: Callable) -> dict:
    "Let a model answer a task's items by one convention, and print the figures."
    began = time.perf_counter()
    figures = task.run(subject, items, convention)
    seconds = time.perf_counter() - began
    for figure, f in figures.items():
        counts = f"{f['right']:,} of {f['n']:,} right; {len(items) / seconds:,.1f} items/s"
        title = f"{task.name:9} {convention:8}"
        say(f"{title} {figure:9} {f['accuracy']:.4f} ± {f['error']:.4f}   {counts}")
    return figures


def text_of(
    run: TrainConfig,
    begun: str | None = None,  # SHA-256 of the source when the run began; None if unknown
) -> Path:
    "Find a run's validation shards; write nothing. OSError, ValueError: one line."
    from gpt2edu.data.cache import check_unchanged, hub_name, prepared_before, shards_folder
    from gpt2edu.data.shards import MANIFEST
    from gpt2edu.text.tokenizer import get_tokenizer

    if run.shards:
        return Path(run.shards)
    if hub_name(run.dataset):
        return prepared_before(run)
    fix = "train the run again, or name shards with --shards"
    here = run.dataset != ("tinyshakespeare",) or (Path(run.data_dir) / "input.txt").exists()
    if here:  # else its name would be asked of a download
        own = None if run.tokenizer == "train" else get_tokenizer(run.tokenizer)
        folder, _, source, *_ = shards_folder(run, own)
        check_unchanged(run.dataset, begun, source)
        if (folder / MANIFEST).exists():
            return folder
    raise FileNotFoundError(f"{run.data_dir}: the text of the run is not prepared there; {fix}")


def validation(
    config: EvalConfig, run: TrainConfig | None, subject: Subject, say: Callable
) -> dict:
    "Compute the loss on the first tokens of the validation shards."
    from gpt2edu.data.shards import open_shards
    from gpt2edu.evaluate.validation import validation_loss
    from gpt2edu.machine.distributed import rank0_first
    from gpt2edu.train.checkpoint import latest_state

    model, tokenizer, device, dtype, ranks, batch = subject
    default = run.val_tokens if run and not config.shards else GPT2_RUN["val_tokens"]
    n = config.val_tokens or default
    state, begun = {}, None
    if run and not config.shards:  # the text may have been edited since
        place = find_run(config.model, config.out_dir) / "checkpoints"
        state = latest_state(place, RunState)
        begun = begun_source(run, state)
    with rank0_first(ranks):
        folder = Path(config.shards) if config.shards else text_of(run, begun)
        if not folder.is_dir():
            what = "expected shards, as gpt2edu_prepare writes them"
            raise FileNotFoundError(f"no folder {folder}; {what}")
        shards = open_shards(folder, "val", tokenizer.hash, n_vocab=tokenizer.n_vocab)
        if "data" in state and shards.sha256 != state["data"]["val"]:
            raise ValueError(
                f"{folder}: the validation text is not that of the run; "
                "restore it, or name these shards with --shards to judge by them"
            )
    T, overlap = model.config.block_size, run.val_overlap if run else 0.0
    loss = validation_loss(model, shards, n, T, batch, overlap, device, dtype, ranks)
    n = min(n, len(shards) - 1)
    if not math.isfinite(loss):
        what = f"the model's loss is {loss}: its training diverged"
        raise ValueError(f"{what}; judge an earlier checkpoint")
    say(f"validation loss    {loss:.4f} nats/token on {n:,} tokens")
    return {"val_loss": round(loss, 6), "val_tokens": n}

# %% ../../nbs/tough/ch18b_report.ipynb #2ef5560f
def evaluate(
    config: EvalConfig,
    say: Callable = lambda line: None,  # gets a line for each figure; on rank 0 only
) -> dict:  # all figures, with predictions; the same on every rank
    "Judge a model. ValueError, FileNotFoundError, OSError: one line."
    run = run_of(config)
    tasks = choose_tasks(config, run)
    items = questions(config, run, tasks, local=True)
    check_out(config)

    from gpt2edu.machine import device, distributed
    from gpt2edu.model.gpt import num_params
    from gpt2edu.model.int8 import int8_model

    ranks, failed = distributed.start(device.pick_device(config.device).value.type), True
    tell = say if ranks.is_main else lambda line: None
    try:
        subject, precision = load_subject(config, ranks, tell)
        with distributed.rank0_first(ranks):
            items |= questions(config, run, tasks, local=False)
        name = config.model or f"{find_run(None, config.out_dir)}"
        n = num_params(subject.model)
        if config.int8:
            subject = subject._replace(model=int8_model(subject.model))
            precision = f"{precision}, weights in int8"
        found = {"model": name, "parameters": n, "dtype": str(subject.dtype), "tasks": [*tasks]}
        machine = f"{device.describe(subject.device)}; {precision}; ranks: {ranks.world_size}"
        tell(f"model: {name}, {n:,} parameters; {machine}")
        for task in (TASKS[t] for t in tasks if t in TASKS):
            if note := task.note(wanted(config, run), items[task.name]):
                tell(note)
            tell_of_long(task, subject, items[task.name], tell)
            by = [c for c in CONVENTIONS[config.convention] if c in task.conventions]
            asked = {c: ask(task, subject, items[task.name], c, tell) for c in by or ("plain",)}
            found[task.name] = asked if len(task.conventions) > 1 else asked["plain"]
        if "hellaswag" in tasks:
            found["data"] = config.data or HUB
        if "val" in tasks:
            found |= validation(config, run, subject, tell)
        if config.out and ranks.is_main:
            write_atomically(Path(config.out), (json.dumps(found, indent=1) + "\n").encode())
            tell(f"written: {config.out}")
        failed = False
    finally:
        distributed.stop(failed)
    return found

# %% ../../nbs/tough/ch18b_report.ipynb #6c213bb8
def figures(
    found: dict,  # from `evaluate`
) -> dict:  # documented in book/commands.qmd
    "Leave the predictions out, and name every number's unit."

    keys = {"accuracy": "accuracy", "error": "standard_error", "right": "right_items", "n": "items"}

    def brief(scores):
        return {k: {new: f[old] for old, new in keys.items()} for k, f in scores.items()}

    kept = ("model", "parameters", "dtype", "tasks", "data", "val_tokens")
    out = {k: found[k] for k in kept if k in found}
    out["dtype"] = out["dtype"].removeprefix("torch.")
    if "val_loss" in found:
        out["val_loss_nats_per_token"] = found["val_loss"]
    for name, task in TASKS.items():
        if name in found:
            many = len(task.conventions) > 1
            scores = found[name]
            out[name] = {c: brief(s) for c, s in scores.items()} if many else brief(scores)
    return out
