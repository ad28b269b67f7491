"""OpenAI's GPT-2 weights in and out, every logit equal; a tool to find where two models part."""

# Made by tools/book.py from ../../book/medium/ch13_openai_weights.md: edit that, then `make book`.

# %% auto #0
__all__ = ['TRANSPOSED', 'Size', 'HUB', 'STORED', 'FILES', 'OPTIONAL', 'TABLES', 'our_name', 'flip',
           'HubConfig', 'read_config', 'check_header', 'read_weights', 'resize_vocab', 'first_line',
           'download', 'find_model', 'assembled', 'with_rows', 'AnyConfig', 'read_files',
           'from_pretrained', 'gpt2_config', 'weights_to_write', 'hub_files', 'export', 'record',
           'compare', 'check_repo', 'push']

# %% ../../nbs/medium/ch13_openai_weights.ipynb #aec78148
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, NotRequired, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import gpt2edu
from gpt2edu.text.corpus import reachable
from gpt2edu.machine.atomic import whole_folder
from gpt2edu.machine.signals import undisturbed
from gpt2edu.machine.state import hide_secrets, read_json, shown, without_secrets
from gpt2edu.model.gpt import GPT, GPTConfig
from gpt2edu.model.llama import (
    OWN,
    find_layout,
    llama_config,
    own_config,
    read_llama_config,
    read_llama_weights,
    read_own_config,
    same_name,
    to_llama,
)
from gpt2edu.text.chat import END, TEMPLATE, is_chat
from gpt2edu.text.tokenizer import (
    EOT,
    GPT2_PATTERN,
    Tokenizer,
    from_transformers,
    printable_vocab,
    to_printable,
)

# %% ../../nbs/medium/ch13_openai_weights.ipynb #d7c8657d
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
TRANSPOSED += ("mlp.c_gate.weight",)  # of a block with a gate, in the file for the web


def our_name(name: str) -> str | None:  # a checkpoint's → our state_dict's; None: not a weight
    "Translate a weight's name: `transformer.` may be missing; old checkpoints carry causal masks."
    if name.endswith((".attn.bias", ".attn.masked_bias")):
        return None
    return name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"


def flip(name: str, tensor: Tensor) -> Tensor:
    "Transpose a block's matrices: (in, out) in a checkpoint, (out, in) in our model."
    return tensor.t().contiguous() if name.endswith(TRANSPOSED) else tensor

# %% ../../nbs/medium/ch13_openai_weights.ipynb #929d1449
Size = Annotated[int, 1]


class HubConfig(TypedDict):
    "What we read of a config.json of transformers, which says much more."

    model_type: str
    n_layer: Size
    n_head: Size
    n_embd: Size
    n_positions: Size
    vocab_size: Size
    activation_function: NotRequired[str]
    n_inner: NotRequired[int | None]
    layer_norm_epsilon: NotRequired[float]
    scale_attn_weights: NotRequired[bool]
    tie_word_embeddings: NotRequired[bool]
    scale_attn_by_inverse_layer_idx: NotRequired[bool]
    add_cross_attention: NotRequired[bool]


def read_config(path: Path) -> GPTConfig:
    "Read the sizes. ValueError, one line, for a GPT-2 with another activation, scale or head."
    fix = "fetch the config.json of a GPT-2 again"
    config = read_json(path, HubConfig, fix, others=True, nan=True)
    # values that mean what our GPT computes; first what transformers takes for an absent field
    can = {
        "model_type": ["gpt2"],
        # two names of the tanh form, and the square of ReLU
        "activation_function": ["gelu_new", "gelu_pytorch_tanh", "relu2"],
        "n_inner": [None, 4 * config["n_embd"]],
        "layer_norm_epsilon": [1e-5],
    }
    can["scale_attn_weights"] = [True]
    can |= dict.fromkeys(("scale_attn_by_inverse_layer_idx", "add_cross_attention"), (False,))
    for field, values in can.items():
        if (got := config.get(field, values[0])) not in values:
            got = repr(got[:60] if isinstance(got, str) else got)
            raise ValueError(
                f"{path}: {field}={got} is not supported; this GPT-2 has {field}={values[0]!r}"
            )
    sizes = ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size")
    mlp = "relu2" if config.get("activation_function") == "relu2" else "gelu"
    tied = config.get("tie_word_embeddings", True)
    try:
        return GPTConfig(*(config[k] for k in sizes), mlp=mlp, tied=tied)
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from None

