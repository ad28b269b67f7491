"python -m gpt2edu is python -m gpt2edu.cli."

import runpy

runpy.run_module("gpt2edu.cli", run_name="__main__")
