"""Atomic, checksummed checkpoints without pickle, from which a run resumes to the same bits."""

# Made by tools/book.py from ../../book/tough/ch17_checkpoint.md: edit that, then `make book`.

# %% auto #0
__all__ = ['FORMAT', 'MODEL', 'OPTIM', 'STATE', 'DTYPES', 'STEP', 'REMEDY', 'Files', 'KEPT', 'FREE',
           'pack', 'untie', 'flatten', 'unflatten', 'rng_state', 'set_rng_state', 'sealed',
           'unseal', 'write_file', 'discard', 'Part', 'named_steps', 'is_whole', 'saved_steps',
           'latest', 'write', 'prepare', 'save', 'Content', 'Step', 'fit', 'read_content', 'Group',
           'Rest', 'read_tensors', 'read_optim', 'read_model', 'Checkpoint', 'first_difference',
           'read_checked', 'check_config', 'load', 'names_and_marks', 'latest_state', 'load_latest',
           'words', 'load_weights', 'check_group', 'check_kept', 'check_optim', 'gathered',
           'AsyncSaver']

# %% ../../nbs/tough/ch17_checkpoint.ipynb #d9b041e4
import base64
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gpt2edu.machine.atomic import sync_folder
from gpt2edu.train.optim import split_like, whole_tensor
from gpt2edu.machine.state import Count, Hash, check, loads, parse, shown
from gpt2edu.model.variants import GPT2_BLOCK

# %% ../../nbs/tough/ch17_checkpoint.ipynb #a390ff23
FORMAT = "gpt2edu checkpoint 1"
MODEL, OPTIM, STATE = "model.safetensors", "optim.safetensors", "state.json"
# torch's name: the format's name
DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
DTYPES |= {"int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8"}
DTYPES |= {"uint8": "U8", "bool": "BOOL"}


def pack(
    tensors: dict[str, Tensor],  # by name, any shapes; on any device
    metadata: dict[str, str] | None = None,  # free text that travels in the header
) -> Iterator[bytes | memoryview]:  # 8 bytes of length, a JSON header, then each tensor's bytes
    """Lay tensors out as a safetensors file, piece by piece.

    Source: github.com/huggingface/safetensors, Format.
    """
    header = {"__metadata__": metadata} if metadata else {}
    # wide first: all aligned
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    at = 0
    for name in names:
        t = tensors[name]
        entry = {"dtype": DTYPES[str(t.dtype).removeprefix("torch.")], "shape": list(t.shape)}
        header[name] = entry | {"data_offsets": [at, at + t.nbytes]}
        at += t.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # to a multiple of 8
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        # (n,) also for a scalar, whose shape is ()
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        yield memoryview(flat.view(torch.uint8).numpy())

# %% ../../nbs/tough/ch17_checkpoint.ipynb #c6ab6a04
def untie(
    model_state: dict[str, Tensor],  # a model's state_dict
) -> tuple[dict[str, Tensor], dict[str, str]]:  # each tensor once; {second name: first name}
    "Store once what two names share, without the prefixes that `torch.compile` and DDP add."
    first, tensors, tied = {}, {}, {}
    for wrapped, t in model_state.items():
        name = re.sub(r"^((_orig_mod|module)\.)+", "", wrapped)
        key = (t.data_ptr(), t.shape, t.stride(), t.dtype, t.device) if t.numel() else name
        if first.setdefault(key, name) == name:
            tensors[name] = t
        else:
            tied[name] = first[key]
    return tensors, tied

# %% ../../nbs/tough/ch17_checkpoint.ipynb #a4ac09e1
def flatten(optim_states: list[dict]) -> tuple[dict[str, Tensor], str]:
    """Part optimizers' state_dicts into tensors and JSON.

    A tensor is named like `0.3.exp_avg`: optimizer, parameter, key.
    """
    tensors, rest = {}, []
    for i, saved in enumerate(optim_states):
        plain = []
        for j, entry in saved["state"].items():
            for key, value in entry.items():
                if isinstance(value, Tensor):
                    tensors[f"{i}.{j}.{key}"] = value
                else:
                    plain.append((j, key, value))
        rest.append({"plain": plain, "param_groups": saved["param_groups"]})
    return tensors, json.dumps(rest)


