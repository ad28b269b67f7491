"""Tokens per second, time and disk left: a bar on a terminal, lines in a log file."""

# Made by tools/book.py from ../../book/tough/ch15c_progress.md: edit that, then `make book`.

# %% auto #0
__all__ = ['LINE_EVERY', 'duration', 'gigabytes', 'free_bytes', 'need_room', 'Progress']

# %% ../../nbs/tough/ch15c_progress.ipynb #75260a63
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

# %% ../../nbs/tough/ch15c_progress.ipynb #35628c0c
def duration(seconds: float) -> str:
    "Write a time for people: 20 s, 3 min, 2 h 05 min, 9.5 days, 2.1 years."
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    days = seconds / 86_400
    if days < 2:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min"
    return f"{days:,.1f} days" if days < 2 * 365.25 else f"{days / 365.25:,.1f} years"


def gigabytes(n_bytes: float) -> str:
    "Write a number of bytes for people, in GB (1e9 bytes), or in MB where it is small."
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"

# %% ../../nbs/tough/ch15c_progress.ipynb #a02b8e55
LINE_EVERY = 10.0  # seconds between lines in a log file


def free_bytes(folder: Path) -> int:
    "Return the free bytes on the disk of a folder; the folder need not exist yet."
    folder = Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def need_room(
    folder: Path,
    n_bytes: int,  # what will be written, about
):
    "Refuse work whose result would not fit on the disk. Raises OSError, one line."
    free = free_bytes(folder)
    if free < n_bytes:
        fix = "free some, choose another disk with --out, or ask for less with --max_tokens"
        room = f"about {gigabytes(n_bytes)} are needed and {gigabytes(free)} are free"
        raise OSError(f"{folder}: no room, {room}; {fix}")


class Progress:
    "Show the progress of long work; use it as a context manager."

    def __init__(
        self,
        expected: int,  # tokens in all, about
        done: int,  # tokens that are there from an earlier start
        folder: Path,  # on the disk that fills
        say: Callable,  # prints a line
        every: float = LINE_EVERY,  # seconds between lines
    ):
        self.expected = expected
        self.done = done
        self.new = 0  # tokens since this start
        self.folder = folder
        self.say = say
        self.every = every
        self.began = self.told = time.monotonic()
        looks = {"unit": " tokens", "unit_scale": True, "disable": None, "file": sys.stderr}
        self.bar = tqdm(total=max(expected, done), initial=done, **looks)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error):
        self.bar.close()

    def line(self) -> str:
        "Return the progress as one line."
        speed = self.new / max(1e-9, time.monotonic() - self.began)
        at = self.done + self.new
        left = duration(max(0, self.expected - at) / speed) if self.new else "unknown"
        share = min(1.0, at / max(1, self.expected))
        head = f"progress: {at:,} of about {self.expected:,} tokens ({share:.1%})"
        disk = gigabytes(free_bytes(self.folder))
        return f"{head}, {speed:,.0f} tokens/s, time left {left}, disk left {disk}"

    def add(self, tokens: int):
        "Count tokens, and report if the last report was long enough ago."
        self.new += tokens
        self.bar.update(tokens)
        if time.monotonic() - self.told >= self.every:
            self.told = time.monotonic()
            if self.bar.disable:
                self.say(self.line())
            else:
                self.bar.set_postfix_str(f"disk left {gigabytes(free_bytes(self.folder))}")
