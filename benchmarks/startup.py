"""How long the light commands take to start, beside an empty Python. Bound: `gpt2edu_train --help` under 1 s.

    python benchmarks/startup.py          median and worst of nine runs each, in seconds
"""

import os
import platform
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
    "python -c 'import torch'": [sys.executable, "-c", "import torch"],
}


def main():
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for name, command in COMMANDS.items():
        seconds = []
        for _ in range(RUNS):
            t0 = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - t0)
        print(f"{name:28} median {statistics.median(seconds):.3f} s   worst {max(seconds):.3f} s")


if __name__ == "__main__":
    main()
