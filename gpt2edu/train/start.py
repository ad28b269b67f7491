"""Begin a run with trained weights: find them, compare sizes and tokenizer, make them fit."""

# Made by tools/book.py from ../../book/tough/ch17b_start.md: edit that, then `make book`.

# %% auto #0
__all__ = ['find_start', 'describe_start', 'adapts_head', 'start_sizes', 'tokenizer_name',
           'adapter_fits', 'own_tokenizer', 'fitted', 'trains_on', 'gentle', 'check_start',
           'longer', 'other_tokens', 'choose_trained', 'load_start']

# %% ../../nbs/tough/ch17b_start.ipynb #ded25e96
from dataclasses import replace
from pathlib import Path

from gpt2edu.machine.state import loads
from gpt2edu.model.heads import divisors
from gpt2edu.text.chat import with_chat
from gpt2edu.text.tokenizer import Tokenizer, encode_piece, get_tokenizer
from gpt2edu.model.variants import GPT2_BLOCK
from gpt2edu.train.config import MODEL_SIZES, PRESETS, TrainConfig, in_part, padded, preset
from gpt2edu.train.runs import (
    ADAPTER,
    OPENAI,
    STORED,
    elsewhere,
    followed,
    is_adapter,
    is_exported,
    load_model,
    model_place,
    read_config,
)

# %% ../../nbs/tough/ch17b_start.ipynb #8b7436da
def find_start(
    name: str,  # as for `model_place`
    out_dir: str | Path = "runs",  # where runs are kept
) -> str | Path:  # OpenAI's name, or a folder
    "Find the weights to begin with. FileNotFoundError, one line."
    try:
        return model_place(name or "''", out_dir)
    except FileNotFoundError:
        stored = ", ".join(sorted(p.name for p in STORED.glob("*")))
        which = f" --preset {name}" if name in PRESETS else ""
        raise FileNotFoundError(
            f"init_from={name!r} is not a run in {out_dir}/, nor a folder with a model, nor any of "
            f"{', '.join(OPENAI)}, {stored}; "
            f"train a run with: gpt2edu_train{which}{elsewhere(out_dir)}"
        ) from None


def describe_start(config: TrainConfig) -> str:
    "Say which weights a run begins with. FileNotFoundError, one line."
    place = find_start(config.init_from, config.out_dir)
    if isinstance(place, str) or place.parent != STORED:
        return f"start: {place}"
    return f"start: {place.name}, stored with the package"

# %% ../../nbs/tough/ch17b_start.ipynb #13cd6f56
def adapts_head(place: str | Path) -> bool:
    "Whether an adapter has made the head of this start another matrix than the token table."
    if isinstance(place, str) or is_exported(place):
        return False
    if is_adapter(place):
        names = loads((place / ADAPTER).read_bytes()).get("target_modules")
        return isinstance(names, list) and "lm_head" in names
    begun = read_config(place)
    return begun.lora_rank > 0 and "lm_head" in begun.lora_parts


def start_sizes(
    name: str,
    out_dir: str | Path = "runs",
) -> dict:  # the fields of `MODEL_SIZES`
    "Read the sizes of a start, without its weights. ValueError, FileNotFoundError: one line."
    places = followed(find_start(name, out_dir), out_dir)
    place, own = places[-1], any(adapts_head(p) for p in places)
    if isinstance(place, str):
        number = dict(zip(OPENAI, ("124m", "350m", "774m", "1558m"), strict=True))[place]
        found = GPT2_BLOCK | PRESETS[f"gpt2-{number}"]
    elif is_exported(place):
        from gpt2edu.model import pretrained

        try:
            theirs, _ = pretrained.read_files(pretrained.find_model(place))
        except (OSError, ValueError) as e:
            raise ValueError(f"init_from={name}: {e}") from None
        found = {k: getattr(theirs, k) for k in MODEL_SIZES}
    else:
        begun = read_config(place)
        found = {k: getattr(begun, k) for k in MODEL_SIZES}
    return {k: found[k] for k in MODEL_SIZES} | ({"tied": False} if own else {})


def tokenizer_name(
    name: str,
    out_dir: str | Path = "runs",
) -> str | None:  # as for `get_tokenizer`; None: the folder has none
    "Say where the tokenizer of a start is."
    for place in followed(find_start(name, out_dir), out_dir):
        if isinstance(place, str):
            return "gpt2"
        if (file := place / "tokenizer.json").is_file():  # an adapter may bring one
            return str(file)
    return None


def adapter_fits(
    config: TrainConfig,  # of a run that trains an adapter
    tokenizer: Tokenizer,  # of the run
) -> bool:
    "Whether the model that a run began with has its context, and its ids or all but a chat's."
    try:
        has = start_sizes(config.init_from, config.out_dir)["block_size"]
        named = tokenizer_name(config.init_from, config.out_dir) or config.tokenizer
        old = get_tokenizer(named)
    except (OSError, ValueError):  # it is gone: nobody can tell
        return True
    same = tokenizer.hash in (old.hash, with_chat(old).hash)
    return same and config.block_size == has


def own_tokenizer(config: TrainConfig) -> TrainConfig:
    "Let a run that begins with weights use their tokenizer, unless another one is named."
    if not config.init_from or config.tokenizer != "train":
        return config
    if (found := tokenizer_name(config.init_from, config.out_dir)) is None:
        raise FileNotFoundError(
            f"init_from={config.init_from} has no tokenizer.json; name its tokenizer with "
            "--tokenizer, for example --tokenizer gpt2"
        )
    return replace(config, tokenizer=found)


