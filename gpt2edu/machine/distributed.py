"""All-reduce by hand, then DDP: many processes train one model, with the losses of one."""

# Made by tools/book.py from ../../book/tough/ch16_distributed.md: edit that, then `make book`.

# %% auto #0
__all__ = ['BACKENDS', 'Ranks', 'read_ranks', 'start', 'stop', 'mean_over_ranks', 'gather_counts',
           'rank0_first', 'from_rank0', 'agreement', 'wrap', 'sync_if', 'shard', 'whole']

# %% ../../nbs/tough/ch16_distributed.ipynb #05d95c30
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

# %% ../../nbs/tough/ch16_distributed.ipynb #2a00362a
@dataclass(frozen=True)
class Ranks:
    "Which process this is, of how many."

    rank: int = 0  # of this process, over all nodes
    world_size: int = 1  # number of processes, over all nodes
    local_rank: int = 0  # of this process on its node: the number of its GPU

    @property
    def is_main(self) -> bool:
        "Say whether this is the process that logs and saves."
        return self.rank == 0


def read_ranks(
    env: Mapping[str, str] = os.environ,  # read when called
) -> Ranks:
    """Read what a launcher such as torchrun says; without one, this process is alone.

    ValueError if it makes no sense.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    given = [n for n in names if n in env]
    missing = [n for n in names if n not in env]
    if not given:
        return Ranks()
    if missing:
        raise ValueError(
            f"got {' and '.join(given)} without {' and '.join(missing)} in the environment; "
            f"start with torchrun, which sets all three, or unset {' and '.join(given)}"
        )
    try:
        rank, world_size, local_rank = (int(env[n]) for n in names)
    except ValueError:
        got = ", ".join(f"{n}={env[n]!r}" for n in names)
        raise ValueError(
            f"got {got}, expected whole numbers; start with torchrun, which sets them"
        ) from None
    for name, value in (("RANK", rank), ("LOCAL_RANK", local_rank)):
        if not 0 <= value < world_size:
            top = f"0 to {world_size - 1}" if world_size > 0 else "WORLD_SIZE to be 1 or more"
            raise ValueError(
                f"got {name}={value} with WORLD_SIZE={world_size}, expected {top}; "
                "start with torchrun"
            )
    return Ranks(rank, world_size, local_rank)

# %% ../../nbs/tough/ch16_distributed.ipynb #acfc1d55
BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


def _within(seconds: float, work, what: str):
    """Run `work` in a thread; ValueError if it does not return in time.

    The thread is left behind, and ends with us.
    """
    box = {}

    def run():
        try:
            box["result"] = work()
        except (OSError, RuntimeError) as e:  # torch's errors of the network are RuntimeErrors
            box["error"] = e

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if "error" in box:
        reason = str(box["error"]).splitlines()[0]
        if "EADDRINUSE" in reason:
            reason = "another program holds this port; choose another"
        raise ValueError(f"{what}: {reason}")
    if "result" not in box:
        raise ValueError(
            f"{what}: no answer in {seconds:g} s; "
            "is it another program's port, or are ranks missing?"
        )
    return box["result"]


def _wait_for_port(host: str, port: int, seconds: float, what: str) -> None:
    "Return as soon as a process listens there; ValueError if none does in time."
    end = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection((host, port), timeout=1).close()
        except OSError as e:
            if time.monotonic() > end:
                why = f"{e} for {seconds:g} s; is rank 0 running there?"
                raise ValueError(f"{what}: {why}") from None
        time.sleep(0.1)


def _check_device(device_type: str, ranks: Ranks) -> None:
    "ValueError unless every process of this node can have a device of its own."
    if device_type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(
                f"device=cuda needs a GPU for NCCL, and PyTorch {torch.__version__} "
                "finds none here; use device=cpu (gloo)"
            )
        if ranks.local_rank >= (n := torch.cuda.device_count()):
            raise ValueError(
                f"got LOCAL_RANK={ranks.local_rank}, but GPUs here: {n}; "
                f"use --nproc_per_node={n} at most"
            )
    elif device_type not in BACKENDS and ranks.world_size > 1:
        raise ValueError(
            f"device={device_type} cannot train with {ranks.world_size} ranks; "
            "use cuda (NCCL) or cpu (gloo)"
        )


def _gpu(device_type: str, ranks: Ranks) -> torch.device | None:
    "Say which GPU NCCL may use in this process; gloo takes None."
    return torch.device("cuda", ranks.local_rank) if device_type == "cuda" else None


def _new_name(store, ranks: Ranks, seconds: float) -> str:
    """Agree on a name that no earlier start of these ranks has used.

    TimeoutError if they are not all there in time.
    """
    mine = os.urandom(8).hex()
    end = time.monotonic() + seconds

    def wait_for(key: str, until: float) -> bool:
        while not (there := store.check([key])) and time.monotonic() < until:
            time.sleep(0.02)
        if not there and time.monotonic() > end:
            raise TimeoutError(f"not all ranks were there in {seconds:g} s; did one end early?")
        return there

    if ranks.is_main:
        store.set("name", mine)
        for rank in range(1, ranks.world_size):
            wait_for(f"{mine}/{rank}", end)
            store.set(f"{mine}/welcome/{store.get(f'{mine}/{rank}').decode()}", "")
        return mine
    while True:
        wait_for("name", end)
        name = store.get("name").decode()
        store.set(f"{name}/{ranks.rank}", mine)
        if wait_for(f"{name}/welcome/{mine}", time.monotonic() + 0.5):
            return name

# %% ../../nbs/tough/ch16_distributed.ipynb #1ea978a3
def start(
    device_type: str = "cpu",  # cpu: gloo, cuda: NCCL
    meet: float = 60.0,  # seconds to wait for the other ranks
    timeout: float = 300.0,  # seconds after which an exchange has failed
) -> Ranks:
    "Join the other processes, if there are any. ValueError in one line for what cannot work."
    ranks = read_ranks()
    _check_device(device_type, ranks)
    if device_type == "cuda":
        torch.cuda.set_device(ranks.local_rank)
    if ranks.world_size == 1:
        return ranks
    host = os.environ.get("MASTER_ADDR", "")
    port = os.environ.get("MASTER_PORT", "")
    if not host or not port.isdecimal():
        raise ValueError(
            f"got MASTER_ADDR={host!r} and MASTER_PORT={port!r}, "
            "expected the host and port of rank 0; start with torchrun, which sets them"
        )
    what = f"rank {ranks.rank} of {ranks.world_size} cannot meet the others at {host}:{port}"
    if not ranks.is_main:
        _wait_for_port(host, int(port), meet, what)
    patience = meet if ranks.is_main else 4.0  # rank 0 waits until all are there

    def join():
        limit = timedelta(seconds=patience)
        return next(dist.rendezvous("env://", ranks.rank, ranks.world_size, timeout=limit))[0]

    store = _within(patience + 1, join, what)
    name = _within(meet + 1, lambda: _new_name(store, ranks, meet), what)
    store = dist.PrefixStore(name, store)
    limit = timedelta(seconds=timeout)
    store.set_timeout(limit)
    options = {"rank": ranks.rank, "world_size": ranks.world_size, "timeout": limit}
    options["device_id"] = _gpu(device_type, ranks)
    try:
        dist.init_process_group(BACKENDS[device_type], store=store, **options)
    except RuntimeError as e:
        raise ValueError(f"{what}: {str(e).splitlines()[0]}") from None
    return ranks


def stop(
    failed: bool = False,  # whether this rank ends by an error, so that the others may be elsewhere
) -> None:
    """Leave the group, if there is one. Call it at the end, so that no rank waits for a lost one.

    With NCCL the ranks leave together: one that fails alone would wait for the others before it
    says why. So it does not.
    A thread of gloo that still holds a tensor when Python ends aborts the process (pytorch issue
    190489), and after DDP the threads live on. A pause lets them put down what they hold.
    """
    if dist.is_initialized() and not (failed and dist.get_backend() == "nccl"):
        dist.destroy_process_group()
        time.sleep(0.1)

# %% ../../nbs/tough/ch16_distributed.ipynb #49ccb62c
def mean_over_ranks(
    tensor: Tensor,  # of the same shape on every rank
) -> Tensor:  # new, of the same shape; the same on every rank
    "Take the mean over all ranks; alone, a copy. Every rank has to call it."
    total = tensor.detach().clone()
    if dist.is_initialized():
        dist.all_reduce(total)  # gloo has sums, and no means
        total = total / dist.get_world_size()
    return total


def gather_counts(
    counts: Sequence[int],  # of this rank; equally many on every rank
) -> list[list[int]]:  # [rank][i]; the same on every rank
    "Give every rank the counts of all ranks. Every rank has to call it."
    if not dist.is_initialized():
        return [list(counts)]
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    mine = torch.tensor(list(counts), dtype=torch.int64, device=device)  # (n,)
    rows = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, mine)
    return torch.stack(rows).tolist()  # (world_size, n)

# %% ../../nbs/tough/ch16_distributed.ipynb #e0388371
@contextmanager
def rank0_first(
    ranks: Ranks,  # from `start`
    limit: float = 24 * 3600.0,  # seconds that the others wait
) -> Iterator[None]:
    "Run the block on rank 0, then on the others. If it fails on rank 0, they raise ValueError."
    if ranks.world_size == 1:
        yield
        return
    group = dist.new_group(backend="gloo", timeout=timedelta(seconds=limit))
    done = torch.zeros(1, dtype=torch.int64)
    try:
        if ranks.is_main:
            try:
                yield
                done.fill_(1)
            finally:
                dist.broadcast(done, src=0, group=group)
        else:
            dist.broadcast(done, src=0, group=group)
            if not done.item():
                raise ValueError(
                    f"rank {ranks.rank} stops: rank 0 failed before it; see rank 0's message"
                )
            yield
    finally:
        dist.destroy_process_group(group)


def from_rank0(
    ranks: Ranks,  # from `start`
    make: Callable[[], Any],  # called on rank 0 only
) -> Any:  # the same on every rank
    """Decide something once: rank 0 makes a value, all get it.

    If it fails there, the others raise ValueError.
    """
    if ranks.world_size == 1:
        return make()
    box = [None, False]  # value, whether it was made
    try:
        if ranks.is_main:
            box = [make(), True]
    finally:
        dist.broadcast_object_list(box, src=0)
    if not box[1]:
        raise ValueError(f"rank {ranks.rank} stops: rank 0 failed before it; see rank 0's message")
    return box[0]

# %% ../../nbs/tough/ch16_distributed.ipynb #04fd24eb
def agreement(
    ranks: Ranks,  # from `start`
) -> Callable[[str], str] | None:  # found here -> found by the first rank; None alone
    """Share what any rank has found with all of them; '' means that a rank found nothing.

    Every rank has to call what this returns.
    """
    if ranks.world_size == 1:
        return None

    def agree(found: str) -> str:
        group = dist.new_group(backend="gloo")
        all_found = [""] * ranks.world_size
        dist.all_gather_object(all_found, found, group=group)
        dist.destroy_process_group(group)
        return next((f"{text} (rank {rank})" for rank, text in enumerate(all_found) if text), "")

    return agree

# %% ../../nbs/tough/ch16_distributed.ipynb #16584b52
def wrap(
    model: nn.Module,  # on its device
    ranks: Ranks,  # from `start`
) -> nn.Module:
    "Make `backward` average the gradients over the ranks; alone, return the model itself."
    if ranks.world_size == 1:
        return model
    mine = [ranks.local_rank] if next(model.parameters()).is_cuda else None
    return nn.parallel.DistributedDataParallel(model, device_ids=mine, gradient_as_bucket_view=True)


def sync_if(
    model: nn.Module,  # from `wrap` or `shard`
    last: bool,  # whether this is the last micro-batch of the step
) -> AbstractContextManager:
    "Around forward and backward: exchange gradients only after the last micro-batch."
    if hasattr(model, "set_requires_gradient_sync"):  # split by `shard`
        model.set_requires_gradient_sync(last)
        model.set_is_last_backward(last)
    return nullcontext() if last or not hasattr(model, "no_sync") else model.no_sync()

# %% ../../nbs/tough/ch16_distributed.ipynb #e9953b5b
def shard(
    model: nn.Module,  # on its device; changed in place
    blocks: Iterable[nn.Module],  # its parts that are put together one at a time
    ranks: Ranks,  # from `start`; more than one
) -> nn.Module:  # the model itself
    "Leave each rank its part of every tensor; forward and backward put together what they need."
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(next(model.parameters()).device.type, (ranks.world_size,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)

# %% ../../nbs/tough/ch16_distributed.ipynb #08b622e1
@contextmanager
def whole(
    model: nn.Module,  # from `shard`; any other is whole anyway
) -> Iterator[None]:
    "Within, each rank has all weights and computes alone. Every rank has to come here."
    parts = [m for m in model.modules() if hasattr(m, "unshard")]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(part is not model, recurse=False)
