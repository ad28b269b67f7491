"python -m gpt2edu is python -m gpt2edu.cli; with nothing behind it, it lists the commands."

import runpy
import sys

sys.argv += ["--help"] * (len(sys.argv) == 1)
runpy.run_module("gpt2edu.cli", run_name="__main__")
