"""Settings of every test process."""

import ctypes
import os
import random
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Two processes run side by side, and bits are equal only with equal threads.
# Subprocesses and notebooks inherit it.
os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
if sys.platform == "linux":
    # no huge pages, as on most machines: memory is what was asked for, and a fault a page
    PR_SET_THP_DISABLE = 41
    ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
if hasattr(signal, "SIGHUP"):  # `nohup pytest` has switched it off, and subprocesses inherit that
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
# The same examples on every machine; `pytest --hypothesis-profile=explore` looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None)
settings.load_profile("same")

# `pytest -m quick`: what CI runs on every system and every Python, in a few minutes on two cores.
QUICK = "attention generate loader metrics model plan release repo shards site tokenizer".split()


# Debian's, or what GitHub's machines have
BROWSERS = [Path("/usr/bin/chromium"), Path("/usr/bin/google-chrome")]
CHROMIUM = next((path for path in BROWSERS if path.exists()), BROWSERS[0])


@pytest.fixture(scope="module")
def browser():
    "Debian's chromium; a test that asks for it skips where it is not there."
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    api.expect.set_options(timeout=60_000)  # a busy machine
    with api.sync_playwright() as p:
        # Docker has no user namespace for chromium's own sandbox, and little of /dev/shm
        flags = ["--no-sandbox", "--disable-dev-shm-usage"]
        chromium = p.chromium.launch(executable_path=str(CHROMIUM), args=flags, timeout=180_000)
        yield chromium
        chromium.close()


# What takes half a minute or more comes first: the last of a suite leaves a core idle.
LONG = ("test_runs[ch", "test_the_first_hour_on_a_gpu_is_rehearsed")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not item.name.startswith(LONG))
    for item in items:
        if item.path.stem.removeprefix("test_") in QUICK and not item.get_closest_marker("slow"):
            item.add_marker("quick")


def pytest_runtest_setup():
    "The same chance on every machine, whatever this worker has run before."
    random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