# %% ../../nbs/medium/ch13_openai_weights.ipynb #6157a8c5
def check_header(
    path: Path,
    shapes: dict[str, list[int]],  # of the weights in the file, by our names
    config: GPTConfig,
):
    "Refuse sizes that are not those of the file, before a model of them is built. ValueError."
    sizes = {"wte": [config.vocab_size, config.n_embd], "wpe": [config.block_size, config.n_embd]}
    for name, want in sizes.items():
        if (got := shapes.get(f"transformer.{name}.weight")) is None:
            raise ValueError(f"{path}: {name}.weight is missing")
        if got != want:
            what = f"transformer.{name}.weight has shape {got}, expected {want}"
            raise ValueError(f"{path}: {what} by config.json")
    blocks = {name.split(".")[2] for name in shapes if name.startswith("transformer.h.")}
    if len(blocks) < config.n_layer:
        raise ValueError(f"{path}: h.{len(blocks)}.ln_1.weight is missing")


def read_weights(
    path: Path,  # model.safetensors
    config: GPTConfig,  # what the weights must fit
) -> dict[str, Tensor]:  # our names and shapes, fp32, lm_head.weight included
    "Read and translate all weights. ValueError, one line: missing, unknown or of a wrong shape."
    state = {}
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if our_name(name)]
            slices = {name: file.get_slice(name) for name in names}
            check_header(path, {our_name(n): s.get_shape() for n, s in slices.items()}, config)
            with torch.device("meta"):  # shapes without memory
                want = GPT(config).state_dict()
            for theirs, part in slices.items():
                if (name := our_name(theirs)) not in want or name in state:
                    what = f"{shown(theirs)[1:-1]} has no place in a GPT-2"
                    raise ValueError(f"{path}: {what} of {config.n_layer} layers")
                shape = list(flip(name, want[name]).shape)
                if (got := part.get_shape()) != shape:
                    raise ValueError(
                        f"{path}: {theirs} has shape {got}, expected {shape} by config.json"
                    )
                if part.get_dtype() not in ("F64", "F32", "F16", "BF16"):
                    what = f"{theirs} is of type {part.get_dtype()}, expected F32, F16 or BF16"
                    raise ValueError(f"{path}: {what}")
                state[name] = flip(name, file.get_tensor(theirs)).float()
    except SafetensorError as e:
        raise ValueError(f"{path} is not a whole safetensors file ({e}); fetch it again") from None
    table = state.get("transformer.wte.weight")
    head = state.setdefault("lm_head.weight", table) if config.tied else table
    if missing := [name for name in want if state.get(name) is None]:
        raise ValueError(f"{path}: {missing[0].removeprefix('transformer.')} is missing")
    if head is not table and not torch.equal(head, table):
        raise ValueError(
            f"{path}: lm_head.weight differs from wte.weight; "
            "config.json says that they are one matrix (tie_word_embeddings)"
        )
    return state | ({"lm_head.weight": table} if config.tied else {})

# %% ../../nbs/medium/ch13_openai_weights.ipynb #fa814eee
def resize_vocab(table: Tensor, n: int) -> Tensor:  # (V, C) -> (n, C)
    "Cut rows off, or add rows that are the mean of all, so that their logit is the mean logit."
    if n <= len(table):
        return table[:n].clone()
    return torch.cat([table, table.mean(0).expand(n - len(table), -1)])  # (V, C), (n - V, C)

# %% ../../nbs/medium/ch13_openai_weights.ipynb #daf07501
HUB = {
    name: f"openai-community/{name}" for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
}
STORED = ("tiny",)  # models that the package brings
FILES = ("config.json", "model.safetensors")
OPTIONAL = ("tokenizer.json", "tokenizer_config.json")


def first_line(e: Exception) -> str:
    "Shorten an error of the hub's client to one line, without an access token."
    return without_secrets(str(e).strip() or type(e).__name__).splitlines()[0]


