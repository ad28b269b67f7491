"""What python -m gpt2edu runs: the six commands under one name."""

# Made by tools/book.py from ../../book/tough/ch20c_main.md: edit that, then `make book`.

# %% auto #0
__all__ = []

# %% ../../nbs/tough/ch20c_main.ipynb #f811ed08
import sys

from gpt2edu.cli.commands import main

# a notebook has no file
if __name__ == "__main__" and hasattr(sys.modules["__main__"], "__file__"):
    main()
