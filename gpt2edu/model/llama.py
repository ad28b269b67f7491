"""Write a block of today as transformers' Llama, or in a layout of our own, and read it back."""

# Made by tools/book.py from ../../book/medium/ch13b_llama.md: edit that, then `make book`.

# %% auto #0
__all__ = ['BY_LAYOUT', 'CLASSES', 'OWN', 'NAMES', 'Size', 'SAID', 'OwnConfig', 'find_layout',
           'their_names', 'same_name', 'to_llama', 'llama_config', 'LlamaConfig',
           'read_llama_config', 'check_llama_header', 'read_llama_weights', 'own_config',
           'read_own_config']

# %% ../../nbs/medium/ch13b_llama.ipynb #f471c8d3
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gpt2edu.machine.state import read_json, shown
from gpt2edu.model.gpt import GPT, GPTConfig
from gpt2edu.model.modern import EPS, THETA
from gpt2edu.model.variants import hidden_width, kv_width

# %% ../../nbs/medium/ch13b_llama.ipynb #a1cc6feb
BY_LAYOUT = {  # the values that a layout asks for; fields that are not here may have any
    "gpt2": {"norm": "layer", "qk_norm": False, "bias": True, "n_kv_head": None},
    "llama": {"norm": "rms", "mlp": "swiglu", "qk_norm": False},
    "qwen3": {"norm": "rms", "mlp": "swiglu", "bias": False},
}
CLASSES = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}
OWN = "gpt2edu"  # the layout of what no class of transformers computes


def find_layout(
    c: GPTConfig,
) -> tuple[str, str | None]:  # gpt2, llama, qwen3 or gpt2edu; with the last, the reason
    "Choose the layout that holds a model, and name the field for which it has to be our own."
    name = "gpt2" if c.position == "learned" else "qwen3" if c.qk_norm else "llama"
    want = BY_LAYOUT[name] | ({"mlp": "gelu"} if name == "gpt2" and c.mlp == "swiglu" else {})
    for field, value in want.items():
        same = field == "n_kv_head" and c.n_kv_head == c.n_head
        if (got := getattr(c, field)) != value and not same:
            value = "n_head" if value is None else value
            has = f"{CLASSES[name]} has {field}={value}"
            return OWN, f"the model has {field}={got} beside {_chosen(name)}, and {has}"
    return name, None


def _chosen(name: str) -> str:
    "The choice that led to a layout."
    return {"gpt2": "position=learned", "llama": "position=rope", "qwen3": "qk_norm=True"}[name]

# %% ../../nbs/medium/ch13b_llama.ipynb #0489e84c
NAMES = {  # ours: theirs
    "transformer.wte": ["model.embed_tokens"],
    "transformer.ln_f": ["model.norm"],
    "lm_head": ["lm_head"],
    "ln_1": ["input_layernorm"],
    "ln_2": ["post_attention_layernorm"],
    "attn.c_attn": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "attn.c_proj": ["self_attn.o_proj"],
    "attn.q_norm": ["self_attn.q_norm"],
    "attn.k_norm": ["self_attn.k_norm"],
    "mlp.c_gate": ["mlp.gate_proj"],
    "mlp.c_fc": ["mlp.up_proj"],
    "mlp.c_proj": ["mlp.down_proj"],
}


def their_names(
    name: str,  # of a parameter of ours: transformer.h.0.attn.c_attn.weight
) -> list[str]:  # one, or those of queries, keys and values
    "Translate a name to Llama's."
    part, _, kind = name.rpartition(".")
    if inner := re.fullmatch(r"transformer\.h\.(\d+)\.(.+)", part):
        return [f"model.layers.{inner[1]}.{theirs}.{kind}" for theirs in NAMES[inner[2]]]
    return [f"{theirs}.{kind}" for theirs in NAMES[part]]


def same_name(name: str) -> list[str]:
    "Keep a name, as our own layout does."
    return [name]


