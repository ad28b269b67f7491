"""Any model, any of its figures: HellaSwag in both conventions, validation loss and story choice, on one process or many."""

# Made by tools/book.py from ../../book/tough/ch17b_report.md: edit that file, then `make book`.

# %% auto #0
__all__ = ['TASKS', 'CONVENTIONS', 'HUB', 'ModelName', 'EvalConfig', 'read_items', 'hub_items',
           'is_hub_name', 'get_items', 'choose_tasks', 'read_run', 'sum_over_ranks', 'validation',
           'choices', 'evaluate', 'figures']

# %% ../../nbs/tough/ch17b_report.ipynb #310f745e
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..choices import Device, Dtype, check_choice
from ..train.config import TrainConfig

# %% ../../nbs/tough/ch17b_report.ipynb #ff63f424
TASKS = ("hellaswag", "val", "stories")
CONVENTIONS = {"plain": ("plain",), "harness": ("harness",), "both": ("plain", "harness")}
HUB = "Rowan/hellaswag"
ModelName = Annotated[str | None, tyro.conf.arg(aliases=("--run",))]  # as in gpt2edu_generate


@dataclass(frozen=True)
class EvalConfig:
    "What to judge, and by what; each field is a flag of `gpt2edu_eval`."

    model: ModelName = None  # a run or an exported folder, gpt2, gpt2-medium, gpt2-large or gpt2-xl; by default the latest run
    tasks: str = "auto"  # any of hellaswag,val,stories; auto: those that fit the model
    # multiple choice
    data: str | None = (
        None  # a .jsonl file with HellaSwag's fields, or a dataset of the hub; by default Rowan/hellaswag
    )
    convention: Literal[*CONVENTIONS] = "both"  # gpt2 has 0.2955 by plain and 0.3114 by harness
    limit: int | None = None  # judge only so many items, the first ones
    choice_items: int = 400  # stories to ask about
    # validation loss
    shards: str | None = None  # a folder of shards; by default those that the run was validated on
    val_tokens: int | None = (
        None  # tokens to validate on; by default the run's own number, 10,485,760 with --shards
    )
    # the machine
    device: Device = "auto"  # where to compute
    self_test: bool = True  # compare a small step with the CPU's before using another device
    dtype: Dtype = "fp32"  # published figures are in fp32; the others are faster and less exact
    batch_size: int | None = (
        None  # items or windows at a time, on each rank; by default 8 on a CPU, 64 elsewhere
    )
    # the result
    out: str | None = None  # a .json file for all figures and all predictions
    out_dir: str = "runs"  # where runs are kept

    def __post_init__(self):
        check_choice("convention", self.convention, Literal[*CONVENTIONS])
        if self.tasks != "auto" and (
            unknown := [t for t in self.tasks.split(",") if t not in TASKS]
        ):
            raise ValueError(
                f"unknown task {unknown[0]!r}; expected auto, or some of {','.join(TASKS)} with commas between"
            )
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{f.name}={value} must be 1 or more")

# %% ../../nbs/tough/ch17b_report.ipynb #f216becd
def read_items(
    path: str | Path,  # .jsonl
    conventions: tuple[str, ...] = ("plain",),  # those that the items are needed for
    limit: int | None = None,  # the first ones only
) -> list[dict]:
    "Read HellaSwag's items from a file. ValueError, FileNotFoundError, one line: file, line and what is wrong."
    from gpt2edu.evaluate.hellaswag import check_item

    items = []
    try:
        with open(path, encoding="utf-8-sig") as f:
            for n, line in enumerate(f, start=1):
                if len(items) == limit:
                    break
                if line.strip():
                    try:
                        item = json.loads(line)
                    except (ValueError, RecursionError) as e:
                        why = getattr(
                            e,
                            "msg",
                            "nested too deeply"
                            if isinstance(e, RecursionError)
                            else "a number too long",
                        )
                        raise ValueError(
                            f"{path}, line {n}: not JSON ({why}); expected one object a line"
                        ) from None
                    for convention in conventions:
                        check_item(item, convention, f"{path}, line {n}")
                    items.append(item)
    except UnicodeDecodeError as e:
        raise ValueError(
            f"{path}: not UTF-8 ({e.reason} at byte {e.start} of a block); expected a .jsonl file"
        ) from None
    if not items:
        raise ValueError(
            f"{path}: holds no items; expected one object with HellaSwag's fields a line"
        )
    return items


