"""Put two thin matrices beside a layer, train only those, save them as `peft` does, merge them."""

# Made by tools/book.py from ../../book/medium/ch13a_lora.md: edit that, then `make book`.

# %% auto #0
__all__ = ['PARTS', 'HEAD', 'ADAPTER', 'WEIGHTS', 'PREFIX', 'LoRALinear', 'targets',
           'replace_layer', 'add_lora', 'lora_layers', 'merge_lora', 'AdapterConfig', 'base_hash',
           'hash_of_base', 'save_adapter', 'read_adapter', 'Header', 'read_sides', 'check_base',
           'load_adapter']

# %% ../../nbs/medium/ch13a_lora.ipynb #f469981f
import hashlib
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NotRequired, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2edu.machine.atomic import write_atomically
from gpt2edu.machine.state import Hash, check, read_json, shown
from gpt2edu.model.gpt import GPT
from gpt2edu.model.linear import Linear
from gpt2edu.model.pretrained import TABLES

PARTS = ("c_attn", "attn.c_proj", "c_fc", "mlp.c_proj")  # the four matrices of a block
HEAD = "lm_head"  # the matrix that makes logits; an adapter can sit there too

# %% ../../nbs/medium/ch13a_lora.ipynb #09ee3f55
class LoRALinear(Linear):
    "A linear layer with a trainable product of two thin matrices beside its frozen weights."

    def __init__(
        self,
        layer: nn.Linear,  # its weight and bias are taken, not copied
        rank: int,  # r
        alpha: float,  # the product is multiplied by alpha / r
    ):
        n_out, n_in = layer.weight.shape
        super().__init__(n_in, n_out, bias=False, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.rank, self.alpha = rank, alpha
        where = layer.weight.device
        self.lora_A = nn.Parameter(torch.zeros(rank, n_in, device=where))
        self.lora_B = nn.Parameter(torch.zeros(n_out, rank, device=where))

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def forward(
        self,
        x: Tensor,  # (..., n_in)
    ) -> Tensor:  # (..., n_out)
        "Add the small product to the large one."
        small = F.linear(F.linear(x, self.lora_A), self.lora_B)  # (..., r) -> (..., n_out)
        return super().forward(x) + self.scale * small

    def matrix(self) -> Tensor:  # (n_out, n_in)
        "Give W + scale BA, as a loss needs it that multiplies by itself."
        return self.weight + self.scale * self.lora_B @ self.lora_A

# %% ../../nbs/medium/ch13a_lora.ipynb #20552604
def targets(
    model: GPT,
    parts: tuple[str, ...],  # ends of names of layers in the blocks, and lm_head
) -> dict[str, nn.Linear]:  # full name → layer
    "Find the layers that parts name. ValueError, one line, for a part that names none."
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    layers = {n: m for n, m in linear.items() if ".h." in n or n == HEAD}
    for part in parts:
        if not any(f".{name}".endswith(f".{part}") for name in layers):
            raise ValueError(
                f"lora_parts={part[:40]!r} names no layer of a block; expected some of "
                f"{', '.join((*PARTS, HEAD))}"
            )
    return {n: m for n, m in layers.items() if f".{n}".endswith(tuple(f".{p}" for p in parts))}


def replace_layer(model: nn.Module, name: str, layer: nn.Module):
    "Put a layer in the place of another."
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)


def add_lora(
    model: GPT,  # changed in place; all its weights are frozen
    rank: int,
    alpha: float,
    parts: tuple[str, ...] = PARTS,
    generator: torch.Generator | None = None,  # draws A; None leaves zeros, to be loaded
) -> GPT:
    "Give the layers named by `parts` an adapter that changes nothing yet. ValueError, one line."
    found = targets(model, parts)
    model.requires_grad_(False)
    for name, layer in found.items():
        new = LoRALinear(layer, rank, alpha)
        if generator is not None:
            A = torch.empty(new.lora_A.shape)
            bound = 1 / math.sqrt(new.in_features)
            new.lora_A.data.copy_(A.uniform_(-bound, bound, generator=generator))
        replace_layer(model, name, new)
    return model


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    "List the layers that have an adapter."
    return {n: m for n, m in model.named_modules() if isinstance(m, LoRALinear)}


