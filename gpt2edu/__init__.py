"""Learn how GPT-2 works, and train one."""

import sys

__version__ = "0.1.0"

if sys.version_info < (3, 11):  # run from a path, without pip's check; every Python reads this
    line = (
        "gpt2edu needs Python 3.11 or newer, this is %d.%d; "
        "make the environment anew: python3.12 -m venv .venv" % sys.version_info[:2]
    )
    if sys.argv[:1] == ["-m"]:  # python -m gpt2edu: one line, and no traceback
        sys.stderr.write(line + "\n")
        sys.exit(2)
    raise ImportError(line)

# What most programs need, loaded when it is asked for: `import gpt2edu` alone loads no PyTorch.
HOMES = {
    "GPT": "model.gpt",
    "GPTConfig": "model.gpt",
    "Tokenizer": "text.tokenizer",
    "Trainer": "train.trainer",
    "from_pretrained": "model.pretrained",
    "generate": "model.generate",
    "load_run": "train.runs",
    "preset": "train.config",
}
__all__ = list(HOMES)


def __getattr__(name):
    "Load one of the names above from its module."
    from importlib import import_module

    if name not in HOMES:
        raise AttributeError("module %r has no attribute %r" % (__name__, name))
    return getattr(import_module("." + HOMES[name], __name__), name)


def __dir__():
    return sorted(set(globals()) | set(HOMES))