def hub_items(
    repo: str,  # owner/name
    conventions: tuple[str, ...] = ("plain",),
    limit: int | None = None,
) -> list[dict]:
    "Read the validation split of a dataset of the hub, kept in its cache. ValueError, one line."
    import datasets
    from huggingface_hub import constants
    from huggingface_hub.utils import logging

    from gpt2edu.text.corpus import reachable
    from gpt2edu.evaluate.hellaswag import check_item

    if not reachable(constants.ENDPOINT):
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = (
            True  # what is in the cache is found at once
        )
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # it would write a line for each attempt
    try:
        rows = datasets.load_dataset(repo, split="validation")
    except Exception as e:  # noqa: BLE001  the client passes on errors of the libraries below it
        why = f"it is not in the cache, and {constants.ENDPOINT} does not have it or does not answer ({type(e).__name__})"
        raise ValueError(
            f"{repo}: {why}; connect, or give a .jsonl file (eval: --data, train: --hellaswag FILE or None)"
        ) from None
    finally:
        logging.set_verbosity(level)
    items = list(rows.select(range(min(limit or len(rows), len(rows)))))
    for n, item in enumerate(items):
        for convention in conventions:
            check_item(item, convention, f"{repo}, item {n}")
    if not items:
        raise ValueError(
            f"{repo}: its validation split is empty; give a file with --data hellaswag_val.jsonl"
        )
    return items


def is_hub_name(data: str) -> bool:
    "Whether this is owner/name, and no file."
    return (
        not Path(data).is_file()
        and not Path(data).suffix
        and re.fullmatch(r"[\w-]+/[\w.-]+", data) is not None
    )


def get_items(
    data: str,  # a file, or owner/name
    conventions: tuple[str, ...] = ("plain",),
    limit: int | None = None,
) -> list[dict]:
    "Read items from a file or from the hub. ValueError, FileNotFoundError, OSError: one line."
    if is_hub_name(data):
        return hub_items(data, conventions, limit)
    if not Path(data).is_file():
        raise FileNotFoundError(
            f"no file {data}; expected a .jsonl file with HellaSwag's fields, or a dataset such as {HUB}"
        )
    return read_items(data, conventions, limit)

# %% ../../nbs/tough/ch17b_report.ipynb #33dc3cf1
def choose_tasks(
    config: EvalConfig,
    run: TrainConfig | None,  # of the model, if it is a run of ours
) -> tuple[str, ...]:
    "Say what to judge. ValueError, one line, for a task that cannot be done."
    if config.tasks != "auto":
        if "val" in config.tasks and not (run or config.shards):
            raise ValueError("validation loss needs a text: name a folder of shards with --shards")
        return tuple(t for t in TASKS if t in config.tasks.split(","))
    stories = run is not None and run.dataset == ("stories",) and not run.shards
    fits = {
        "hellaswag": config.data or not run or run.tokenizer == "gpt2",
        "val": run or config.shards,
        "stories": stories,
    }
    return tuple(task for task in TASKS if fits[task])


def read_run(folder: Path) -> TrainConfig:
    "Read the config of a run. ValueError, one line."
    try:
        saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return TrainConfig(**saved | {"dataset": tuple(saved["dataset"])})
    except (ValueError, TypeError, KeyError) as e:
        raise ValueError(
            f"{folder}/config.json is not the config of a run ({e}); restore it"
        ) from None

# %% ../../nbs/tough/ch17b_report.ipynb #89a7ce81
def sum_over_ranks(table):  # a tensor that is zero wherever another rank has a number
    "Fill in what the other ranks computed."
    from torch import distributed

    if not distributed.is_initialized():
        return table
    where = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    table = table.to(where)
    distributed.all_reduce(table)
    return table.cpu()


def validation(
    config: EvalConfig, run: TrainConfig | None, model, tokenizer, batch, where, dtype, ranks, say
) -> dict:
    "Compute the loss on the first tokens of the validation shards."
    from gpt2edu.machine.distributed import rank0_first
    from gpt2edu.evaluate.validation import validation_loss
    from gpt2edu.data.cache import prepare_data
    from gpt2edu.data.shards import open_shards

    n = config.val_tokens or (run.val_tokens if run and not config.shards else 10_485_760)
    with rank0_first(ranks):
        folder = Path(config.shards) if config.shards else prepare_data(run, say)[1]
        if not folder.is_dir():
            raise FileNotFoundError(
                f"no folder {folder}; expected shards, as gpt2edu_prepare writes them"
            )
        shards = open_shards(folder, "val", tokenizer.hash, n_vocab=tokenizer.n_vocab)
    T, overlap = model.config.block_size, run.val_overlap if run else 0.0
    loss = validation_loss(model, shards, n, T, batch, overlap, where, dtype, ranks)
    return {"val_loss": round(loss, 6), "val_tokens": min(n, len(shards) - 1)}


def choices(
    items, model, tokenizer, convention, start, batch, where, dtype, ranks
) -> dict:  # name: figures
    "Answer items; every rank takes its share."
    from gpt2edu.evaluate import hellaswag
    from gpt2edu.machine import device

    encoded = [hellaswag.encode_item(item, tokenizer, start, convention) for item in items]
    with device.autocast(where, dtype):
        nats = hellaswag.ending_nats(model, encoded, batch, ranks.rank, ranks.world_size)
    return hellaswag.score(sum_over_ranks(nats), encoded, model.config.block_size, convention)