def download(repo: str) -> Path:  # "owner/name" on the hub → the folder in the cache
    "Fetch what a model needs, once, from HF_ENDPOINT to HF_HOME. ValueError: one line."
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub import errors as hub

    hide_secrets("huggingface_hub")
    for file in (FILES[0], *OPTIONAL, FILES[1]):
        try:
            path = hf_hub_download(repo, file, local_files_only=not reachable(constants.ENDPOINT))
        except hub.LocalEntryNotFoundError:
            known = try_to_load_from_cache(repo, file) is not None  # the hub has said: no such file
            if file == OPTIONAL[1] or (known and file in OPTIONAL):
                continue
            away = f"{constants.ENDPOINT} does not answer"
            why = f"it is not in the cache and {away}; connect, or give a folder"
        except hub.RepositoryNotFoundError:
            nowhere = f"no folder here and no public model at {constants.ENDPOINT}"
            why = f"{nowhere}; use {', '.join(HUB)} or a folder"
        except hub.EntryNotFoundError:
            if file in OPTIONAL:
                continue
            why = f"{file} is missing at {constants.ENDPOINT}; expected {', '.join(FILES)}"
        except Exception as e:  # noqa: BLE001  the client passes on its HTTP library's errors
            why = f"{file} did not arrive from {constants.ENDPOINT}: {first_line(e)}"
        else:
            continue
        raise ValueError(without_secrets(f"{repo}: {why}")) from None
    return Path(path).parent


def find_model(name: str | Path) -> Path:  # "gpt2", "owner/name" or a folder → folder of files
    "Find a model here or on the hub. ValueError, FileNotFoundError: one line."
    folder = Path(name)
    if not folder.is_dir() and name in STORED:
        folder = Path(gpt2edu.__file__).parent / "stored" / name
    if not folder.is_dir():
        repo = HUB.get(str(name), str(name))
        if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo):
            return download(repo)
        raise ValueError(
            f"unknown model {without_secrets(str(name))!r}; expected {', '.join((*HUB, *STORED))}, "
            "owner/name or a folder that exists"
        )
    if missing := [folder / file for file in FILES if not (folder / file).is_file()]:
        why = f"{missing[0]} is missing; expected {', '.join(FILES)}"
        if (folder / "pytorch_model.bin").is_file():
            why += "; pytorch_model.bin can hold code and is not read: save it with safetensors"
        elif (folder / "model.safetensors.index.json").is_file():
            why += "; its weights are in many files: save it with a larger max_shard_size"
        raise FileNotFoundError(why)
    return folder

# %% ../../nbs/medium/ch13_openai_weights.ipynb #910ee1a6
TABLES = ("transformer.wte.weight", "lm_head.weight")  # a row for each id


def assembled(
    config: GPTConfig,
    weights: dict[str, Tensor],  # become the model's own; a tied table under either name
) -> GPT:
    "Build a model around weights, without drawing others first."
    if config.tied:
        weights = weights | dict.fromkeys(TABLES, weights[TABLES[0]])
    with torch.device("meta"):
        model = GPT(config)
    model.load_state_dict(weights, assign=True)
    if config.tied:
        model.lm_head.weight = model.transformer.wte.weight
    return model


def with_rows(
    model: GPT,
    n: int,  # V
) -> GPT:
    "Cut or lengthen a model's tables of tokens, as `resize_vocab` does."
    if n == model.config.vocab_size:
        return model
    weights = model.state_dict()
    weights |= {name: resize_vocab(weights[name], n) for name in TABLES}
    return assembled(replace(model.config, vocab_size=n), weights)


class AnyConfig(TypedDict):
    "What every config.json of transformers says."

    model_type: str


def read_files(
    folder: Path,  # from `find_model`
) -> tuple[GPTConfig, Callable[[], dict[str, Tensor]]]:  # what reads the weights
    "Read the config in the way of its kind. ValueError, one line."
    path, weights = folder / "config.json", folder / "model.safetensors"
    fix = "fetch the config.json of a GPT-2 again"
    kind = read_json(path, AnyConfig, fix, others=True, nan=True)["model_type"]
    read = (read_config, read_weights)
    if kind in ("llama", "qwen3"):
        read = (read_llama_config, read_llama_weights)
    elif kind == OWN:
        read = (read_own_config, partial(read_llama_weights, names=same_name))
    config = read[0](path)
    return config, partial(read[1], weights, config)


