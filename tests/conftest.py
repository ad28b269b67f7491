"""Settings of every test process."""

import os

from hypothesis import settings

# Two processes run side by side, and bits are equal only with equal threads. Subprocesses and notebooks inherit it.
os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
# The same examples on every machine; `pytest --hypothesis-profile=explore` looks for new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile("same")
