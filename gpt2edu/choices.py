"""One list for each flag that takes one of a few words, read by help, completion and errors."""

# Made by tools/book.py from ../book/tough/ch14a_choices.md: edit that, then `make book`.

# %% auto #0
__all__ = ['Device', 'Dtype', 'Compile', 'Optimizer', 'Tracker', 'options', 'in_words', 'refusal',
           'check_choice']

# %% ../nbs/tough/ch14a_choices.ipynb #71255c37
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

Device = Literal["auto", "cpu", "cuda", "mps"]
Dtype = Literal["auto", "bf16", "fp16", "fp32"]
Compile = Literal["auto", "on", "off"]
Optimizer = Literal["adamw", "muon"]
Tracker = Literal["tensorboard", "wandb", "trackio"]

# %% ../nbs/tough/ch14a_choices.ipynb #f3abf2a3
def options(
    kind: Any,  # a type, for example `Device` or `Tracker | None`
) -> tuple[str, ...]:  # () for a type that takes any value
    "List the words that a type allows."
    if get_origin(kind) in (Union, UnionType):
        return tuple(word for part in get_args(kind) for word in options(part))
    return get_args(kind) if get_origin(kind) is Literal else ()


def in_words(
    words: tuple[str, ...],
) -> str:  # "auto, cpu or mps"
    "Join words as a sentence does."
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def refusal(
    name: str,  # of the flag
    value: str,  # what was asked for
    words: tuple[str, ...],  # what is allowed
) -> str:
    "Say that a word is not one of the list."
    number = value.removeprefix("cuda:")
    hint = ""
    if f"cuda:{number}" == value and number.isdecimal():  # a GPU is chosen in the environment
        hint = f"; for that GPU: CUDA_VISIBLE_DEVICES={number}"
    return f"{name}={value!r} is not known; use {in_words(words)}{hint}"


def check_choice(
    name: str,  # of the flag
    value: str,  # what was asked for
    kind: Any,  # its type
) -> None:
    "Raise ValueError, one line, unless the value is one of the listed words."
    if value not in options(kind):
        raise ValueError(refusal(name, value, options(kind)))
