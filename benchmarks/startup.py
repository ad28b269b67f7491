"""How long the light commands take to start, beside an empty Python.

Bounds: `import gpt2edu` 0.15 s, `gpt2edu_train --help` 0.7 s, `gpt2edu_plan` 1 s. The processor's
seconds are the figure to compare: they hardly change when other programs run beside.

    python benchmarks/startup.py          medians of nine runs each, in seconds:
                                          the clock's and the processor's
"""

import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 9
BIN = Path(sys.executable).parent
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import numpy'": [sys.executable, "-c", "import numpy"],
    "python -c 'import gpt2edu'": [sys.executable, "-c", "import gpt2edu"],
    "gpt2edu_train --help": [BIN / "gpt2edu_train", "--help"],
    "gpt2edu_generate --help": [BIN / "gpt2edu_generate", "--help"],
    "gpt2edu_train --version": [BIN / "gpt2edu_train", "--version"],
    "gpt2edu_plan, of tiny": [BIN / "gpt2edu_plan"],
    "gpt2edu_plan, of gpt2-124m": [BIN / "gpt2edu_plan", "--preset", "gpt2-124m", "--gpu", "h100"],
    "python -c 'import torch'": [sys.executable, "-c", "import torch"],
}


def processor_seconds() -> float:
    "Seconds that the processor has spent on processes that have ended."
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def main():
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for name, command in COMMANDS.items():
        clock, processor = [], []
        for _ in range(RUNS):
            t0, p0 = time.perf_counter(), processor_seconds()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            clock.append(time.perf_counter() - t0)
            processor.append(processor_seconds() - p0)
        print(
            f"{name:28} {statistics.median(clock):.3f} s   "
            f"{statistics.median(processor):.3f} s of the processor"
        )


if __name__ == "__main__":
    main()
