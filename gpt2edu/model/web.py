"""Write model and tokenizer into one small file, which a web page can open and run."""

# Made by tools/book.py from ../../book/medium/ch13c_web.md: edit that, then `make book`.

# %% auto #0
__all__ = ['WEB_FORMAT', 'check_page', 'export_web']

# %% ../../nbs/medium/ch13c_web.ipynb #f2d0b19e
import json
from pathlib import Path

from safetensors.torch import save

from gpt2edu.machine.atomic import write_atomically
from gpt2edu.model.gpt import GPT, GPTConfig
from gpt2edu.model.pretrained import TABLES, flip, resize_vocab
from gpt2edu.model.variants import changed
from gpt2edu.text.tokenizer import GPT2_PATTERN, Tokenizer

# %% ../../nbs/medium/ch13c_web.ipynb #b81fb7e4
WEB_FORMAT = "gpt2edu web 1"


def check_page(c: GPTConfig, tokenizer: Tokenizer):
    "Refuse a tokenizer that the page or the model does not know. ValueError, one line."
    if c.vocab_size < tokenizer.n_vocab:
        raise ValueError(
            f"the model has {c.vocab_size} ids and "
            f"tokenizer {tokenizer.name} {tokenizer.n_vocab}: not a pair"
        )
    if tokenizer.pattern != GPT2_PATTERN:
        raise ValueError(
            f"tokenizer {tokenizer.name} cuts text by another pattern than GPT-2's; "
            "the page knows no other"
        )


def export_web(
    model: GPT,  # not compiled, not wrapped; rows above the tokenizer's ids are cut off
    tokenizer: Tokenizer,  # the one that the model was trained with
    file: str | Path,  # must not be there yet
    name: str,  # for people: what the page calls the model
) -> Path:
    "Write one file that the website's playground opens. ValueError, OSError: one line."
    file, c = Path(file).absolute(), model.config
    if file.exists():
        raise ValueError(f"{file} exists; choose another name with --out, or delete it first")
    check_page(c, tokenizer)
    weights = {k: flip(k, v) for k, v in model.state_dict().items()}
    weights |= {k: resize_vocab(weights[k], tokenizer.n_vocab) for k in TABLES}
    if c.tied:  # the page takes the token table
        weights.pop("lm_head.weight")
    weights = {k: v.half().contiguous() for k, v in weights.items()}
    for key, weight in weights.items():
        if not weight.isfinite().all():
            raise ValueError(
                f"{key} holds a weight that fp16 cannot: expected at most 65504 in size; "
                "use an earlier checkpoint"
            )
    sizes = {k: getattr(c, k) for k in ("n_layer", "n_head", "n_embd", "block_size")}
    about = {"format": WEB_FORMAT, "name": name, "config": sizes | changed(c)}
    about["config"]["vocab_size"] = tokenizer.n_vocab
    about["tokenizer"] = tokenizer.to_dict()
    header = {"gpt2edu": json.dumps(about, ensure_ascii=False)}
    write_atomically(file, save(weights, metadata=header))
    return file
