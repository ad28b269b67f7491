"""One decision each for device, precision and compilation, and the reason for it in a line."""

# Made by tools/book.py from ../../book/tough/ch14_device.md: edit that, then `make book`.

# %% auto #0
__all__ = ['Choice', 'pick_device', 'describe', 'autocast', 'grad_scaler', 'best_dtype',
           'pick_dtype', 'multiply_fp32', 'set_precision', 'keep_freed_memory', 'compiler_error',
           'best_compile', 'pick_compile', 'keep_kernels_apart']

# %% ../../nbs/tough/ch14_device.ipynb #fad54fa9
import ctypes
import importlib.util
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from gpt2edu.choices import Compile, Device, Dtype, check_choice
from gpt2edu.machine.precision import BF16_FLAGS, cpu_flags

# %% ../../nbs/tough/ch14_device.ipynb #5c67def2
@dataclass(frozen=True)
class Choice:
    "A decision and why it was taken."

    value: Any
    reason: str  # one line, for the log

    def __str__(self):
        return f"{str(self.value).removeprefix('torch.')}: {self.reason}"

# %% ../../nbs/tough/ch14_device.ipynb #9bfdd0ea
def pick_device(choice: str = "auto") -> Choice:  # of a torch.device
    "Choose auto, cpu, cuda or mps. ValueError for what this machine or this PyTorch does not have."
    check_choice("device", choice, Device)
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if choice == "auto":
        kind = next(k for k, available in there.items() if available)
        why = {
            "cuda": "a CUDA GPU is there",
            "mps": "Apple's GPU is there",
            "cpu": "no GPU that PyTorch can use",
        }
        return Choice(torch.device(kind), why[kind])
    if not there[choice]:
        without = choice == "cuda" and not torch.version.cuda
        fault = "is built without CUDA" if without else f"finds no {choice} device"
        raise ValueError(
            f"device={choice}: PyTorch {torch.__version__} {fault} here; use auto or cpu"
        )
    return Choice(torch.device(choice), "asked for")

# %% ../../nbs/tough/ch14_device.ipynb #0253b174
def describe(device: str | torch.device) -> str:
    "Name the hardware and PyTorch's version, for logs."
    device = torch.device(device)
    if device.type == "cuda":
        p = torch.cuda.get_device_properties(device)
        name = f"{p.name}, {p.total_memory / 2**30:.0f} GiB, compute capability {p.major}.{p.minor}"
    else:
        caps = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        cpu = caps.get("cpu_name") or platform.processor() or platform.machine()
        gpu = "Apple GPU of " if device.type == "mps" else ""
        capability = torch.backends.cpu.get_cpu_capability()
        threads = torch.get_num_threads()
        name = f"{gpu}{cpu}, {threads} thread{'s' * (threads != 1)}, {capability}"
    return f"{name}, torch {torch.__version__}"

# %% ../../nbs/tough/ch14_device.ipynb #7b0dc92b
def autocast(
    device: str | torch.device,
    dtype: torch.dtype,
    cache: bool = True,  # whether to keep copies of the matrices until the context ends
) -> AbstractContextManager:
    "Run matrix products in `dtype` inside this context; fp32 needs none."
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=dtype, cache_enabled=cache)


def grad_scaler(device: str | torch.device, dtype: torch.dtype) -> torch.amp.GradScaler:
    "Make the loss scaler that fp16 needs; for any other precision it passes everything through."
    return torch.amp.GradScaler(torch.device(device).type, enabled=dtype == torch.float16)

# %% ../../nbs/tough/ch14_device.ipynb #d2609845
def best_dtype(
    kind: str,  # "cpu", "cuda" or "mps"
    capability: tuple[int, int] | None = None,  # CUDA compute capability, (7, 5) for a T4
    flags: frozenset[str] = frozenset(),  # from `cpu_flags`
) -> Choice:  # of a torch.dtype
    "Decide the precision from the hardware. A pure function: a table of cases tests it."
    if kind == "cuda":
        number = f"compute capability {capability[0]}.{capability[1]}"
        if capability >= (8, 0):
            return Choice(torch.bfloat16, f"{number} multiplies bf16 in hardware")
        if capability >= (7, 0):
            emulated = f"{number} only emulates bf16, slowly"
            return Choice(torch.float16, f"{emulated}; fp16 with loss scaling is in hardware")
        return Choice(torch.float32, f"{number} has no tensor cores for 16-bit numbers")
    if kind == "cpu":
        if found := [f for f in BF16_FLAGS if f in flags]:
            return Choice(torch.bfloat16, f"this processor has {found[0]}")
        neither = f"this processor has neither {' nor '.join(BF16_FLAGS)}"
        return Choice(torch.float32, f"{neither}: bf16 would be emulated")
    return Choice(torch.float32, f"16-bit training on {kind} has not been tried by this project")


def _capability(device: torch.device) -> tuple[int, int] | None:
    "Ask for the compute capability; None unless it is a CUDA device."
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


