"""Start each of seven commands so that a signal ends it with one line, from the first moment."""

# Made by tools/book.py from ../../book/tough/ch21c_main.md: edit that, then `make book`.

# %% auto #0
__all__ = ['fill_closed_streams', 'program', 'train', 'prepare', 'generate', 'eval_', 'plan',
           'export', 'chat', 'main']

# %% ../../nbs/tough/ch21c_main.ipynb #f811ed08
import os
import sys

from gpt2edu.machine.signals import Stopped, end_on_signals, ignore_from_now_on, why


def fill_closed_streams():
    "Open the null device in place of each standard stream that is closed."
    while (fd := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(fd)


def program(
    name: str,  # of a function
    module: str = "gpt2edu.cli.commands",  # where it is
):
    "Run a command as a program that a signal can end at any moment."
    try:
        end_on_signals()
        fill_closed_streams()
        from importlib import import_module

        getattr(import_module(module), name)()
    except (KeyboardInterrupt, Stopped) as e:  # before the command could say so itself
        line, code = why(e)
        ignore_from_now_on()
        if sys.stderr:
            sys.stderr.write(f"gpt2edu_{name.strip('_')}: {line}\n".replace("_main", ""))
        sys.exit(code)


def train():
    program("train")


def prepare():
    program("prepare")


def generate():
    program("generate")


def eval_():
    program("eval_")


def plan():
    program("plan")


def export():
    program("export")


def chat():
    program("chat", "gpt2edu.cli.chat")


def main():
    program("main")


# a notebook has no file
if __name__ == "__main__" and hasattr(sys.modules["__main__"], "__file__"):
    main()
