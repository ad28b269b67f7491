"""Shared by every benchmark: subjects that take turns, median and spread, and the machine's limits.

A subject is a process of its own, so that its memory, its allocator and its threads are its own
too. Subjects take turns, A B A B, so that a busy machine slows all alike; while one works the
others wait for a line. A figure is the median with the quartiles beside it, and a ratio is that of
the pairs.
"""

import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERVE = "import sys; from benchmarks.timing import serve; serve(*sys.argv[1:])"


class CannotRun(Exception):
    "Why a benchmark, or one side of it, does not run here: no nanoGPT, no bf16."


# figures


def spread(
    values: list[float],
) -> dict:  # median, the quartiles, and how many there are
    "Sum up measurements."
    if len(values) < 2:
        return {"median": values[0], "low": values[0], "high": values[0], "n": 1}
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "low": low, "high": high, "n": len(values)}


def ratio(over: list[float], under: list[float]) -> dict:
    "Sum up the ratios of pairs that were measured one after the other."
    return spread([a / b for a, b in zip(over, under, strict=True)])


def each(values: list[float], by: Callable[[float], float]) -> dict:
    "Sum up measurements in another unit, such as tokens/s for seconds."
    return spread([by(v) for v in values])


# subjects


class Subject:
    "A process that builds what is measured, and repeats it when it is asked to."

    def __init__(
        self,
        maker: str,  # "module:function" of this package; it returns what is to be repeated
        env: dict | None = None,  # added to the environment
        **arguments,  # of the maker, as JSON has them
    ):
        self.name = maker
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, maker, json.dumps(arguments)],
            cwd=ROOT,
            env=os.environ | (env or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def answer(self) -> dict:
        "Wait for a line. RuntimeError where the process has ended, CannotRun where it says why."
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            said = self.errors.read().strip().splitlines() or ["no message"]
            raise RuntimeError(f"{self.name}: {said[-1]}")
        found = json.loads(line)
        if "cannot" in found:
            raise CannotRun(found["cannot"])
        return found

    def turn(self, n: int = 1) -> dict:  # seconds of each time, what the last gave, peak memory
        "Let it do its work n times."
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self):
        self.process.stdin.close()
        self.process.stdout.read()
        self.process.wait()
        self.errors.close()


def peak_memory() -> int:  # bytes
    "Ask what this process has held at most; on Linux without what its parent held."
    if Path("/proc/self/status").exists():
        return status("VmHWM")
    import resource

    unit = 1 if platform.system() == "Darwin" else 1024  # others count in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def status(name: str) -> int:  # bytes
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def serve(maker: str, arguments: str):
    "Be a subject: say when it is built, then repeat the work as often as each line says."
    answers, sys.stdout = sys.stdout, sys.stderr  # peers print what they like

    def say(**found):
        print(json.dumps(found), file=answers, flush=True)

    module, function = maker.split(":")
    try:
        work = getattr(importlib.import_module(f"benchmarks.{module}"), function)(
            **json.loads(arguments)
        )
    except CannotRun as why:
        return say(cannot=str(why))
    say(ready=True)
    for line in sys.stdin:
        seconds, cpu = [], time.process_time()
        for _ in range(int(line)):
            began = time.perf_counter()
            value = work()
            seconds.append(time.perf_counter() - began)
        cpu = time.process_time() - cpu
        say(seconds=seconds, cpu=cpu, value=value, peak=peak_memory())


def in_turn(
    subjects: dict[str, Subject],
    turns: int,
    n: int = 1,  # times in a turn; their median counts
    warm: int = 1,  # turns that do not count
) -> dict[str, dict]:  # name → seconds of each turn, peak in bytes, the last value
    "Let subjects take turns; those that cannot run here are left out."
    found = {}
    for name, subject in subjects.items():  # built one after the other, measured when all are
        try:
            subject.answer()
            found[name] = {"seconds": [], "cpu": []}
        except CannotRun as why:
            found[name] = {"cannot": str(why)}
    there = {k: s for k, s in subjects.items() if "cannot" not in found[k]}
    try:
        for i in range(turns + warm):
            for name, subject in there.items():
                got = subject.turn(n)
                if i >= warm:
                    found[name]["seconds"].append(statistics.median(got["seconds"]))
                    found[name]["cpu"].append(got["cpu"] / n)
                found[name] |= {"peak": got["peak"], "value": got["value"]}
    finally:
        for subject in subjects.values():
            subject.close()
    return found


def alone(maker: str, env: dict | None = None, **arguments) -> dict:
    "Let one subject do its work once, then end it."
    return in_turn({"it": Subject(maker, env, **arguments)}, 1, warm=0)["it"]


# the machine


def packages() -> dict[str, str]:
    "Name the versions of what is measured."
    found = {"python": platform.python_version()}
    for name in ("torch", "transformers", "tiktoken", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def commit(folder: Path = ROOT) -> str:
    "Name the commit of a checkout, with a mark where files differ from it; '' if there is none."
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def made() -> dict:
    "Say when a measurement is made, of which commit, and how busy the machine is."
    load = [round(x, 2) for x in os.getloadavg()[:2]] if hasattr(os, "getloadavg") else []
    return {"date": datetime.now().date().isoformat(), "commit": commit(), "load": load}


def machine() -> dict:
    "Describe this machine; `kind` is the name of its file of results."
    import torch

    from gpt2edu.machine import device
    from gpt2edu.machine.limits import machine_memory

    dtype = device.pick_dtype("auto", "cpu").value
    auto = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "fp32")
    hardware = device.describe("cpu").split(", ")[0]
    capability = torch.backends.cpu.get_cpu_capability()
    kind = "-".join(f"{hardware} {capability} {auto}".lower().replace("(r)", "").split())
    told = "ATEN_CPU_CAPABILITY" in os.environ
    return {
        "kind": "".join(c for c in kind if c.isalnum() or c in "-."),
        "hardware": hardware,
        "capability": capability + " (told to do without more)" * told,
        "auto": auto,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": machine_memory(),
        "system": platform.system(),
        "versions": packages(),
    }


def bandwidth(n_bytes: int) -> float:  # bytes/s
    "Measure how fast memory is read: the faster of a sum and a product of a matrix and a vector."
    import torch

    matrix = torch.ones(n_bytes // 4 // 4096, 4096)
    x = torch.ones(4096)
    best = 0.0
    for read in (matrix.sum, lambda: torch.mv(matrix, x)):
        read()
        for _ in range(3):
            began = time.perf_counter()
            read()
            best = max(best, matrix.nbytes / (time.perf_counter() - began))
    return best


def make_limits(auto: str, tiny: bool = False) -> Callable[[], dict]:
    "Make a subject that measures what the machine can do at most."
    import torch

    from gpt2edu.train.config import measure_peak

    dtypes = {"fp32": torch.float32, auto: torch.bfloat16 if auto == "bf16" else torch.float32}
    seconds, n_bytes = (0.02, 1 << 20) if tiny else (0.6, 512 << 20)

    def measure() -> dict:
        peaks = {k: measure_peak("cpu", dtype, seconds) for k, dtype in dtypes.items()}
        return peaks | {"read": bandwidth(n_bytes)}

    return measure


def limits(auto: str, tiny: bool) -> dict[str, dict]:  # FLOP/s by dtype, bytes/s of reading
    "Measure the limits three times in a process of its own."
    subject = Subject("timing:make_limits", auto=auto, tiny=tiny)
    subject.answer()
    found = [subject.turn()["value"] for _ in range(3)]
    subject.close()
    return {k: spread([f[k] for f in found]) for k in found[0]}