def from_pretrained(
    name: str | Path,  # "gpt2" to "gpt2-xl", "owner/name", a folder, or "tiny", stored here
    vocab_size: int | None = None,  # rows of the table, at least the tokenizer's; None: as stored
    tokenizer: Tokenizer | None = None,  # in the place of the folder's own
) -> tuple[GPT, Tokenizer | None]:  # fp32, on the CPU; None where the folder has no tokenizer
    """Load a GPT-2, or whatever we exported, and its tokenizer.

    ValueError, FileNotFoundError: one line. Source: Radford et al. (2019), weights.
    """
    folder = find_model(name)
    config, state = read_files(folder)
    file = folder / "tokenizer.json"
    if tokenizer is None and file.is_file():
        tokenizer = from_transformers(file, Path(name).absolute().name)
    rows = vocab_size or config.vocab_size
    if tokenizer and rows < tokenizer.n_vocab:
        raise ValueError(
            f"{name}: vocab_size={rows} is less than the {tokenizer.n_vocab} ids of its tokenizer"
        )
    state = undisturbed(state)  # safetensors would make another error of a signal
    state |= {k: resize_vocab(state[k], rows) for k in TABLES[: 1 if config.tied else 2]}
    return assembled(replace(config, vocab_size=rows), state), tokenizer

# %% ../../nbs/medium/ch13_openai_weights.ipynb #cac0733f
def gpt2_config(
    c: GPTConfig,
    n_vocab: int,  # ids of the tokenizer
    ids: dict[str, int],  # that begin and end a text
) -> dict:  # for config.json
    "Describe a GPT-2 in the words of transformers."
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    config |= {"activation_function": "relu2" if c.mlp == "relu2" else "gelu_new", **ids}
    config |= {"n_layer": c.n_layer, "n_head": c.n_head, "n_embd": c.n_embd}
    config |= {"n_positions": c.block_size, "vocab_size": n_vocab}
    config |= {} if c.tied else {"tie_word_embeddings": False}
    return config | dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)


def weights_to_write(
    model: GPT,
    n_vocab: int,  # ids of the tokenizer: the rows that are kept
) -> dict[str, Tensor]:  # names and shapes of the layout
    "Cut the padding off, and give the weights the names and shapes of their layout."
    c, state = model.config, model.state_dict()
    state |= {k: resize_vocab(state[k], n_vocab) for k in TABLES}
    kind, _ = find_layout(c)
    if kind == OWN:
        return to_llama(state, c, same_name)
    if kind != "gpt2":
        return to_llama(state, c)
    return {k: flip(k, v) for k, v in state.items() if k != "lm_head.weight" or not c.tied}


def hub_files(model: GPT, tokenizer: Tokenizer) -> dict[str, dict | str]:  # file name → content
    "Describe model and tokenizer in the format of transformers."
    c = model.config
    vocab = printable_vocab(tokenizer)
    merges = [f"{to_printable(a)} {to_printable(b)}" for a, b in tokenizer.merges]
    ids = {"bos_token_id": tokenizer.eot, "eos_token_id": tokenizer.eot}
    if (kind := find_layout(c)[0]) == "gpt2":
        config = gpt2_config(c, tokenizer.n_vocab, ids)
    else:
        describe = own_config if kind == OWN else llama_config
        config = describe(c, tokenizer.n_vocab) | ids
    config["dtype"] = str(model.transformer.wte.weight.dtype).removeprefix("torch.")
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    special = [
        plain | {"id": i, "content": token, "special": True}
        for token, i in tokenizer.special.items()
    ]
    # cut text by GPT-2's pattern; bytes become characters
    as_bytes = {"type": "ByteLevel", "add_prefix_space": False}
    as_bytes |= {"trim_offsets": True, "use_regex": True}
    parts = {"pre_tokenizer": as_bytes, "decoder": as_bytes}
    bpe = {"type": "BPE", "vocab": vocab, "merges": merges}
    about = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False}
    about |= {"clean_up_tokenization_spaces": False, "model_max_length": c.block_size}
    about |= dict.fromkeys(("bos_token", "eos_token", "unk_token"), EOT)
    if is_chat(tokenizer):
        about |= {"eos_token": END, "chat_template": TEMPLATE}
        ids["eos_token_id"] = tokenizer.special[END]
    return {
        "config.json": config,
        "generation_config.json": ids,
        "vocab.json": vocab,
        "merges.txt": "\n".join(["#version: 0.2", *merges, ""]),
        "tokenizer.json": {"version": "1.0", "added_tokens": special, **parts, "model": bpe},
        "tokenizer_config.json": about,
    }

