"""One thread for each test process: two run side by side, and bits are equal only with equal threads."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; subprocesses and notebooks inherit it