def evaluate(
    config: EvalConfig,
    say: Callable = lambda line: None,  # told each figure as it is known; on rank 0 only
) -> dict:  # all figures, with predictions; the same on every rank
    "Judge a model. ValueError, FileNotFoundError, OSError: one line."
    from gpt2edu.train.runs import OPENAI, find_run
    from gpt2edu.data.shards import write_atomically

    names, items, run, data = CONVENTIONS[config.convention], None, None, config.data or HUB
    if (
        config.model not in OPENAI
        and not (Path(config.model or "") / "model.safetensors").is_file()
    ):
        run = read_run(find_run(config.model, config.out_dir))
    tasks = choose_tasks(config, run)
    if "hellaswag" in tasks and not is_hub_name(data):
        items = get_items(
            data, names, config.limit
        )  # what is wrong with a file is said before PyTorch is loaded
    if config.out and not Path(config.out).absolute().parent.is_dir():
        raise FileNotFoundError(f"no folder for {config.out}; make it first")
    if config.out and Path(config.out).exists() and not Path(config.out).is_file():
        raise ValueError(f"out={config.out!r} is no file; name one, for example result.json")

    from gpt2edu.machine import device, distributed as dist
    from gpt2edu.text.corpus import story_items
    from gpt2edu.model.gpt import num_params
    from gpt2edu.train.runs import load_model
    from gpt2edu.train.selftest import tested_device

    ranks = dist.start(device.pick_device(config.device).value.type)
    tell, failed = say if ranks.is_main else lambda line: None, True
    try:
        kind, agree = (config.device, config.dtype, config.self_test), dist.agreement(ranks)
        where = tested_device(*kind, tell, agree, update=False).value
        dtype = device.pick_dtype(config.dtype, where)
        if config.dtype != "fp32":
            device.set_precision(where)  # TF32, where published figures have fp32
        batch = config.batch_size or (8 if where.type == "cpu" else 64)
        with dist.rank0_first(ranks):  # a download happens once
            model, tokenizer = load_model(config.model, config.out_dir, where)
            if "hellaswag" in tasks and items is None:
                items = get_items(data, names, config.limit)
        name = config.model or f"{find_run(None, config.out_dir)}"
        found = {
            "model": name,
            "parameters": num_params(model),
            "dtype": str(dtype.value),
            "tasks": list(tasks),
        }
        tell(
            f"model: {name}, {num_params(model):,} parameters; {device.describe(where)}; {dtype}; ranks: {ranks.world_size}"
        )

        def ask(title, items, convention, start):
            began = time.perf_counter()
            figures = choices(
                items, model, tokenizer, convention, start, batch, where, dtype.value, ranks
            )
            seconds = time.perf_counter() - began
            for figure, f in figures.items():
                counts = f"{f['right']:,} of {f['n']:,} right"
                tell(
                    f"{title} {figure:9} {f['accuracy']:.4f} ± {f['error']:.4f}   {counts}; {len(items) / seconds:,.1f} items/s"
                )
            return figures

        if "hellaswag" in tasks:
            found["data"] = data
            found["hellaswag"] = {c: ask(f"hellaswag {c:8}", items, c, ()) for c in names}
        if "stories" in tasks:
            asked = story_items(min(config.choice_items, config.limit or config.choice_items))
            found["stories"] = ask("stories plain     ", asked, "plain", [tokenizer.eot])
        if "val" in tasks:
            found |= validation(
                config, run, model, tokenizer, batch, where, dtype.value, ranks, tell
            )
            tell(
                f"validation loss    {found['val_loss']:.4f} nats/token on {found['val_tokens']:,} tokens"
            )
        if config.out and ranks.is_main:
            write_atomically(Path(config.out), (json.dumps(found, indent=1) + "\n").encode())
            tell(f"written: {config.out}")
        failed = False
    finally:
        dist.stop(failed)
    return found

# %% ../../nbs/tough/ch17b_report.ipynb #6c213bb8
def figures(
    found: dict,  # from `evaluate`
) -> dict:  # documented in book/commands.qmd
    "Leave the predictions out, and name every number's unit."

    def brief(scores):
        keys = {
            "accuracy": "accuracy",
            "error": "standard_error",
            "right": "right_items",
            "n": "items",
        }
        return {
            name: {new: score[old] for old, new in keys.items()} for name, score in scores.items()
        }

    out = {
        k: found[k]
        for k in ("model", "parameters", "dtype", "tasks", "data", "val_tokens")
        if k in found
    }
    out["dtype"] = out["dtype"].removeprefix("torch.")
    if "val_loss" in found:
        out["val_loss_nats_per_token"] = found["val_loss"]
    if "hellaswag" in found:
        out["hellaswag"] = {
            convention: brief(scores) for convention, scores in found["hellaswag"].items()
        }
    if "stories" in found:
        out["stories"] = brief(found["stories"])
    return out