# %% ../../nbs/medium/ch13_openai_weights.ipynb #13237a70
def export(
    model: GPT,  # not compiled, not wrapped; rows above the tokenizer's ids are cut off
    tokenizer: Tokenizer,  # the one that the model was trained with
    folder: str | Path,  # made whole or not at all; must not be there yet, or be empty
) -> Path:
    "Write a folder that transformers opens, if a class of it fits. ValueError, OSError: one line."
    folder = Path(folder).absolute()
    rows = model.config.vocab_size
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(
            f"{folder} exists and is not an empty folder; choose another one, or delete it first"
        )
    if rows < tokenizer.n_vocab:
        raise ValueError(
            f"the model has {rows} ids and "
            f"tokenizer {tokenizer.name} {tokenizer.n_vocab}: not a pair"
        )
    if tokenizer.pattern != GPT2_PATTERN:
        raise ValueError(
            f"tokenizer {tokenizer.name} cuts text by another pattern than GPT-2's; "
            "it cannot be exported"
        )
    weights = weights_to_write(model, tokenizer.n_vocab)
    try:
        with whole_folder(folder) as temp:
            save_file(weights, temp / "model.safetensors", metadata={"format": "pt"})
            for file, content in hub_files(model, tokenizer).items():
                if not isinstance(content, str):
                    content = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
                (temp / file).write_text(content, encoding="utf-8", newline="\n")
            # safetensors made it private
            shutil.copymode(temp / "config.json", temp / "model.safetensors")
    except (OSError, SafetensorError) as e:
        why = getattr(e, "strerror", e)
        raise OSError(f"could not write {folder} ({why}); free space or use another folder") from e
    return folder

# %% ../../nbs/medium/ch13_openai_weights.ipynb #3db11d55
@torch.no_grad()
def record(
    model: nn.Module,  # a GPT, or a GPT2LMHeadModel
    idx: Tensor,  # (B, T) int64 token ids
) -> dict[str, Tensor]:  # name of a part → its output, in the order in which the parts finish
    "Run a model and record the output of every part."
    outputs = {}

    def keep(name, part, args, out):
        outputs[name] = (out[0] if isinstance(out, tuple) else out).float()

    parts = {n: part for n, part in model.named_modules() if n not in ("", "transformer")}
    hooks = [part.register_forward_hook(partial(keep, name)) for name, part in parts.items()]
    try:
        model(idx)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


def compare(
    ours: nn.Module,  # a GPT
    theirs: nn.Module,  # a GPT, or a GPT2LMHeadModel
    idx: Tensor,  # (B, T) int64 token ids
) -> list[tuple[str, float]]:  # part, its largest difference over its largest value; as computed
    "Compare two models part by part; the first part that differs is where to look."
    a, b = record(ours, idx), record(theirs, idx)
    pairs = [(name, x, b[name].reshape(x.shape)) for name, x in a.items() if name in b]
    return [(name, ((x - y).abs().max() / x.abs().max()).item()) for name, x, y in pairs]

# %% ../../nbs/medium/ch13_openai_weights.ipynb #e387fc6c
def check_repo(repo: str):
    "Refuse what cannot be the name of a model on the hub. ValueError, one line."
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as e:
        why = first_line(e).removesuffix(f": {repo!r}.")
        raise ValueError(f"push_to_hub={repo!r}: {why}; write owner/name") from None


def push(
    folder: str | Path,  # from `export`
    repo: str,  # "owner/name" on the hub; made, private, if it is not there
) -> str:  # address of the model
    "Upload an export; the token is from `hf auth login` or HF_TOKEN. ValueError, one line."
    from huggingface_hub import HfApi

    check_repo(repo)
    api = HfApi()
    folder = find_model(folder)
    try:
        url = api.create_repo(repo, private=True, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Export by gpt2edu")
    except Exception as e:  # noqa: BLE001  the client passes on its HTTP library's errors
        lost = "Connect" in type(e).__name__  # with requests, and with httpx
        fix = "check the connection and try again" if lost else "log in with: hf auth login"
        raise ValueError(f"could not push to {repo}: {first_line(e)}; {fix}") from None
    return str(url)
