"""Find a run by its name, choose the folder of a new one, and load a model."""

# Made by tools/book.py from ../../book/tough/ch17a_runs.md: edit that, then `make book`.

# %% auto #0
__all__ = ['OPENAI', 'OLDER', 'FIXED', 'AboveZero', 'is_exported', 'check_is_run', 'written',
           'latest_run', 'find_run', 'auto_run', 'holds_run', 'new_run', 'read_config', 'Read',
           'Scaler', 'RunState', 'check_state', 'begun_source', 'check_sizes', 'load_run',
           'load_model']

# %% ../../nbs/tough/ch17a_runs.ipynb #9c06b0bb
import re
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from gpt2edu.machine.state import Count, Hash, Number, check, hints_of, loads, read_json
from gpt2edu.text.files import typed
from gpt2edu.train.config import MAY_CHANGE, MODEL_SIZES, TrainConfig, padded

OPENAI = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")

# %% ../../nbs/tough/ch17a_runs.ipynb #5878736e
def is_exported(name: str | Path) -> bool:
    "Whether this is a folder as transformers writes it, whole or not."
    if (Path(name) / "model.safetensors").is_file():
        return True
    try:
        config = loads((Path(name) / "config.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "model_type" in config


def check_is_run(folder: Path):
    "Refuse a folder of transformers as a run. ValueError, FileNotFoundError: one line."
    if is_exported(folder):
        from gpt2edu.model.pretrained import find_model

        find_model(folder)  # says what is missing in it
        raise ValueError(
            f"{folder} is a model as transformers writes it, not a run; it has no state to resume; "
            f"open it with: gpt2edu_generate --run {typed(folder)}"
        )


def written(run: Path) -> int:
    "Return the time of the last write to a run, in nanoseconds."
    log = run / "log.jsonl"
    return (log if log.exists() else run / "config.json").stat().st_mtime_ns


def latest_run(out_dir: str | Path) -> Path:
    "Find the run that was written last. FileNotFoundError, one line, without one."
    found = [p.parent for p in Path(out_dir).glob("*/config.json") if not is_exported(p.parent)]
    if not found:
        more = "" if str(out_dir) == "runs" else f" --out_dir {typed(out_dir)}"
        what = f"there is no run in {out_dir}/ yet"
        raise FileNotFoundError(f"{what}; make one with: gpt2edu_train{more}")
    return max(found, key=written)


def find_run(name: str | None, out_dir: str | Path) -> Path:
    "Find a run by its folder or its name; None: the latest."
    if name is None:
        return latest_run(out_dir)
    for path in (Path(name), Path(out_dir) / name):
        check_is_run(path)
        if (path / "config.json").is_file():
            return path
    raise FileNotFoundError(
        f"{name} is not a run: there is no config.json in {name}/ or {out_dir}/{name}/"
    )


def auto_run(out_dir: str | Path, name: str) -> Path | None:  # None before the first
    "Find the latest run of this name, or of this preset: `tiny`, `tiny-2`, …"
    all_runs = [p.parent for p in Path(out_dir).glob(f"{name}*/config.json")]
    found = [run for run in all_runs if re.fullmatch(rf"{re.escape(name)}(-\d+)?", run.name)]
    return max(found, key=written, default=None)


def holds_run(folder: str | Path) -> bool:
    "Whether a folder holds a run, or the rest of one."
    parts = ("config.json", "log.jsonl", "checkpoints")
    return any((Path(folder) / part).exists() for part in parts)


def new_run(config: TrainConfig) -> Path:
    "Choose the folder of a new run. ValueError, one line, if `config.name` is taken."
    root = Path(config.out_dir)
    if config.name:
        if holds_run(root / config.name):
            raise ValueError(
                f"the run {root / config.name} exists; "
                f"go on with --resume {typed(root / config.name)}, or choose another --name"
            )
        return root / config.name
    names = [config.preset, *(f"{config.preset}-{i}" for i in range(2, 10_000))]
    return next(root / n for n in names if not holds_run(root / n))

# %% ../../nbs/tough/ch17a_runs.ipynb #0f13a1e2
# fields that earlier versions did not write
OLDER = {"self_test": True, "separator": TrainConfig.separator}


def read_config(folder: Path) -> TrainConfig:
    "Read the config of a run. ValueError, one line."
    path = Path(folder) / "config.json"
    fix = "restore it from a copy, or begin another run"
    saved = read_json(path, TrainConfig, fix, older=OLDER)
    try:
        return TrainConfig(**saved)
    except ValueError as e:
        raise ValueError(f"{path}: {e}; {fix}") from None

# %% ../../nbs/tough/ch17a_runs.ipynb #544de585
FIXED = {k: kind for k, kind in hints_of(TrainConfig).items() if k not in MAY_CHANGE}
del FIXED["separator"]  # it is in the name of the data
FIXED |= {"tokenizer_hash": Hash, "data": Annotated[str, re.compile(r"[^/\\]+")]}
AboveZero = Annotated[int, 1]


class Read(TypedDict):
    "What a run reads."

    source: dict[str, Any]  # as the manifest has it
    train: list[Hash]  # of the shards, in order
    val: list[Hash]


class Scaler(TypedDict):
    "The state of torch's GradScaler, under fp16."

    scale: Annotated[float, 0]
    growth_factor: Annotated[float, 1]
    backoff_factor: Annotated[float, 0, 1]
    growth_interval: AboveZero
    _growth_tracker: Count


class RunState(TypedDict):
    "What a trainer needs for the next step."

    step: Count
    position: Count  # windows
    seconds: Annotated[float, 0]
    config: TypedDict("Fixed", FIXED)
    data: NotRequired[Read]  # what is not required is newer than the first runs
    val_loss: Number
    best: NotRequired[Number]
    judged: NotRequired[Count]  # a step
    rng: dict[str, str]
    scaler: dict[str, Any]  # empty, or a `Scaler`
    threads: NotRequired[AboveZero]
    ranks: NotRequired[AboveZero]


def check_state(path: Path, state: dict):
    "Refuse a state that contradicts itself. ValueError, one line: file, key, got, expected."
    try:
        if state["scaler"]:
            check(state["scaler"], Scaler, "state.scaler")
        c, step = state["config"], state["step"]
        position = step * (c["total_batch"] // c["block_size"])
        if state["position"] != position:
            raise ValueError(f"state.position is {state['position']}, expected {position} by step")
        if not 0 <= state.get("judged", 0) <= step:
            raise ValueError(f"state.judged is {state['judged']}, expected {step} at most")
    except ValueError as e:
        raise ValueError(f"{path / 'state.json'}: {e}; use an earlier checkpoint") from None

# %% ../../nbs/tough/ch17a_runs.ipynb #4bb0bc99
def begun_source(
    config: TrainConfig,  # what is asked for now
    state: dict,  # of the run's latest checkpoint, a `RunState`; {} without one
) -> str | None:  # SHA-256 of the text that the run began with; None if unknown
    "Return the hash of the text that a run has read so far."
    from gpt2edu.data.shards import MANIFEST, read_manifest

    choices = state.get("config", {})
    if choices.get("dataset") != [*config.dataset]:
        return None  # another dataset is another mistake, with a line of its own
    if "data" in state:
        return state["data"]["source"].get("sha256")
    folder = Path(config.data_dir) / str(choices.get("data"))
    manifest = read_manifest(folder) if (folder / MANIFEST).exists() else None
    return (manifest or {}).get("source", {}).get("sha256")

# %% ../../nbs/tough/ch17a_runs.ipynb #53b11475
def check_sizes(path: Path, choices: dict, weights: dict):
    "Refuse sizes other than those of the weights. ValueError, one line."
    found = {"n_layer": len({k.split(".")[2] for k in weights if k.startswith("transformer.h.")})}
    for name, sides in (("wte", ("n_embd",)), ("wpe", ("block_size", "n_embd"))):
        table = weights.get(f"transformer.{name}.weight")
        if table is None or table.ndim != 2:
            got = "missing" if table is None else f"of {table.ndim} dimensions"
            raise ValueError(
                f"{path / 'model.safetensors'}: transformer.{name}.weight is {got}, "
                "expected a matrix; use an earlier checkpoint"
            )
        found |= dict(zip(reversed(sides), reversed(table.shape), strict=False))
    for key, n in found.items():
        if choices[key] != n:
            what = f"state.config.{key} is {choices[key]}, expected {n} by model.safetensors"
            raise ValueError(f"{path / 'state.json'}: {what}; use an earlier checkpoint")


def load_run(folder: Path, where="cpu"):  # a GPT in evaluation mode, its tokenizer
    "Load the latest checkpoint of a run. FileNotFoundError, ValueError: one line."
    from gpt2edu.train import checkpoint
    from gpt2edu.model.gpt import GPT, GPTConfig
    from gpt2edu.text.tokenizer import Tokenizer

    begun = read_config(folder) if (Path(folder) / "config.json").exists() else None
    asked = {k: getattr(begun, k) for k in MODEL_SIZES} if begun else None
    found = checkpoint.load_latest(Path(folder) / "checkpoints", config=asked, kind=RunState)
    if found is None:
        raise FileNotFoundError(
            f"{folder} has no checkpoint yet; go on with: gpt2edu_train --resume {typed(folder)}"
        )
    path, saved = found
    tokenizer = Tokenizer.load(folder)
    c = saved.state["config"]
    if c["tokenizer_hash"] != tokenizer.hash:
        raise ValueError(
            f"{folder}/tokenizer.json is not the tokenizer of {path}; "
            "restore the one it was trained with"
        )
    check_state(path, saved.state)
    check_sizes(path, c, saved.model)
    sizes = {k: c[k] for k in MODEL_SIZES}
    try:
        model = GPT(GPTConfig(**sizes, vocab_size=padded(tokenizer.n_vocab)))
    except ValueError as e:
        raise ValueError(f"{path / 'state.json'}: state.config: {e}") from None
    checkpoint.load_weights(model, saved.model, path / checkpoint.MODEL)
    return model.to(where).eval(), tokenizer


def load_model(
    name: str | None,  # a run's folder or name, an exported folder, or a name of OpenAI's
    out_dir: str | Path = "runs",  # where runs are kept
    where="cpu",  # device
    own: str | None = None,  # gpt2 or a tokenizer.json, for a folder without one
):  # a GPT in evaluation mode, its tokenizer
    """Load a run, an exported folder, or a model of the hub such as `gpt2`.

    FileNotFoundError, ValueError: one line.
    """
    from gpt2edu.text.tokenizer import get_tokenizer

    chosen = get_tokenizer(own) if own is not None else None
    if name is not None and (name in OPENAI or is_exported(name)):
        from gpt2edu.model.pretrained import from_pretrained

        model, tokenizer = from_pretrained(name, tokenizer=chosen)
        if tokenizer is None:
            raise FileNotFoundError(
                f"{name} has no tokenizer.json; name its tokenizer with --tokenizer, "
                "for example --tokenizer gpt2"
            )
        return model.to(where).eval(), tokenizer
    model, tokenizer = load_run(find_run(name, out_dir), where)
    if chosen and chosen.hash != tokenizer.hash:
        raise ValueError(
            f"the run has the tokenizer {tokenizer.name}, not {own}; leave --tokenizer out"
        )
    return model, tokenizer
