"""Settings of every test process."""

import os

from hypothesis import settings

# Two processes run side by side, and bits are equal only with equal threads.
# Subprocesses and notebooks inherit it.
os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
# The same examples on every machine; `pytest --hypothesis-profile=explore` looks for new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile("same")

# `pytest -m quick`: what CI runs on every system and every Python, in a few minutes on two cores.
QUICK = "attention generate loader metrics model plan release repo shards site tokenizer".split()


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem.removeprefix("test_") in QUICK and not item.get_closest_marker("slow"):
            item.add_marker("quick")