@torch.no_grad()
def merge_lora(
    model: GPT,  # changed in place
) -> GPT:  # a plain one, that computes the same
    "Add each product into its matrix, W + scale BA, and remove the adapter."
    for name, layer in lora_layers(model).items():
        plain = Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        if name == HEAD and model.config.tied:  # the token table keeps what it was
            layer.weight = nn.Parameter(layer.weight.clone())
            model.config = replace(model.config, tied=False)
        layer.weight += layer.scale * layer.lora_B @ layer.lora_A
        plain.weight, plain.bias = layer.weight, layer.bias
        replace_layer(model, name, plain)
    return model.requires_grad_(True)

# %% ../../nbs/medium/ch13a_lora.ipynb #496afadc
ADAPTER, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # of peft's names


class AdapterConfig(TypedDict):
    "What we read of peft's file, which says more."

    peft_type: str
    r: Annotated[int, 1]
    lora_alpha: Annotated[float, 0]
    target_modules: list[str]
    base_model_name_or_path: NotRequired[str | None]
    use_dora: NotRequired[bool]
    use_rslora: NotRequired[bool]
    bias: NotRequired[str]
    modules_to_save: NotRequired[list[str] | None]
    rank_pattern: NotRequired[dict]
    alpha_pattern: NotRequired[dict]


def base_hash(model: GPT) -> str:  # SHA-256, hex
    "Name the weights of the base model: those of the blocks and the position table."
    return hash_of_base(model, ("transformer.h.", "transformer.wpe"))


def hash_of_base(
    model: GPT,
    parts: tuple[str, ...] = ("",),  # how the names of the parameters begin
    rows: int | None = None,  # of the token table and of a head; None: all
) -> str:  # SHA-256, hex
    "Name the weights of the base model, all of them by default."
    digest = hashlib.sha256()
    for name, t in sorted(model.named_parameters()):
        if ".lora_" not in name and name.startswith(parts):
            t = t[:rows] if name in TABLES else t
            copy = t.detach().cpu().float().clone()  # a split model frees the tensor itself later
            digest.update(copy.numpy().tobytes())
    return digest.hexdigest()


def save_adapter(
    model: GPT,  # from `add_lora`
    folder: str | Path,
    base: str | None = None,  # where the base model is found
    n_vocab: int | None = None,  # ids that the tokenizer knows; the rows of an exported head
    n_base: int | None = None,  # of these, the ids that the base model knew; None: all of them
) -> Path:
    "Write the adapter in the layout of `peft`. OSError, one line."
    folder = Path(folder)
    layers = lora_layers(model)
    first = next(iter(layers.values()))
    parts = sorted({".".join(name.split(".")[-2:]) for name in layers})  # attn.c_attn
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base}
    config |= {"r": first.rank, "lora_alpha": first.alpha, "target_modules": parts}
    config |= {"lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": True}
    config |= {"inference_mode": True}
    tensors = {}
    for name, layer in layers.items():
        for side in ("lora_A", "lora_B"):
            matrix = getattr(layer, side).detach().cpu().float()
            matrix = matrix[:n_vocab] if (name, side) == (HEAD, "lora_B") else matrix
            matrix = matrix.clone()
            tensors[f"{PREFIX}{name}.{side}.weight"] = matrix
    rows = n_base or n_vocab or len(model.lm_head.weight)
    header = {"format": "pt", "base_sha256": base_hash(model)}
    header |= {"base_rows": str(rows), "whole_sha256": hash_of_base(model, rows=rows)}
    raw = save(tensors, metadata=header)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / WEIGHTS, raw)
    write_atomically(folder / ADAPTER, (json.dumps(config, indent=2) + "\n").encode())
    return folder


