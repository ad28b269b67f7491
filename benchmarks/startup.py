"""Rows about commands: how long the light ones take to start."""

import os
import statistics
import subprocess
import sys
import time

from benchmarks.timing import ROOT, spread

PYTHON = [sys.executable]
CLI = [sys.executable, "-m", "gpt2edu.cli"]  # what the scripts call; runs in a checkout too
COMMANDS = {
    "import gpt2edu": [*PYTHON, "-c", "import gpt2edu"],
    "gpt2edu_train --help": [*CLI, "train", "--help"],
    "gpt2edu_plan": [*CLI, "plan"],
    "gpt2edu_plan of gpt2-124m": [*CLI, "plan", "--preset", "gpt2-124m", "--gpu", "h100"],
    "an empty Python": [*PYTHON, "-c", "pass"],
    "import torch": [*PYTHON, "-c", "import torch"],
}


def children_cpu() -> float:  # seconds
    "Ask what the processor has spent on processes that have ended; 0 where that is not told."
    spent = os.times()
    return spent.children_user + spent.children_system


def startup(asked) -> dict:
    "Wall and processor seconds of the light commands, in turn."
    clock = {name: [] for name in COMMANDS}
    cpu = {name: [] for name in COMMANDS}
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    for i in range(2 if asked.tiny else 10):
        for name, command in COMMANDS.items():
            if asked.tiny and name == "import torch":
                continue
            began, spent = time.perf_counter(), children_cpu()
            options = {"cwd": ROOT, "env": env, "check": True, "capture_output": True}
            subprocess.run(command, **options)
            if i:  # the first reads the files
                clock[name].append(time.perf_counter() - began)
                cpu[name].append(children_cpu() - spent)
    figures = {f"{name}, s": spread(v) for name, v in clock.items() if v}
    figures |= {
        f"{name}, s of the processor": spread([statistics.median(v)])
        for name, v in cpu.items()
        if v
    }
    bounded = list(COMMANDS)[:3]
    return {"figures": figures, "ratios": {n: figures[f"{n}, s"] for n in bounded}, "settings": {}}
