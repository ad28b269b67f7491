"""Learn how GPT-2 works, and train one."""

import sys

__version__ = "0.1.0"

if sys.version_info < (3, 11):  # run from a path, without pip's check; said in words that every Python reads
    raise ImportError(
        "gpt2edu needs Python 3.11 or newer, this is %d.%d; make the environment anew: python3.12 -m venv .venv"
        % sys.version_info[:2]
    )