def read_adapter(folder: str | Path) -> dict:  # an `AdapterConfig`
    "Read an adapter's config. ValueError, FileNotFoundError: one line."
    path = Path(folder) / ADAPTER
    config = read_json(path, AdapterConfig, "save the adapter again", others=True)
    can = {"peft_type": "LORA", "bias": "none"}
    can |= dict.fromkeys(("use_dora", "use_rslora"), False)
    can |= {"modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}}
    for key, want in can.items():
        if (got := config.get(key, want)) != want:
            raise ValueError(f"{path}: {key} is {shown(got)}, expected {shown(want)}: plain LoRA")
    if not config["target_modules"]:
        raise ValueError(
            f"{path}: target_modules is [], expected names of layers, such as c_attn; "
            "save the adapter again"
        )
    return config


class Header(TypedDict):
    "What we wrote about the base model; peft writes none of it, and we once less."

    base_sha256: NotRequired[Hash]  # of the blocks and the position table
    whole_sha256: NotRequired[Hash]  # of all weights
    base_rows: NotRequired[Annotated[str, re.compile(r"[1-9][0-9]{0,9}")]]  # of the tables, in it


def read_sides(path: Path) -> tuple[dict[str, Tensor], dict]:  # fp32; a `Header`
    "Read an adapter's matrices. ValueError, FileNotFoundError: one line."
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; expected {ADAPTER} and {WEIGHTS}")
    found = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                if (kind := file.get_slice(name).get_dtype()) not in ("F64", "F32", "F16", "BF16"):
                    what = f"{shown(name)} is of type {kind}, expected F32, F16 or BF16"
                    raise ValueError(f"{path}: {what}")
                found[name] = file.get_tensor(name).float()
                if not found[name].isfinite().all():
                    what = f"{shown(name)} holds a number that is not finite"
                    raise ValueError(f"{path}: {what}; train the adapter again")
            header = file.metadata() or {}
    except SafetensorError as e:
        raise ValueError(f"{path} is not a whole safetensors file ({e}); save it again") from None
    try:
        return found, check(header, Header, others=True)
    except ValueError as e:
        raise ValueError(f"{path}: {e}; save the adapter again") from None


def check_base(
    model: GPT,
    header: dict,  # a `Header`
) -> str:  # what differs; "" if nothing does
    "Compare a model with the one that an adapter was made for, as far as its header knows it."
    if header.get("base_sha256") not in (None, base_hash(model)):
        return "the weights"
    rows, whole = int(header.get("base_rows", 0)), header.get("whole_sha256")
    if whole is None or not 0 < rows <= len(model.lm_head.weight):
        return ""  # an export has no spare rows
    return "" if hash_of_base(model, rows=rows) == whole else "the token table, last norm or head"


def load_adapter(
    model: GPT,  # the base model; changed in place
    folder: str | Path,  # from `save_adapter`, or from peft
) -> GPT:
    "Put a saved adapter beside a model's layers. ValueError, FileNotFoundError: one line."
    folder = Path(folder)
    config = read_adapter(folder)
    saved, header = read_sides(folder / WEIGHTS)
    other = f"{folder} is an adapter for another model"
    base = (config.get("base_model_name_or_path") or "the model it was trained on")[:200]
    fix = f"open it beside {base}"
    if part := check_base(model, header):
        raise ValueError(f"{other}: {part} beside it were not these; {fix}")
    try:
        names = targets(model, tuple(config["target_modules"]))
    except ValueError as e:
        raise ValueError(f"{other}: {e}; {fix}") from None
    want, rows = {}, f"{PREFIX}{HEAD}.lora_B.weight"
    spare = len(model.lm_head.weight) - len(saved.get(rows, model.lm_head.weight))
    if 0 < spare < 128:  # an exported head has no rows for ids that nothing stands for
        saved[rows] = F.pad(saved[rows], (0, 0, 0, spare))
    for name, layer in names.items():
        n_out, n_in = layer.weight.shape
        want[f"{PREFIX}{name}.lora_A.weight"] = [config["r"], n_in]
        want[f"{PREFIX}{name}.lora_B.weight"] = [n_out, config["r"]]
    for name in want | saved:
        got, shape = list(saved[name].shape) if name in saved else None, want.get(name)
        if got != shape:
            raise ValueError(
                f"{other}: {shown(name)} has shape {got or 'none'}, expected {shape or 'none'}; "
                f"{fix}"
            )
    add_lora(model, config["r"], config["lora_alpha"], tuple(config["target_modules"]))
    for name, layer in lora_layers(model).items():
        layer.lora_A.data.copy_(saved[f"{PREFIX}{name}.lora_A.weight"])
        layer.lora_B.data.copy_(saved[f"{PREFIX}{name}.lora_B.weight"])
    return model