def fitted(
    config: TrainConfig,
    name: str,  # of the start
    out_dir: str | Path = "runs",
) -> TrainConfig:
    "Take sizes and tokenizer from a start. ValueError, FileNotFoundError: one line."
    sizes = start_sizes(name, out_dir)
    T = sizes["block_size"]
    windows = max(1, round(config.total_batch / T))
    micro = max(b for b in divisors(windows) if b <= max(1, config.micro_batch))
    batch = {"total_batch": windows * T, "micro_batch": micro}
    new = replace(config, init_from=name, out_dir=str(out_dir), **sizes, **batch)
    has_one = tokenizer_name(name, out_dir) is not None
    return own_tokenizer(new) if has_one else new

# %% ../../nbs/tough/ch17b_start.ipynb #b7dd4559
def trains_on(config: TrainConfig) -> bool:
    "Whether a run changes trained weights, and its preset's rates are made for random ones."
    c = config
    return bool(c.init_from) and not c.lora_rank and "init_from" not in PRESETS[c.preset]


def gentle(config: TrainConfig) -> TrainConfig:
    "Lower the rates of a run that begins with trained weights."
    c = config
    if not trains_on(c):
        return c
    share = 16 if c.reward else 2 if c.questions else 4
    sizes = ("n_layer", "n_head", "n_embd")
    plain = (preset(name) for name in PRESETS if "init_from" not in PRESETS[name])
    alike = (p for p in plain if all(getattr(p, k) == getattr(c, k) for k in sizes))
    made = next(alike, c)  # how such weights are made
    lr, min_lr = min(c.lr, made.lr / share), min(c.min_lr, made.min_lr / share)
    return replace(c, lr=lr, min_lr=min_lr, muon_lr=min(c.muon_lr, made.lr / share))

# %% ../../nbs/tough/ch17b_start.ipynb #140f36bd
def check_start(config: TrainConfig):
    "Refuse sizes that are not those of the start. ValueError, FileNotFoundError: one line."
    c = own_tokenizer(config)  # says so where there is none
    for key, has in start_sizes(c.init_from, c.out_dir).items():
        want = getattr(c, key)
        if key == "block_size" and (want < has or c.grow):
            continue
        if want != has:
            fix = f"leave --{key} out"
            fix += ", or add --grow for a longer context" if key == "block_size" else ""
            raise ValueError(
                f"init_from={c.init_from} has {key}={has}, not {want}; {fix}, "
                "or begin without --init_from"
            )


def longer(
    table,  # (T, C) a row for each position
    n: int,
):  # (n, C)
    "Cut the position table, or repeat it."
    return table.repeat(-(-n // len(table)), 1)[:n].clone()


def other_tokens(
    table,  # (V, C) a row for each token of the old tokenizer, and spare ones
    old: Tokenizer,
    new: Tokenizer,
    rows: int,  # of the new table, at least `new.n_vocab`
):  # (rows, C)
    "Give each token its old row, or the mean of the rows of the old tokens that spell it."
    mean = table[: old.n_vocab].mean(0)  # (C,)
    out = mean.expand(rows, -1).clone()  # (rows, C)
    for token, i in new.ranks.items():
        pieces = [old.ranks[token]] if token in old.ranks else encode_piece(token, old.ranks)
        out[i] = table[pieces].mean(0)  # (len(pieces), C) -> (C,)
    for token, i in new.special.items():
        out[i] = table[old.special[token]] if token in old.special else mean
    return out

# %% ../../nbs/tough/ch17b_start.ipynb #02879e22
def choose_trained(
    config: TrainConfig,
    model,  # a GPT, on the CPU; changed in place
):
    "Freeze what a run does not train, or add its adapter."
    import torch

    from gpt2edu.model.lora import add_lora

    c = config
    if c.lora_rank:
        draw = torch.Generator().manual_seed(c.seed)
        add_lora(model, c.lora_rank, c.lora_alpha, c.lora_parts, draw)
    for name, p in model.named_parameters():
        if in_part(name, c.freeze):
            p.requires_grad_(False)

# %% ../../nbs/tough/ch17b_start.ipynb #5b6828f6
def load_start(
    config: TrainConfig,
    tokenizer: Tokenizer,  # of the run
):  # a GPT, on the CPU
    "Load the weights that a run begins with. ValueError, FileNotFoundError: one line."
    from gpt2edu.model.pretrained import TABLES, assembled, resize_vocab

    c = config
    check_start(c)
    place = find_start(c.init_from, c.out_dir)
    none = tokenizer_name(c.init_from, c.out_dir) is None
    model, old = load_model(str(place), c.out_dir, own=c.tokenizer if none else None)
    same = tokenizer.hash in (old.hash, with_chat(old).hash)
    if not (same or c.grow):
        raise ValueError(
            f"init_from={c.init_from} was trained with the tokenizer {old.name} "
            f"({old.n_vocab:,} ids), not {tokenizer.name} ({tokenizer.n_vocab:,} ids); "
            "leave --tokenizer out, or add --grow to fit its table"
        )
    rows = padded(tokenizer.n_vocab)
    shape = replace(model.config, block_size=c.block_size, vocab_size=rows)
    if same and shape == model.config:
        return model.train()
    weights, changed = model.state_dict(), {}
    for name in TABLES[: 1 if shape.tied else 2]:
        table = weights[name]
        table = resize_vocab(table, rows) if same else other_tokens(table, old, tokenizer, rows)
        changed[name] = table
    if (places := "transformer.wpe.weight") in weights:
        changed[places] = longer(weights[places], c.block_size)
    return assembled(shape, weights | changed).train()