def pick_dtype(
    choice: str,  # auto, bf16, fp16 or fp32
    device: str | torch.device,
) -> Choice:  # of a torch.dtype
    "Choose the precision of the matrix products. An explicit choice is obeyed, with a warning."
    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    check_choice("dtype", choice, Dtype)
    device = torch.device(device)
    flags = cpu_flags() if device.type == "cpu" else frozenset()
    best = best_dtype(device.type, _capability(device), flags)
    if choice == "auto":
        return best
    if dtypes[choice] in (best.value, torch.float32):
        return Choice(dtypes[choice], "asked for")
    return Choice(dtypes[choice], f"asked for; auto takes {best!s}")

# %% ../../nbs/tough/ch14_device.ipynb #0064f43b
def multiply_fp32(how: str):  # "highest": fp32; "high": TF32 on GPUs that have it
    "Set how PyTorch multiplies fp32 matrices, without the warning of PyTorch 2.9."
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please use the new API settings")
        torch.set_float32_matmul_precision(how)


def set_precision(device: str | torch.device) -> Choice:  # of "high" (TF32) or "highest" (fp32)
    "Set how PyTorch multiplies fp32 matrices in this process: TF32 on GPUs that have it."
    device = torch.device(device)
    tf32 = device.type == "cuda" and _capability(device) >= (8, 0)
    multiply_fp32("high" if tf32 else "highest")
    if tf32:
        return Choice("high", "fp32 products use TF32")
    return Choice("highest", f"no TF32 on this {device.type}")

# %% ../../nbs/tough/ch14_device.ipynb #6e5bc020
def keep_freed_memory() -> bool:  # whether this system can
    """Let freed memory wait in this process for the next tensor.

    On Linux with glibc: up to 1 GiB of it waits, and tensors up to 32 MiB use it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # man mallopt
    if not mallopt:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, 32 << 20) and mallopt(M_TRIM_THRESHOLD, 1 << 30))

# %% ../../nbs/tough/ch14_device.ipynb #5f69dd83
def compiler_error() -> str:
    "Build a few lines as `torch.compile` does; return '' if that works, else what is missing."
    source = b"#include <Python.h>\n#include <vector>\n"
    source += b"int probe() { return std::vector<int>(1).size(); }\n"
    with tempfile.TemporaryDirectory() as folder:
        flags = ["-x", "c++", "-", "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}"]
        flags += ["-o", f"{folder}/probe.so"]
        cxx = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
        openmp, header = ["-fopenmp"], b"#include <omp.h>\n"
        if sys.platform == "darwin":  # PyTorch looks for OpenMP in several places there; we do not
            openmp, header = [], b""
        elif sys.platform == "win32":
            cxx, flags, openmp = "cl", ["/help"], []

        def build(flags: list[str], source: bytes) -> subprocess.CompletedProcess:
            return subprocess.run([cxx, *flags], input=source, capture_output=True, timeout=60)

        try:
            done = build([*flags, *openmp], header + source)
            if not done.returncode:
                return ""
            if b"Python.h" in done.stderr:
                return "no Python.h (package python3-dev)"
            if openmp and not build(flags, source).returncode:  # all is well, except for OpenMP
                return f"{cxx} has no OpenMP (package libomp-dev for clang, libgomp1 for gcc)"
        except (OSError, subprocess.TimeoutExpired):
            return f"no C++ compiler ({cxx})"
    return f"{cxx} does not work"


def best_compile(
    kind: str,  # "cpu", "cuda" or "mps"
    capability: tuple[int, int] | None,  # CUDA compute capability
    missing: str,  # what keeps `torch.compile` from working; '' if nothing
) -> Choice:  # of a bool
    "Decide whether to compile. A pure function of the facts."
    if missing:
        return Choice(False, f"{missing}; everything works without, more slowly")
    if kind == "cuda":
        old = capability < (7, 0)
        number = f"compute capability {capability[0]}.{capability[1]}"
        return Choice(not old, number + " is too old for triton" * old)
    if kind == "cpu":
        little = "on a CPU it takes a minute and gains little"
        return Choice(False, f"{little}; try compile=on for long runs")
    return Choice(False, f"compiling on {kind} has not been tried by this project")


def pick_compile(
    choice: str,  # auto, on or off
    device: str | torch.device,
) -> Choice:  # of a bool
    "Choose whether to compile the model. Raise ValueError if it is asked for and cannot work."
    check_choice("compile", choice, Compile)
    if choice == "off":
        return Choice(False, "asked for")
    device = torch.device(device)
    missing = compiler_error()
    if device.type == "cuda" and not missing and not importlib.util.find_spec("triton"):
        missing = "no triton"
    if choice == "auto":
        return best_compile(device.type, _capability(device), missing)
    if missing:
        raise ValueError(f"compile=on cannot work: {missing}; install it, or use compile=off")
    return Choice(True, "asked for")

# %% ../../nbs/tough/ch14_device.ipynb #fe4bb29a
def keep_kernels_apart():
    "Have PyTorch use compiled code only with the vector instructions that it was written for."
    kind, settings = torch.backends.cpu.get_cpu_capability(), torch.compiler.config
    if kind not in settings.cache_key_tag.split():
        settings.cache_key_tag = f"{settings.cache_key_tag} {kind}".strip()
