"""What tests share: a run of a second, a quiet environment, what a run has saved, what is kept."""

import os
import sys
from contextlib import contextmanager

import safetensors.torch
import torch

from gpt2edu.data import cache
from gpt2edu.train import checkpoint
from gpt2edu.train.config import preset
from gpt2edu.train.trainer import Trainer

SET_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
ENV = {k: v for k, v in os.environ.items() if k not in SET_BY_TORCHRUN} | {"OMP_NUM_THREADS": "1"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
TWO_RANKS = [*TORCHRUN, "--standalone", "--nproc_per_node=2"]
TINY = {
    "n_layer": 1, "n_head": 2, "n_embd": 32, "block_size": 32, "vocab_size": 300,
    "total_batch": 256, "micro_batch": 8, "max_steps": 12, "warmup_steps": 2,
    "eval_every": 4, "save_every": 4, "sample_every": 8, "val_tokens": 2048,
    "choice_items": 20, "device": "cpu", "dtype": "fp32", "compile": "off",
}  # fmt: skip


@contextmanager
def few_stories():
    "Let the embedded corpus have 400 stories."
    old, cache.N_STORIES = cache.N_STORIES, 400
    try:
        yield
    finally:
        cache.N_STORIES = old


def base_run(folder, **flags):
    "Train runs/base in a folder, on its own data; return the folder."
    config = preset("tiny", **flags, data_dir=str(folder / "data"), out_dir=str(folder / "runs"))
    Trainer(config, folder / "runs" / "base").run()
    return folder


def saved(folder):
    "The name of a run's last checkpoint, and the tensors of the model and the optimisers."
    path = checkpoint.latest(folder / "checkpoints")
    files = (checkpoint.MODEL, checkpoint.OPTIM)
    return {"name": path.name} | {n: safetensors.torch.load((path / n).read_bytes()) for n in files}


def unlike(a, b):
    "List what differs between two of `saved`, to the bit: nothing, if a run has resumed well."
    found = [] if a["name"] == b["name"] else [(a["name"], b["name"])]
    for file in (checkpoint.MODEL, checkpoint.OPTIM):
        if a[file].keys() != b[file].keys() or len(a[file]) < 4:
            found.append((file, a[file].keys() ^ b[file].keys()))
        else:
            found += [(file, k) for k, t in a[file].items() if not torch.equal(t, b[file][k])]
    return found


@contextmanager
def kept_for_backward(own):
    "Collect the bytes of what autograd keeps, by its place; what lies in a tensor of `own` is not."
    kept, places = {}, {t.untyped_storage().data_ptr() for t in own}

    def pack(t):
        s = t.untyped_storage()
        if s.data_ptr() not in places:
            kept[s.data_ptr()] = s.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        yield kept
