"python -m gpt2edu is python -m gpt2edu.cli; with nothing behind it, it lists the commands."

import sys

from gpt2edu.cli.__main__ import main

sys.argv += ["--help"] * (len(sys.argv) == 1)
main()
