"""Ask how much memory there is, and refuse in one line what cannot fit into it."""

# Made by tools/book.py from ../../book/medium/ch09b_limits.md: edit that, then `make book`.

# %% auto #0
__all__ = ['machine_memory', 'need_memory']

# %% ../../nbs/medium/ch09b_limits.ipynb #38c90d78
import os
from contextlib import suppress
from pathlib import Path

# %% ../../nbs/medium/ch09b_limits.ipynb #bdf7e91f
def machine_memory() -> int | None:  # bytes; None where the system does not say
    "Ask how much memory this process may use: the machine's, or what a container allows."
    found = []
    with suppress(AttributeError, ValueError, OSError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            found.append(int(Path(limit).read_text(encoding="utf-8")))
    return min(found, default=None)

# %% ../../nbs/medium/ch09b_limits.ipynb #fe879ba0
def need_memory(
    n_bytes: int,  # that are needed at least
    what: str,  # needs them: "n_layer=12, n_embd=768"
    fix: str,  # what fits, or what to do
    memory: int | None = None,  # bytes of the device; None: this machine's
):
    "Refuse what is larger than the memory. ValueError, one line: got, the estimate, what fits."
    there = machine_memory() if memory is None else memory
    if there and n_bytes > there:
        need, has = (f"{n / 1e9:,.1f}" if n < 1e15 else f"{n / 1e9:.1e}" for n in (n_bytes, there))
        raise ValueError(f"{what} needs at least {need} GB of memory, there are {has} GB; {fix}")
