"""See which part of a training step takes the time, before you try to make it faster."""

# Made by tools/book.py from ../../book/tough/ch19e_profile.md: edit that, then `make book`.

# %% auto #0
__all__ = ['PARTS', 'WARM', 'COSTLIEST', 'COLLECTIVES', 'Profiler', 'shares', 'costliest']

# %% ../../nbs/tough/ch19e_profile.ipynb #0ab368fa
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as watch

from gpt2edu.machine.atomic import temporary

# %% ../../nbs/tough/ch19e_profile.ipynb #eeb653eb
PARTS = ("data", "forward", "backward", "optimizer")
WARM = 3  # steps before the first that counts
COSTLIEST = 10  # kernels that are printed
COLLECTIVES = ("nccl", "gloo", "c10d::")  # how the names of operations between ranks begin


class Profiler:
    """Watch steps of a run: some in a trace, then as many by a stopwatch.

    Source: torch.profiler's documentation, "Introducing PyTorch Profiler".
    """

    def __init__(
        self,
        steps: int,  # to trace, and to time
        folder: Path,  # where trace.json is written
        device: torch.device,
        say: Callable,  # gets the lines of the result
    ):
        self.steps, self.folder, self.device, self.say = steps, Path(folder), device, say
        self.done = 0  # steps
        self.trace = None  # while it is recorded
        self.seconds = None  # of each part, while they are timed

    def wait(self):
        "Let the device finish what it was given."
        if self.device.type != "cpu":
            getattr(torch, self.device.type).synchronize()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        "Add to the seconds of a part."
        self.wait()
        began = time.perf_counter()
        yield
        self.wait()
        self.seconds[name] += time.perf_counter() - began

    def part(self, name: str):  # a context manager
        "Mark a part of a step, one of `PARTS`."
        if self.trace:
            return record_function(name)
        return self.timed(name) if self.seconds else nullcontext()

    def step(self):
        "Begin or end what is due after a step."
        self.done += 1
        if self.done == WARM:
            kinds = [ProfilerActivity.CPU]
            kinds += [ProfilerActivity.CUDA] * (self.device.type == "cuda")
            self.trace = watch(activities=kinds)
            self.wait()
            self.trace.start()
        elif self.done == WARM + self.steps:
            self.wait()
            self.stop()
            self.seconds = dict.fromkeys(PARTS, 0.0)
            self.began = time.perf_counter()
        elif self.done == WARM + 2 * self.steps:
            whole = time.perf_counter() - self.began
            self.say(f"profile: {shares(self.seconds, whole)} of {self.steps} steps")
            self.seconds = None

    def close(self):
        "End what is under way; say so if the run was too short."
        needed = WARM + 2 * self.steps
        if self.done < needed:
            if self.trace:
                self.trace.stop()
            self.trace = self.seconds = None
            self.say(f"profile: not finished: it needs {needed} steps, the run made {self.done}")
            self.done = needed  # if the same object runs again, nothing is left to do

    def stop(self):
        "End the trace, write it, and tell the kernels that took most of its time."
        trace, self.trace = self.trace, None
        trace.stop()
        for line in costliest(trace.key_averages(), self.device.type):
            self.say(f"profile: {line}")
        path = self.folder / "trace.json"
        try:
            self.write(trace, path)
        except OSError as e:
            why = e.strerror or e
            self.say(f"profile: cannot write {path} ({why}); training continues without it")
        else:
            self.say(f"profile: {path} opens in ui.perfetto.dev")

    def write(self, trace, path: Path):
        "Write a trace, whole or not at all. OSError."
        path.parent.mkdir(exist_ok=True)
        temp = temporary(path)
        try:
            trace.export_chrome_trace(str(temp))
            os.replace(temp, path)
        finally:
            with suppress(OSError):
                temp.unlink()

# %% ../../nbs/tough/ch19e_profile.ipynb #21e34902
def shares(
    seconds: dict[str, float],  # of each part
    whole: float,  # seconds of the same steps
) -> str:
    "Write the share of each part in a line."
    rest = {"other": max(0.0, whole - sum(seconds.values()))}
    return ", ".join(f"{name} {s / whole:.0%}" for name, s in (seconds | rest).items())

# %% ../../nbs/tough/ch19e_profile.ipynb #4caba862
def costliest(
    events,  # torch's table of averages
    kind: str,  # of the device: cpu, cuda, mps
) -> Iterator[str]:  # lines
    "Describe the operations that took most time, and all collectives together."
    key = "self_device_time_total" if kind == "cuda" else "self_cpu_time_total"
    if kind == "cuda":  # no operations of the CPU, and no names of parts, which span kernels
        own = (e for e in events if e.device_type == DeviceType.CUDA)
        events = [e for e in own if not e.is_user_annotation]
    found = {e.key: (getattr(e, key), e.count) for e in events if e.key not in PARTS}
    total = sum(t for t, _ in found.values()) or 1.0
    for name, (t, n) in sorted(found.items(), key=lambda row: -row[1][0])[:COSTLIEST]:
        yield f"{t / total:6.1%}  {name[:60]} ({n:,} calls)"
    between = sum(t for name, (t, _) in found.items() if name.startswith(COLLECTIVES))
    if between:
        yield f"{between / total:6.1%}  between the ranks, all together"
