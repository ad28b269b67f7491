"""Find a run by its name, choose the folder of a new one, and load a model."""

# Made by tools/book.py from ../../book/tough/ch17a_runs.md: edit that, then `make book`.

# %% auto #0
__all__ = ['OPENAI', 'STORED', 'ADAPTER', 'OLDER', 'FIXED', 'AboveZero', 'is_exported',
           'is_adapter', 'check_is_run', 'written', 'elsewhere', 'runs_in', 'latest_run',
           'other_name', 'find_run', 'is_stored', 'model_place', 'auto_run', 'holds_run', 'new_run',
           'read_config', 'Adapted', 'fits_stored', 'base_of', 'followed', 'Read', 'Scaler',
           'RunState', 'check_state', 'begun_source', 'check_sizes', 'load_run', 'taught',
           'load_adapted', 'load_model']

# %% ../../nbs/tough/ch17a_runs.ipynb #9c06b0bb
import glob
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import gpt2edu
from gpt2edu.machine.state import Count, Hash, Number, check, hints_of, loads, read_json
from gpt2edu.model.variants import GPT2_BLOCK
from gpt2edu.text.files import typed
from gpt2edu.train.config import MAY_CHANGE, MODEL_SIZES, NEWER, PRESETS, TrainConfig, padded

OPENAI = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
STORED = Path(gpt2edu.__file__).parent / "stored"  # models that come with the package
ADAPTER = "adapter_config.json"  # as in model.lora, which needs PyTorch; a test compares them

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


def is_adapter(name: str | Path) -> bool:
    "Whether this is the folder of an adapter."
    return (Path(name) / ADAPTER).is_file()


def check_is_run(folder: Path):
    "Refuse a folder of transformers as a run. ValueError, FileNotFoundError: one line."
    if is_adapter(folder):
        raise ValueError(
            f"{folder} is an adapter, not a run; it has no state to resume; open it with: "
            f"gpt2edu_generate --run {typed(folder)}, or begin a run with --init_from"
        )
    if is_exported(folder):
        from gpt2edu.model.pretrained import find_model

        find_model(folder)  # says what is missing in it
        raise ValueError(
            f"{folder} is a model as transformers writes it, not a run; it has no state to resume; "
            f"open it with: gpt2edu_generate --run {typed(folder)}, or begin a run with --init_from"
        )


def written(run: Path) -> int:
    "Return the time of the last write to a run, in nanoseconds."
    log = run / "log.jsonl"
    return (log if log.exists() else run / "config.json").stat().st_mtime_ns


def elsewhere(out_dir: str | Path) -> str:
    "Write the flag for the folder of runs, where it is not the usual one."
    return "" if str(out_dir) == "runs" else f" --out_dir {typed(out_dir)}"


def runs_in(out_dir: str | Path) -> list[Path]:
    "List the runs in a folder, the one that was written last at the end."
    found = [p.parent for p in Path(out_dir).glob("*/config.json") if not is_exported(p.parent)]
    return sorted(found, key=written)


def latest_run(out_dir: str | Path) -> Path:
    "Find the run that was written last. FileNotFoundError, one line, without one."
    if found := runs_in(out_dir):
        return found[-1]
    what = f"there is no run in {out_dir}/ yet"
    raise FileNotFoundError(f"{what}; make one with: gpt2edu_train{elsewhere(out_dir)}")


def other_name(name: str, out_dir: str | Path) -> str:
    "Say what to name, or to type, where no run has this name."
    if Path(name).is_file():
        return "it is a file; name the folder of a model"
    if name in OPENAI or is_stored(name):
        return f"begin a run with its weights: gpt2edu_train --init_from {name}{elsewhere(out_dir)}"
    if name in PRESETS:
        return f"train it with: gpt2edu_train --preset {name}{elsewhere(out_dir)}"
    if found := [run.name for run in runs_in(out_dir)]:
        return f"the latest runs there are {', '.join(found[:-4:-1])}"
    return f"make one with: gpt2edu_train{elsewhere(out_dir)}"


def find_run(name: str | None, out_dir: str | Path) -> Path:
    "Find a run by its folder or its name; None: the latest. FileNotFoundError, ValueError."
    if name is None:
        return latest_run(out_dir)
    if not name:
        raise ValueError("the name of the run is empty; name one, or leave it out for the latest")
    for path in (Path(name), Path(out_dir) / name):
        check_is_run(path)
        if (path / "config.json").is_file():
            return path
    raise FileNotFoundError(
        f"{name} is not a run: there is no config.json in {name}/ or {out_dir}/{name}/; "
        f"{other_name(name, out_dir)}"
    )


