"""Speed and memory beside the peers, and the first hour on a GPU: `python -m benchmarks`."""
