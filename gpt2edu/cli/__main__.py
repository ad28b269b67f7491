"""What python -m gpt2edu runs: the six commands under one name."""

# Made by tools/book.py from ../../book/tough/ch20c_main.md: edit that file, then `make book`.

# %% auto #0
__all__ = []

# %% ../../nbs/tough/ch20c_main.ipynb #f811ed08
import sys

from .commands import main

if __name__ == "__main__" and hasattr(
    sys.modules["__main__"], "__file__"
):  # a notebook has no file
    sys.argv += ["--help"] * (len(sys.argv) == 1)
    main()