def is_stored(name: str) -> bool:
    "Whether the package brings a model of this name."
    return Path(name).name == name and is_exported(STORED / name)


def model_place(
    name: str
    | None,  # a run's folder or name, an exported folder, an adapter, a stored model, gpt2
    out_dir: str | Path = "runs",  # where runs are kept
) -> str | Path:  # OpenAI's name, or a folder
    "Find a model of any kind; a run comes before a stored model of its name. FileNotFoundError."
    if name in OPENAI:
        return name
    if name and (is_adapter(name) or is_exported(name)):
        return Path(name)
    if (short := (name or "").removeprefix("openai-community/")) != name and short in OPENAI:
        return short
    try:
        return find_run(name, out_dir)
    except FileNotFoundError:
        if name and is_stored(name):
            return STORED / name
        raise


def auto_run(out_dir: str | Path, name: str) -> Path | None:  # None before the first
    "Find the latest run of this name, or of this preset: `tiny`, `tiny-2`, …"
    all_runs = [p.parent for p in Path(out_dir).glob(f"{glob.escape(name)}*/config.json")]
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
OLDER = {"self_test": True, "separator": TrainConfig.separator, "profile": 0}
OLDER |= {"recompute": False, "shard": False} | GPT2_BLOCK | NEWER


def read_config(folder: Path) -> TrainConfig:
    "Read the config of a run. ValueError, one line."
    path = Path(folder) / "config.json"
    fix = "restore it from a copy, or begin another run"
    saved = read_json(path, TrainConfig, fix, older=OLDER)
    try:
        config = TrainConfig(**saved)
    except ValueError as e:
        raise ValueError(f"{path}: {e}; {fix}") from None
    own, named = path.with_name("tokenizer.json"), config.tokenizer in ("gpt2", "train")
    if named or os.path.exists(config.tokenizer) or not own.exists():
        return config
    return replace(config, tokenizer=str(own))

# %% ../../nbs/tough/ch17a_runs.ipynb #0400da44
class Adapted(TypedDict):
    "What an adapter's config says about its base model."

    base_model_name_or_path: NotRequired[str | None]


def fits_stored(adapter: Path, name: str) -> bool:
    "Whether an adapter was trained on the stored model of a name. ValueError, FileNotFoundError."
    from gpt2edu.model.lora import WEIGHTS, base_hash, read_sides
    from gpt2edu.model.pretrained import from_pretrained

    began_with = read_sides(adapter / WEIGHTS)[1].get("base_sha256")
    return began_with == base_hash(from_pretrained(STORED / name)[0])


def base_of(folder: Path, out_dir: str | Path) -> str | Path:  # as `model_place`
    "Find the base model of an adapter. FileNotFoundError, ValueError: one line."
    path = folder / ADAPTER
    said = read_json(path, Adapted, "save the adapter again", others=True)
    try:
        if not (base := said.get("base_model_name_or_path")):
            raise FileNotFoundError("it names none")
        try:
            found = model_place(base, folder.resolve().parent.parent)
        except (FileNotFoundError, ValueError):
            found = model_place(base, out_dir)
    except FileNotFoundError as e:
        raise FileNotFoundError(
            f"{folder} is an adapter, and its base model is not here ({e}); "
            f"write its place into {path}, base_model_name_or_path"
        ) from None
    both = is_stored(base) and found != STORED / base  # a run has the name of a stored model
    return STORED / base if both and fits_stored(folder, base) else found


def followed(place: str | Path, out_dir: str | Path) -> list[str | Path]:
    "Follow an adapter to the model that is none: all on the way. FileNotFoundError, ValueError."
    found = [place]
    while not isinstance(found[-1], str) and is_adapter(found[-1]):
        base = base_of(found[-1], out_dir)
        if not isinstance(base, str) and any(base.samefile(p) for p in found):
            path = found[-1] / ADAPTER
            raise ValueError(f"{path}: names itself as its base model; write the place of another")
        found.append(base)
    return found