def to_llama(
    state: dict[str, Tensor],  # our names
    c: GPTConfig,
    names: Callable[[str], list[str]] = their_names,  # or `same_name`
) -> dict[str, Tensor]:  # their names; a tied head is left out
    "Rename weights, and cut the matrix of queries, keys and values into three."
    rows = [c.n_embd, kv_width(c), kv_width(c)]
    found = {}
    for name, tensor in state.items():
        if name == "lm_head.weight" and c.tied:
            continue
        theirs = names(name)
        parts = tensor.split(rows) if len(theirs) == 3 else [tensor]
        found |= {k: part.contiguous() for k, part in zip(theirs, parts, strict=True)}
    return found

# %% ../../nbs/medium/ch13b_llama.ipynb #87d08583
def llama_config(
    c: GPTConfig,
    n_vocab: int,  # ids of the tokenizer
) -> dict:  # for config.json
    "Describe a Llama or a Qwen3 in the words of transformers."
    kind, _ = find_layout(c)
    found = {"model_type": kind, "architectures": [CLASSES[kind]], "hidden_act": "silu"}
    found |= {"hidden_size": c.n_embd, "intermediate_size": hidden_width(c.n_embd, c.mlp)}
    found |= {"num_hidden_layers": c.n_layer, "num_attention_heads": c.n_head}
    found |= {"num_key_value_heads": c.n_kv_head or c.n_head, "head_dim": c.n_embd // c.n_head}
    found |= {"max_position_embeddings": c.block_size, "vocab_size": n_vocab}
    found |= {"rms_norm_eps": EPS, "rope_theta": THETA, "tie_word_embeddings": c.tied}
    found |= {"attention_bias": c.bias, "attention_dropout": 0.0}
    return found | ({"mlp_bias": c.bias} if kind == "llama" else {})


Size = Annotated[int, 1]


class LlamaConfig(TypedDict):
    "What we read of a config.json of a Llama or a Qwen3, which says more."

    model_type: str
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    max_position_embeddings: Size
    vocab_size: Size
    rms_norm_eps: float
    num_key_value_heads: NotRequired[Size | None]
    head_dim: NotRequired[Size | None]
    hidden_act: NotRequired[str]
    rope_theta: NotRequired[float]
    rope_scaling: NotRequired[dict[str, Any] | None]
    rope_parameters: NotRequired[dict[str, Any] | None]  # transformers 5: both of the above
    attention_bias: NotRequired[bool]
    mlp_bias: NotRequired[bool]
    tie_word_embeddings: NotRequired[bool]
    use_sliding_window: NotRequired[bool]


def read_llama_config(path: Path) -> GPTConfig:
    "Read the sizes. ValueError, one line, for what our model does not compute."
    config = read_json(path, LlamaConfig, "fetch it again", others=True, nan=True)
    C, nh = config["hidden_size"], config["num_attention_heads"]
    turned = config.get("rope_parameters") or {}
    bias, qwen3 = config.get("attention_bias", False), config["model_type"] == "qwen3"
    got = {"rope_theta": turned.get("rope_theta", THETA), "rope_type": turned.get("rope_type")}
    can = {
        "intermediate_size": [hidden_width(C, "swiglu")],
        "rms_norm_eps": [EPS],
        "hidden_act": ["silu"],
        "head_dim": [C // nh, None],
        "rope_theta": [THETA],
        "rope_type": ["default", None],
        "rope_scaling": [None],
        "mlp_bias": [False if qwen3 else bias],
        "use_sliding_window": [False],
    }
    for field, values in can.items():
        if (value := (got | config).get(field, values[0])) not in values:
            value = repr(value)[:60]
            raise ValueError(
                f"{path}: {field}={value} is not supported; our model has {field}={values[0]!r}"
            )
    try:
        return GPTConfig(
            n_layer=config["num_hidden_layers"],
            n_head=nh,
            n_embd=C,
            block_size=config["max_position_embeddings"],
            vocab_size=config["vocab_size"],
            position="rope",
            norm="rms",
            mlp="swiglu",
            qk_norm=qwen3,
            bias=bias,
            tied=config.get("tie_word_embeddings", False),
            n_kv_head=config.get("num_key_value_heads") or nh,
        )
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from None

# %% ../../nbs/medium/ch13b_llama.ipynb #da5b74c0
def check_llama_header(
    path: Path,
    shapes: dict[str, list[int]],  # of the weights in the file
    c: GPTConfig,
    names: Callable[[str], list[str]] = their_names,  # or `same_name`
):
    "Refuse sizes that are not those of the file, before a model of them is built. ValueError."
    (name,), want = names("transformer.wte.weight"), [c.vocab_size, c.n_embd]
    if (got := shapes.get(name)) != want:
        what = "is missing" if got is None else f"has shape {got}"
        raise ValueError(f"{path}: {name} {what}, expected {want} by config.json")
    layers = ("model.layers.", "transformer.h.")
    blocks = {name.split(".")[2] for name in shapes if name.startswith(layers)}
    if len(blocks) != c.n_layer:
        raise ValueError(f"{path}: {len(blocks)} layers, expected {c.n_layer} by config.json")


def read_llama_weights(
    path: Path,  # model.safetensors
    config: GPTConfig,  # what the weights must fit
    names: Callable[[str], list[str]] = their_names,  # or `same_name`
) -> dict[str, Tensor]:  # our names and shapes, fp32, lm_head.weight included
    "Read and rename all weights. ValueError, one line: missing, unknown or of a wrong shape."
    c = config
    try:
        with safe_open(path, framework="pt") as file:
            left = {name: file.get_slice(name).get_shape() for name in file.keys()}
            check_llama_header(path, left, c, names)
            with torch.device("meta"):  # shapes without memory
                model = GPT(c).state_dict()
            want = to_llama(model, c, names)
            for name, part in want.items():
                if (got := left.pop(name, None)) != list(part.shape):
                    got = "is missing" if got is None else f"has shape {got}"
                    what = f"{name} {got}, expected {list(part.shape)} by config.json"
                    raise ValueError(f"{path}: {what}")
                if (kind := file.get_slice(name).get_dtype()) not in ("F64", "F32", "F16", "BF16"):
                    raise ValueError(f"{path}: {name} is of type {kind}, expected F32, F16 or BF16")
            if c.tied:
                left.pop("lm_head.weight", None)  # some files repeat the table
            if left:
                what = f"{shown(next(iter(left)))[1:-1]} has no place in this model"
                raise ValueError(f"{path}: {what} of {c.n_layer} layers")
            ours = [name for name in model if name != "lm_head.weight" or not c.tied]
            parts = {name: [file.get_tensor(k) for k in names(name)] for name in ours}
    except SafetensorError as e:
        raise ValueError(f"{path} is not a whole safetensors file ({e}); fetch it again") from None
    state = {name: torch.cat(tensors).float() for name, tensors in parts.items()}
    return state | ({"lm_head.weight": state["transformer.wte.weight"]} if c.tied else {})

# %% ../../nbs/medium/ch13b_llama.ipynb #9cb8659b
# a config.json of our own layout: what every export says, and the fields of a `GPTConfig`
SAID = {"model_type": Literal["gpt2edu"], "dtype": str, "bos_token_id": int, "eos_token_id": int}
OwnConfig = TypedDict("OwnConfig", SAID | get_type_hints(GPTConfig))


def own_config(
    c: GPTConfig,
    n_vocab: int,  # ids of the tokenizer
) -> dict:  # for config.json
    "Describe a model by its fields."
    return {"model_type": OWN} | asdict(c) | {"vocab_size": n_vocab}


def read_own_config(path: Path) -> GPTConfig:
    "Read the fields. ValueError, one line, for one that is missing, unknown or cannot be built."
    config = read_json(path, OwnConfig, "export the model again")
    try:
        return GPTConfig(**{k: v for k, v in config.items() if k not in SAID})
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from None