def unflatten(tensors: dict[str, Tensor], text: str) -> list[dict]:
    "Undo `flatten`. JSON turned tuples such as betas into lists; all lists but `params` turn back."

    def turn_back(key, value):
        return tuple(value) if isinstance(value, list) and key != "params" else value

    optim_states = []
    for i, rest in enumerate(json.loads(text)):
        mine = [(name.split(".", 2), t) for name, t in tensors.items()]
        entries = [(j, key, t) for (owner, j, key), t in mine if owner == str(i)]
        state = {}
        for j, key, value in entries + rest["plain"]:
            state.setdefault(int(j), {})[key] = value
        groups = [{k: turn_back(k, v) for k, v in g.items()} for g in rest["param_groups"]]
        optim_states.append({"state": state, "param_groups": groups})
    return optim_states

# %% ../../nbs/tough/ch17_checkpoint.ipynb #bececfaa
def rng_state(generators: dict[str, torch.Generator] | None = None) -> dict[str, str]:
    "Write the state of torch's own generators and of explicit ones as base64 text, by name."
    states = {name: g.get_state() for name, g in (generators or {}).items()}
    states["cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return {name: base64.b64encode(s.numpy().tobytes()).decode() for name, s in states.items()}


def set_rng_state(
    saved: dict[str, str], generators: dict[str, torch.Generator] | None = None
) -> None:
    """Set back what `rng_state` wrote, for the same names; without a GPU, its state is skipped.

    ValueError, one line, for a text that holds none.
    """
    setters = {"cpu": torch.set_rng_state}
    if "cuda" in saved and torch.cuda.is_available():
        setters["cuda"] = torch.cuda.set_rng_state
    setters |= {name: g.set_state for name, g in (generators or {}).items()}
    for name, put in setters.items():
        try:
            raw = bytearray(base64.b64decode(saved[name], validate=True))
            put(torch.frombuffer(raw, dtype=torch.uint8))
        except (KeyError, ValueError, TypeError, RuntimeError):
            got = shown(saved.get(name))
            raise ValueError(f"rng.{name} is {got}, expected a generator's state") from None

# %% ../../nbs/tough/ch17_checkpoint.ipynb #07fa558f
def sealed(content: dict) -> bytes:
    "Write JSON whose last field is the SHA-256 of the rest."
    text = json.dumps(content, indent=1)
    seal = hashlib.sha256(text.encode()).hexdigest()
    return f'{text[:-2]},\n "sha256": "{seal}"\n}}\n'.encode()


def unseal(raw: bytes) -> dict:
    "Read what `sealed` wrote; ValueError if a single byte differs."
    text, _, seal = raw.rpartition(b',\n "sha256": ')
    text += b"\n}"  # `sealed` took these two away
    if seal != f'"{hashlib.sha256(text).hexdigest()}"\n}}\n'.encode():
        raise ValueError("the seal does not fit")
    return loads(text, nan=True)  # a loss may be NaN

# %% ../../nbs/tough/ch17_checkpoint.ipynb #93ee93b4
def write_file(path: Path, chunks) -> dict:
    "Write chunks and flush them to the disk; return size and SHA-256."
    digest = hashlib.sha256()
    size = 0
    with open(path, "xb") as f:
        for chunk in chunks:
            f.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        f.flush()
        os.fsync(f.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def discard(path: Path) -> None:
    "Delete a checkpoint in two moves, so that a half-deleted one never bears its name."
    doomed = path.with_name(f".tmp-{path.name}-{secrets.token_hex(8)}")
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)

# %% ../../nbs/tough/ch17_checkpoint.ipynb #d965759d
class Part(TypedDict):
    "What state.json says of another file."

    bytes: Count
    sha256: Hash


STEP = re.compile(r"(?:\.old-)?step_([0-9]+)")  # .old-: see `write`


def named_steps(folder: Path) -> list[Path]:
    "List the folders that have a checkpoint's name, lowest step first."
    paths = [*folder.glob(".old-step_*"), *folder.glob("step_*")]  # the sort is stable
    steps = {p: int(m[1]) for p in paths if (m := STEP.fullmatch(p.name))}
    return sorted(steps, key=steps.get)


def is_whole(path: Path) -> bool:
    """Whether state.json is sealed and the files have the sizes that it records.

    Hashes are left to `load`.
    """
    try:
        files = check(unseal((path / STATE).read_bytes()).get("files"), dict[str, Part], "files")
        return all((path / name).stat().st_size == entry["bytes"] for name, entry in files.items())
    except (OSError, ValueError):
        return False


def saved_steps(folder: Path) -> list[Path]:
    "List the whole checkpoints of a folder, lowest step first."
    return [p for p in named_steps(folder) if is_whole(p)]


def latest(folder: str | Path) -> Path | None:
    "Find the whole checkpoint with the highest step; None without one."
    return next(reversed(saved_steps(Path(folder))), None)

# %% ../../nbs/tough/ch17_checkpoint.ipynb #4f0f71cd
def write(
    folder: Path, model: dict, optim: dict, optim_json: str, content: dict, keep_last: int | None
) -> Path:
    "Write to a temporary folder, flush, rename: the checkpoint is there whole, or not at all."
    final = folder / f"step_{int(content['state']['step']):08d}"
    temp = folder / f".tmp-{final.name}-{secrets.token_hex(8)}"
    old = folder / f".old-{final.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".tmp-*"):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        temp.mkdir()
        files = {MODEL: write_file(temp / MODEL, pack(model))}
        files[OPTIM] = write_file(temp / OPTIM, pack(optim, {"optim": optim_json}))
        write_file(temp / STATE, [sealed(content | {"files": files})])
        sync_folder(temp)
        if final.exists():  # the old one steps aside, and `latest` still finds it
            if old.exists():
                discard(old)
            final.rename(old)
        temp.rename(final)
        sync_folder(folder)
        surplus = saved_steps(folder)[: -keep_last if keep_last else 0]
        aside = [p for p in named_steps(folder) if p.name.startswith(".old-")]
        for path in {*aside, *surplus} - {final}:
            discard(path)
    except BaseException as e:
        shutil.rmtree(temp, ignore_errors=True)
        if not isinstance(e, OSError):
            raise
        kept = f"the last whole checkpoint is {latest(folder) or 'none'}"
        error = OSError(
            f"could not save {final}: {e.strerror or e}; {kept}; "
            "free space or choose another folder"
        )
        error.errno = e.errno
        raise error from e
    return final


def prepare(
    folder: str | Path,  # the run's checkpoints, for example runs/tiny/checkpoints
    # model.state_dict(); compiled or DDP-wrapped names are made plain
    model_state: dict[str, Tensor],
    optim_states: list[dict],  # [o.state_dict() for o in optimizers]
    # all else the next step needs, as JSON: "step" at least, position, config, best loss, rng
    state: dict,
    keep_last: int | None = None,  # how many checkpoints to keep; None keeps all
) -> tuple:  # the arguments of `write`
    "Gather what is to be written. Raise ValueError for a `keep_last` that would keep nothing."
    if keep_last is not None and keep_last < 1:
        raise ValueError(
            f"keep_last={keep_last} would keep no checkpoint; use 1 or more, or None to keep all"
        )
    model, tied = untie(model_state)
    as_json = json.loads(json.dumps(state))  # a copy, as the file will hold it
    content = {"format": FORMAT, "state": as_json, "tied": tied}
    return Path(folder), model, *flatten(optim_states), content, keep_last


def save(
    folder: str | Path,
    model_state: dict,
    optim_states: list,
    state: dict,
    keep_last: int | None = None,
) -> Path:
    """Save a checkpoint whole or not at all (arguments: `prepare`).

    Raise OSError, one line: disk full, not writable.
    """
    return write(*prepare(folder, model_state, optim_states, state, keep_last))

# %% ../../nbs/tough/ch17_checkpoint.ipynb #de020caf
REMEDY = "use an earlier checkpoint"
Files = TypedDict("Files", {MODEL: Part, OPTIM: Part})


class Content(TypedDict):
    "What state.json holds, without its seal."

    format: str
    state: dict[str, Any]
    tied: dict[str, str]  # second name of a tensor: the first
    files: Files


class Step(TypedDict):
    "What every state holds."

    step: Count


def fit(path: Path, value: Any, kind: Any, key: str = "", others: bool = False):
    "Check a value of a file. ValueError, one line: file, key, got, expected."
    try:
        check(value, kind, key, others)
    except ValueError as e:
        raise ValueError(f"{path}: {e}; {REMEDY}") from None


def read_content(
    path: Path,  # of a checkpoint
    kind: Any = None,  # a TypedDict that the state must fit; None: only its step
) -> dict:
    "Read and check a checkpoint's `state.json`. ValueError, one line; FileNotFoundError."
    file = path / STATE
    raw = file.read_bytes()
    try:
        content = unseal(raw)
    except ValueError as e:
        why = "its SHA-256 does not fit" if "seal" in str(e) else f"not JSON ({e})"
        raise ValueError(f"{file} is cut short or altered: {why}; {REMEDY}") from None
    if content.get("format") != FORMAT:
        got = shown(content.get("format"))
        raise ValueError(f"{file}: format is {got}, expected {shown(FORMAT)}; update gpt2edu")
    fit(file, content, Content)
    fit(file, content["state"], Step, "state", others=True)
    if kind:
        fit(file, content["state"], kind, "state")
    step, name = content["state"]["step"], STEP.fullmatch(path.name)
    if name and int(name[1]) != step:
        what = f"state.step is {step}, expected {int(name[1])} by the name of its folder"
        raise ValueError(f"{file}: {what}; {REMEDY}")
    return content

# %% ../../nbs/tough/ch17_checkpoint.ipynb #d87ef1c8
class Group(TypedDict):
    "What every group of parameters holds."

    params: list[Count]


class Rest(TypedDict):
    "What `flatten` writes as JSON, of one optimiser."

    plain: list[tuple[Count, str, Any]]  # parameter, key, value
    param_groups: list[Group]


def read_tensors(path: Path, raw: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    "Read a safetensors file: its tensors, and the free text in its header. ValueError, one line."
    try:
        tensors = safetensors.torch.load(raw)
        header = loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    except (SafetensorError, ValueError, KeyError) as e:
        why = f"torch has no {e}" if isinstance(e, KeyError) else e
        raise ValueError(f"{path} is not a safetensors file ({why}); {REMEDY}") from None
    return tensors, header.get("__metadata__") or {}


def read_optim(path: Path, raw: bytes) -> list[dict]:  # state_dicts
    "Read what `flatten` made. ValueError, one line."
    tensors, text = read_tensors(path, raw)
    if "optim" not in text:
        raise ValueError(f"{path}: optim is missing in its header, expected JSON; {REMEDY}")
    rest = parse(text["optim"], list[Rest], f"{path}, optim", REMEDY, others=True, nan=True)
    for name in tensors:
        m = re.fullmatch(r"([0-9]{1,9})\.[0-9]{1,9}\..+", name)
        if not m or int(m[1]) >= len(rest):
            what = f"{shown(name)} is the name of a tensor, expected one like 0.3.exp_avg"
            raise ValueError(f"{path}: {what}, of {len(rest)} optimisers; {REMEDY}")
    return unflatten(tensors, text["optim"])


def read_model(path: Path, raw: bytes, tied: dict[str, str]) -> dict[str, Tensor]:
    "Read the weights, and give a second name to those that had one. ValueError, one line."
    model, _ = read_tensors(path, raw)
    for name, first in tied.items():
        if first not in model or name in model:
            what = f"tied.{name} is {shown(first)}, expected a tensor of {MODEL}"
            raise ValueError(f"{path.with_name(STATE)}: {what}; {REMEDY}")
    return model | {name: model[first] for name, first in tied.items()}

# %% ../../nbs/tough/ch17_checkpoint.ipynb #5ab6beac
@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory, as `load` returns it.

    All tensors are on the CPU; `load_state_dict` copies each to its parameter's device.
    """

    model: dict[str, Tensor]  # for model.load_state_dict, tied names included
    optim: list[dict]  # for [o.load_state_dict(s) for o, s in zip(optimizers, optim)]
    state: dict  # as given to `save`, tuples now lists


def first_difference(saved, asked, name: str = "") -> tuple | None:
    "Find the first field of `asked` that `saved` lacks or has otherwise: (name, saved, asked)."
    if isinstance(saved, dict) and isinstance(asked, dict):
        pairs = ((saved.get(k, "absent"), v, f"{name}.{k}".strip(".")) for k, v in asked.items())
        return next((d for d in (first_difference(*p) for p in pairs) if d), None)
    return None if saved == asked else (name, saved, asked)


def read_checked(
    path: Path,
    kind: Any = None,  # as for `read_content`
) -> tuple[dict, dict[str, bytes]]:  # what state.json says; the files
    "Read the files of a checkpoint and check every byte. ValueError names the bad file."
    for name in (STATE, MODEL, OPTIM):
        if not (path / name).is_file():
            raise ValueError(f"{path / name} is missing: the checkpoint is incomplete; {REMEDY}")
    content = read_content(path, kind)
    raw = {name: (path / name).read_bytes() for name in (MODEL, OPTIM)}
    for name, want in content["files"].items():
        if len(raw[name]) != want["bytes"]:
            raise ValueError(
                f"{path / name} has {len(raw[name])} bytes, expected {want['bytes']}: cut short; "
                f"{REMEDY}"
            )
        if hashlib.sha256(raw[name]).hexdigest() != want["sha256"]:
            raise ValueError(
                f"{path / name} was altered: its SHA-256 is not the one in {STATE}; {REMEDY}"
            )
    return content, raw


def check_config(
    path: Path,  # of the checkpoint
    saved: dict,  # the config in it
    config,  # dataclass or dict: the fields that must agree
) -> None:
    "Raise ValueError, one line, for the first field in which a checkpoint is of another model."
    saved = GPT2_BLOCK | saved  # what is older than these choices is a GPT-2
    asked = json.loads(json.dumps(asdict(config) if is_dataclass(config) else config))
    if found := first_difference(saved, asked):
        field, *values = found
        has, want = (text if len(text := repr(v)) < 60 else f"{text[:57]}..." for v in values)
        raise ValueError(
            f"{path} has {field}={has}, not {want}; use {field}={has} or another run folder"
        )


def load(
    path: str | Path,  # one checkpoint, such as `latest` returns
    *,
    # dataclass or dict: the fields of state["config"] that must agree, by default none
    config=None,
    kind: Any = None,  # a TypedDict that the state must fit; None: only its step
) -> Checkpoint:
    """Load a checkpoint after checking every byte.

    Raise ValueError naming the bad file or field; nothing is unpickled.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such checkpoint; expected a folder like step_00000250")
    content, raw = read_checked(path, kind)
    if config is not None:
        saved = content["state"].get("config", {})
        fit(path / STATE, saved, dict[str, Any], "state.config")
        check_config(path, saved, config)
    model = read_model(path / MODEL, raw.pop(MODEL), content["tied"])
    return Checkpoint(model, read_optim(path / OPTIM, raw.pop(OPTIM)), content["state"])

# %% ../../nbs/tough/ch17_checkpoint.ipynb #e424e586
def names_and_marks(folder: Path) -> dict[str, tuple | None]:
    "Map each checkpoint's name to inode and time of its state.json; None: half-written or gone."
    marks = {}
    for path in named_steps(folder):
        try:
            found = (path / STATE).stat()
            marks[path.name] = (found.st_ino, found.st_mtime_ns)
        except OSError:
            marks[path.name] = None
    return marks


def latest_state(
    folder: str | Path,
    kind: Any = None,  # as for `load`
) -> dict:  # {}: no checkpoint is whole
    "Read the state of the latest checkpoint, without its tensors. ValueError, one line."
    while path := latest(folder):
        try:
            return read_content(path, kind)["state"]
        except FileNotFoundError:
            pass  # deleted since it was found
    return {}


def load_latest(
    folder: str | Path,  # the run's checkpoints; a trainer may be writing there
    *,
    config=None,  # as for `load`
    kind: Any = None,
) -> tuple[Path, Checkpoint] | None:  # None: the folder holds none
    "Load the latest checkpoint; where it was replaced or deleted meanwhile, the one after it."
    folder = Path(folder)
    while True:
        before = names_and_marks(folder)
        path = latest(folder) or next(reversed(named_steps(folder)), None)
        try:
            if path is not None:
                return path, load(path, config=config, kind=kind)
            if names_and_marks(folder) == before:
                return None
        except (OSError, ValueError):
            if names_and_marks(folder) == before:
                raise

# %% ../../nbs/tough/ch17_checkpoint.ipynb #6be51f2c
def words(value: Any) -> str:
    "Describe a tensor by type and shape, any other value by itself."
    if not isinstance(value, Tensor):
        return shown(value)
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def load_weights(
    model: nn.Module,
    saved: dict[str, Tensor],  # tied names included
    path: Path,  # of the file, for messages
):
    "Put saved weights into a model. ValueError, one line, if they are another model's."
    want = model.state_dict()
    for name in want | saved:
        if name not in saved:
            raise ValueError(f"{path}: {name} is missing, expected {words(want[name])}; {REMEDY}")
        if name not in want:
            raise ValueError(f"{path}: {shown(name)} has no place in this model; {REMEDY}")
        if words(saved[name]) != words(want[name]):
            what = f"{name} is {words(saved[name])}, expected {words(want[name])}"
            raise ValueError(f"{path}: {what}; {REMEDY}")
    model.load_state_dict({name: split_like(t, want[name]) for name, t in saved.items()})


# what the optimisers of a run keep of each parameter
KEPT = {"AdamW": {"step", "exp_avg", "exp_avg_sq"}, "Muon": {"momentum_buffer"}}
# settings that may be others: rates, the momentum of the first versions, how a device computes
FREE = dict.fromkeys(("lr", "peak_lr"), Annotated[float, 0])
FREE |= {"momentum": Annotated[float, 0, 1]}
FREE |= dict.fromkeys(("fused", "foreach", "capturable"), bool | None)


def check_group(saved: dict, own: dict, key: str):
    "Compare the settings of a group of parameters. ValueError: key, got, expected."
    for name, want in own.items():
        # PyTorch adds settings from version to version, all of them switches
        got = saved.get(name, None if isinstance(want, (float, tuple, list)) else want)
        if name in FREE:
            check(got, FREE[name], f"{key}.{name}")
        elif got != want or type(got) is not type(want):
            expected = want if len(str(want)) < 60 else f"{len(want)} numbers"
            raise ValueError(f"{key}.{name} is {shown(got)}, expected {expected}")


def check_kept(kept: dict[int, dict], params: list[Tensor], names: set[str], key: str):
    "Compare what an optimiser remembers with its parameters. ValueError: key, got, expected."
    if extra := [j for j in kept if j >= len(params)]:
        raise ValueError(f"{key} has a parameter {extra[0]}, expected {len(params)} of them")
    for j, p in enumerate(params):
        entry = kept.get(j, {})
        if entry.keys() != names:
            got = ", ".join(sorted(map(shown, entry))) or "nothing"
            raise ValueError(f"{key}.{j} is {got}, expected {', '.join(sorted(names))}")
        for name, t in entry.items():
            want = words(p.new_zeros(()) if name == "step" else p)
            if words(t) != want:
                raise ValueError(f"{key}.{j}.{name} is {words(t)}, expected {want}")
        if "step" in entry:
            check(float(entry["step"]), float, f"{key}.{j}.step")


def check_optim(
    optimizers: list,  # AdamW and Muon, with their groups
    states: list[dict],  # `Checkpoint.optim`
    path: Path,  # of the file, for messages
    may_be_new: bool = False,  # whether it is possible that no step was taken
):
    "Refuse the states of other optimisers. ValueError, one line: file, key, got, expected."
    try:
        if len(states) != len(optimizers):
            raise ValueError(f"optim is a list of {len(states)}, expected {len(optimizers)}")
        for i, (o, saved) in enumerate(zip(optimizers, states, strict=True)):
            groups, own = saved["param_groups"], o.state_dict()["param_groups"]
            if len(groups) != len(own):
                what = f"optim[{i}].param_groups is a list of {len(groups)}, expected {len(own)}"
                raise ValueError(what)
            for k, pair in enumerate(zip(groups, own, strict=True)):
                check_group(*pair, f"optim[{i}].param_groups[{k}]")
            params = [p for g in o.param_groups for p in g["params"]]
            names = KEPT.get(type(o).__name__)
            if names and (saved["state"] or not may_be_new):
                check_kept(saved["state"], params, names, str(i))
    except ValueError as e:
        raise ValueError(f"{path}: {e}; {REMEDY}") from None

# %% ../../nbs/tough/ch17_checkpoint.ipynb #b33eff1a
def gathered(
    tree: Any,  # tensors in dicts and lists
    keep: bool,  # whether this rank wants the whole tensors, on its CPU
    seen: dict | None = None,  # those put together already: two names of one tensor stay one
) -> Any:  # the same tree; None for what is not kept
    "Put split tensors together, one after the other; every rank has to call it."
    seen = {} if seen is None else seen
    if isinstance(tree, dict):
        # a file gives its tensors in an order of its own on each rank
        found = {k: gathered(tree[k], keep, seen) for k in sorted(tree, key=str)}
        return {k: found[k] for k in tree}
    if isinstance(tree, list):
        return [gathered(v, keep, seen) for v in tree]
    if not isinstance(tree, Tensor):
        return tree
    if id(tree) not in seen:
        whole = whole_tensor(tree.detach())
        seen[id(tree)] = whole.cpu() if keep else None
    return seen[id(tree)]

# %% ../../nbs/tough/ch17_checkpoint.ipynb #1f0fa4a2
class AsyncSaver:
    "Save in a thread: `save` returns once all is copied; an error surfaces at the next call."

    def __init__(self):
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._job = None

    def save(
        self, folder: str | Path, model_state: dict, optim_states: list, state: dict, keep_last=None
    ) -> None:
        "Do as the function `save`, after waiting for the save before this one."
        self.wait()
        folder, model, optim, *rest = prepare(folder, model_state, optim_states, state, keep_last)

        def copied(tensors):
            return {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}

        copies = (copied(model), copied(optim))
        self._job = self._pool.submit(write, folder, *copies, *rest)

    def wait(self) -> Path | None:
        """Wait for the save under way, if any; return its path or raise its error.

        Call it before the program ends.
        """
        job, self._job = self._job, None
        return job.result() if job else None