# %% ../../nbs/tough/ch17a_runs.ipynb #544de585
FIXED = {k: kind for k, kind in hints_of(TrainConfig).items() if k not in MAY_CHANGE}
del FIXED["separator"]  # it is in the name of the data
# newer than the first runs
FIXED |= {k: NotRequired[FIXED[k]] for k in (GPT2_BLOCK | NEWER).keys() & FIXED.keys()}
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
    start: NotRequired[Hash]  # of the weights of `init_from`, where a resume reads them again
    reward: NotRequired[Hash]  # of the file of `--reward`
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
    tables = {"wte": ("n_embd",), "wpe": ("block_size", "n_embd")}
    if choices.get("position") == "rope":
        del tables["wpe"]
    for name, sides in tables.items():
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
    from gpt2edu.model.lora import add_lora, merge_lora
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
    sizes = {k: (GPT2_BLOCK | c)[k] for k in MODEL_SIZES}
    try:
        model = GPT(GPTConfig(**sizes, vocab_size=padded(tokenizer.n_vocab)))
    except ValueError as e:
        raise ValueError(f"{path / 'state.json'}: state.config: {e}") from None
    if rank := c.get("lora_rank"):
        add_lora(model, rank, c["lora_alpha"], tuple(c["lora_parts"]))
    checkpoint.load_weights(model, saved.model, path / checkpoint.MODEL)
    return merge_lora(model).to(where).eval(), tokenizer


def taught(
    tokenizer,  # of an adapter's base model
    adapter: Path,
):  # the tokenizer that the adapter was trained with
    "Add the tokens of a chat where an adapter brings a tokenizer with them. ValueError, one line."
    from gpt2edu.text.chat import with_chat
    from gpt2edu.text.tokenizer import get_tokenizer

    file = adapter / "tokenizer.json"
    if not file.is_file():
        return tokenizer
    mine = get_tokenizer(str(file))
    if mine.hash not in (tokenizer.hash, with_chat(tokenizer).hash):
        raise ValueError(
            f"{file} is not the tokenizer of the base model; take it away, or name in "
            f"{adapter / ADAPTER} the model that the adapter was trained on"
        )
    return mine


def load_adapted(folder: Path, out_dir, where, own: str | None):  # a GPT, its tokenizer
    "Load an adapter's base model, and merge the adapter into it. ValueError, one line."
    from gpt2edu.model.lora import load_adapter, merge_lora, read_adapter
    from gpt2edu.model.pretrained import with_rows

    *adapters, base = followed(folder, out_dir)
    for adapter in adapters:
        read_adapter(adapter)  # finds a mistake before the base model is loaded
    model, tokenizer = load_model(str(base), out_dir, "cpu", own)
    for adapter in reversed(adapters):
        known, tokenizer = tokenizer.hash, taught(tokenizer, adapter)
        if tokenizer.hash != known:
            model = with_rows(model, padded(tokenizer.n_vocab))
        model = merge_lora(load_adapter(model, adapter))
    return model.to(where).eval(), tokenizer


def load_model(
    name: str | None,  # as for `model_place`
    out_dir: str | Path = "runs",  # where runs are kept
    where="cpu",  # device
    own: str | None = None,  # gpt2 or a tokenizer.json, for a folder without one
):  # a GPT in evaluation mode, its tokenizer
    """Load a run, an exported folder, an adapter, or a model of the hub such as `gpt2`.

    FileNotFoundError, ValueError: one line.
    """
    from gpt2edu.text.tokenizer import get_tokenizer

    place = model_place(name, out_dir)
    if not isinstance(place, str) and is_adapter(place):
        return load_adapted(place, out_dir, where, own)
    chosen = get_tokenizer(own) if own is not None else None
    if isinstance(place, str) or is_exported(place):
        from gpt2edu.model.pretrained import from_pretrained

        model, tokenizer = from_pretrained(place, tokenizer=chosen)
        if tokenizer is None:
            raise FileNotFoundError(
                f"{name} has no tokenizer.json; name its tokenizer with --tokenizer, "
                "for example --tokenizer gpt2"
            )
        return model.to(where).eval(), tokenizer
    model, tokenizer = load_run(place, where)
    if chosen and chosen.hash != tokenizer.hash:
        raise ValueError(
            f"the run has the tokenizer {tokenizer.name}, not {own}; leave --tokenizer out"
        )
    return model, tokenizer
