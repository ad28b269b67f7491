"""Real processes that talk through gloo. NCCL and more than one machine were not tested here."""

import json
import socket
import subprocess
import sys
import threading
import time

import pytest
import torch
import warm
from small_runs import ENV, SET_BY_TORCHRUN, TORCHRUN
from torch import nn

from gpt2edu.machine import distributed as d
from gpt2edu.machine.device import compiler_error
from gpt2edu.machine.distributed import Ranks, read_ranks

TRAIN = """
import hashlib, json, sys
from pathlib import Path
import numpy as np, torch
from gpt2edu.machine.distributed import gather_counts, mean_over_ranks, rank0_first
from gpt2edu.machine.distributed import start, stop, sync_if, wrap
from gpt2edu.data.loader import Loader
from gpt2edu.model.gpt import GPT, GPTConfig
from gpt2edu.train.optim import build_optimizers

folder, micro = Path(sys.argv[1]), int(sys.argv[2])
ranks = start("cpu")
if ranks.world_size > 1:  # as NCCL's group is, beside which rank0_first makes one of gloo
    torch.distributed.group.WORLD.bound_device_id = torch.device("cuda", ranks.local_rank)
with rank0_first(ranks):
    if ranks.world_size > 1:
        torch.distributed.group.WORLD.bound_device_id = None
    with open(folder / "order", "a") as f:
        f.write(f"{ranks.rank}\\n")
    if ranks.is_main:
        ids = np.random.default_rng(0).integers(0, 64, 4000).astype(np.uint16) // 3
        np.save(folder / "tokens.npy", ids)
tokens = np.load(folder / "tokens.npy")
another = torch.Generator().manual_seed(ranks.rank)  # each rank another seed
raw = GPT(GPTConfig(2, 2, 32, 16, 64), another)
model = wrap(raw, ranks)
assert (model is raw) == (ranks.world_size == 1)
(optimizer,) = build_optimizers(raw, lr=1e-2)
loader = Loader(tokens, micro, 16, seed=1, rank=ranks.rank, world_size=ranks.world_size)
n, losses = 16 // (micro * ranks.world_size), []
for _ in range(int(sys.argv[3])):
    total = torch.zeros(())
    for m in range(n):
        x, y = loader.next_batch()
        with sync_if(model, m == n - 1):
            loss = model(x, y)[1] / n
            loss.backward()
        total += loss.detach()
    torch.nn.utils.clip_grad_norm_(raw.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    losses.append(mean_over_ranks(total).item())
weights = b"".join(p.detach().numpy().tobytes() for p in raw.parameters())
prints = gather_counts([int.from_bytes(hashlib.sha256(weights).digest()[:7], "big"), ranks.rank])
if ranks.is_main:
    found = {"losses": losses, "prints": prints, "position": loader.position}
    (folder / "run.json").write_text(json.dumps(found))
stop()
"""


def run(command, **env):
    return warm.run(command, env={**ENV, **env})


def train(folder, nproc, micro, steps=12):
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN, encoding="utf-8")
    head = (
        [*TORCHRUN, "--standalone", f"--nproc_per_node={nproc}"] if nproc > 1 else [sys.executable]
    )
    done = run([*head, folder / "train.py", folder, str(micro), str(steps)])
    assert done.returncode == 0, done.stderr
    assert (folder / "order").read_text(encoding="utf-8").split() == sorted(map(str, range(nproc)))[
        :1
    ] + ["1"] * (nproc - 1)
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return train(tmp_path_factory.mktemp("alone") / "run", 1, 16)


# four a step with no_sync; one
@pytest.mark.parametrize("micro", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_two_ranks_train_as_one(tmp_path, alone, micro):
    two = train(tmp_path / "run", 2, micro)
    assert two["losses"] == pytest.approx(alone["losses"], abs=1e-4)  # sums in another order; fp32
    (first, r0), (second, r1) = two["prints"]
    assert first == second and (r0, r1) == (0, 1)
    assert two["position"] == alone["position"]
    assert alone["losses"][-1] < alone["losses"][0] - 0.3


@pytest.mark.slow
def test_two_agents_with_a_c10d_rendezvous_train_as_one(tmp_path, alone):
    "Two torchruns on loopback, as on two nodes, with one process each."
    (tmp_path / "train.py").write_text(TRAIN, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    line = [*TORCHRUN, "--nnodes=2", "--nproc_per_node=1", "--rdzv_id=t", "--rdzv_backend=c10d"]
    line += [
        f"--rdzv_endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1", tmp_path / "train.py",
        tmp_path, "4", "12",
    ]  # fmt: skip
    agents = [
        subprocess.Popen(list(map(str, line)), env=ENV, stderr=subprocess.PIPE) for _ in range(2)
    ]
    errors = [agent.communicate(timeout=600)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], errors
    two = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert two["losses"] == pytest.approx(alone["losses"], abs=1e-4)
    assert two["prints"][0][0] == two["prints"][1][0]


def test_without_a_launcher_the_process_is_alone():
    assert read_ranks({}) == Ranks(0, 1, 0) and Ranks().is_main
    assert read_ranks({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}) == Ranks(3, 4, 1)
    assert not Ranks(3, 4, 1).is_main


def test_the_environment_is_read_at_call_time(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert read_ranks() == Ranks(1, 2, 1)


def env(rank, world_size, local_rank):
    return {"RANK": rank, "WORLD_SIZE": world_size, "LOCAL_RANK": local_rank}


BAD = [
    (
        {"RANK": "0"},
        "got RANK without WORLD_SIZE and LOCAL_RANK in the environment; start with torchrun",
    ),
    ({"WORLD_SIZE": "8"}, "got WORLD_SIZE without RANK and LOCAL_RANK"),
    ({"RANK": "0", "WORLD_SIZE": "2"}, "got RANK and WORLD_SIZE without LOCAL_RANK"),
    (
        env("0", "two", "0"),
        "got RANK='0', WORLD_SIZE='two', LOCAL_RANK='0', expected whole numbers",
    ),
    (env("", "2", "0"), "got RANK='', WORLD_SIZE='2'"),
    (env("2", "2", "0"), "got RANK=2 with WORLD_SIZE=2, expected 0 to 1"),
    (env("-1", "2", "0"), "got RANK=-1 with WORLD_SIZE=2, expected 0 to 1"),
    (env("0", "2", "2"), "got LOCAL_RANK=2 with WORLD_SIZE=2, expected 0 to 1"),
    (env("0", "0", "0"), "expected WORLD_SIZE to be 1 or more"),
]


@pytest.mark.parametrize("bad,words", BAD)
def test_a_bad_environment_is_said_in_one_line(bad, words):
    with pytest.raises(ValueError) as e:
        read_ranks(bad)
    assert words in str(e.value) and "\n" not in str(e.value)


def message(monkeypatch, device="cpu", **bad):
    for name in SET_BY_TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    for name, value in bad.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError) as e:
        d.start(device, meet=0.5)
    assert "\n" not in str(e.value) and not torch.distributed.is_initialized()
    return str(e.value)


def test_nccl_needs_a_gpu_for_each_rank(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "device=cuda needs a GPU for NCCL" in message(monkeypatch, "cuda", **env("0", "2", "0"))
    assert "use device=cpu (gloo)" in message(monkeypatch, "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    words = "got LOCAL_RANK=1, but GPUs here: 1; use --nproc_per_node=1 at most"
    assert words in message(monkeypatch, "cuda", **env("1", "2", "1"))
    assert "device=mps cannot train with 2 ranks" in message(
        monkeypatch, "mps", **env("1", "2", "1")
    )


def test_nccl_is_told_its_gpu_and_gloo_nothing():
    assert d._gpu("cuda", Ranks(3, 8, 1)) == torch.device("cuda", 1)
    assert d._gpu("cpu", Ranks(3, 8, 1)) is None


def test_alone_there_is_no_group(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert d.start("cpu") == d.start("mps") == Ranks() and not torch.distributed.is_initialized()
    model, t = nn.Linear(2, 2), torch.tensor([1.0, 2.0], requires_grad=True)
    assert d.wrap(model, Ranks()) is model
    mean = d.mean_over_ranks(t)
    assert mean.tolist() == [1.0, 2.0] and mean is not t and not mean.requires_grad
    assert d.gather_counts([3, 4]) == [[3, 4]]
    for last in (True, False):
        with d.sync_if(model, last), d.rank0_first(Ranks()):
            pass
    d.stop()


def test_an_address_that_is_missing(monkeypatch):
    assert "got MASTER_ADDR='' and MASTER_PORT=''" in message(monkeypatch, **env("0", "2", "0"))
    bad = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "http"}
    assert "MASTER_PORT='http', expected the host and port" in message(
        monkeypatch, **env("0", "2", "0"), **bad
    )


def test_ranks_that_never_come(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as s:
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(s.getsockname()[1])}
    assert "is rank 0 running there?" in message(monkeypatch, **env("1", "2", "1"), **where)
    assert "rank 0 of 2 cannot meet the others" in message(
        monkeypatch, **env("0", "2", "0"), **where
    )


def test_a_rank_that_arrives_and_says_nothing(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    silent = threading.Thread(
        target=lambda: torch.distributed.TCPStore("127.0.0.1", port, 2, False), daemon=True
    )
    silent.start()
    for name, value in {
        **env("0", "2", "0"),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="rank 0 of 2 cannot meet the others") as e:
        d.start("cpu", meet=5, timeout=1)
    assert "\n" not in str(e.value) and not torch.distributed.is_initialized()


RESTART = """
import os, sys, torch
from gpt2edu.machine.distributed import mean_over_ranks, start, stop
ranks = start("cpu")
if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and not ranks.is_main:
    os.kill(os.getpid(), 9)
mean = mean_over_ranks(torch.tensor([float(ranks.rank)]))
# one write: print writes the end of the line by itself, and lines mix
sys.stdout.write(f"mean {mean.item()}\\n")
stop()
"""


@pytest.mark.slow
def test_a_killed_rank_is_started_again(tmp_path):
    (tmp_path / "restart.py").write_text(RESTART, encoding="utf-8")
    flags = ["--standalone", "--nproc_per_node=2", "--max-restarts=1"]
    done = run([*TORCHRUN, *flags, tmp_path / "restart.py"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n").count("mean 0.5") == 2


def meet(store, first, seconds=60.0):
    "What two ranks agree on: `first` begins half a second before the other."
    names = {}

    def rank(r):
        try:
            names[r] = d._new_name(store, Ranks(r, 2, r), seconds)
        except TimeoutError as e:
            names[r] = e

    threads = [threading.Thread(target=rank, args=[r]) for r in (first, 1 - first)]
    threads[0].start()
    time.sleep(0.7)
    threads[1].start()
    for thread in threads:
        thread.join()
    return names[0], names[1]


def test_ranks_that_are_started_again_do_not_call_the_dead():
    """Defect: torchrun keeps its store over restarts.

    Who looked first found the address of a dead rank, and hung.
    """
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    names = [meet(store, first) for first in (0, 1, 1, 0)]
    assert all(a == b for a, b in names) and len({a for a, _ in names}) == 4
    with pytest.raises(TimeoutError, match="not all ranks were there in"):
        d._new_name(store, Ranks(0, 2, 0), 0.2)
    with pytest.raises(TimeoutError):  # rank 0 is gone: its name stands there, and nobody answers
        d._new_name(store, Ranks(1, 2, 1), 0.2)


AGAIN = """
import os, sys
import torch
from gpt2edu.machine.distributed import start, stop
attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
ranks = start("cpu")
torch.distributed.all_reduce(torch.ones(1))
if ranks.is_main:
    print("attempt", attempt, flush=True)
if attempt != "5":
    os._exit(9)
stop()
"""


@pytest.mark.slow
def test_five_restarts(tmp_path):
    (tmp_path / "again.py").write_text(AGAIN, encoding="utf-8")
    done = run(
        [*TORCHRUN, "--standalone", "--nproc_per_node=2", "--max-restarts=5", tmp_path / "again.py"]
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:6] == [f"attempt {i}" for i in range(6)]


ENDS = """
import sys
from gpt2edu.machine.distributed import rank0_first, start, stop
try:
    ranks = start("cpu")
    with rank0_first(ranks):
        raise ValueError("no such corpus")
except ValueError as e:
    print(e, file=sys.stderr)
    sys.exit(2)
"""


def two_by_hand(tmp_path, port):
    "Run two ranks without torchrun, which would end the second by itself."
    (tmp_path / "ends.py").write_text(ENDS, encoding="utf-8")
    where, done = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}, {}

    def go(rank):
        done[rank] = run([sys.executable, tmp_path / "ends.py"], **env(rank, "2", rank), **where)

    threads = [threading.Thread(target=go, args=(rank,)) for rank in "01"]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [done[r].returncode for r in "01"] == [2, 2]
    assert [done[r].stderr.count("\n") for r in "01"] == [1, 1]
    return done["0"].stderr, done["1"].stderr


def test_when_rank_0_fails_the_others_stop_with_one_line_and_exit_code_2(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    first, second = two_by_hand(tmp_path, port)
    assert first.strip() == "no such corpus"
    assert second.strip() == "rank 1 stops: rank 0 failed before it; see rank 0's message"


def test_a_port_in_use_ends_every_rank_in_time(tmp_path):
    """Defect: a client of TCPStore waits without end, whatever its timeout.

    It does so on a port where another program listens.
    """
    t0 = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as other:
        first, second = two_by_hand(tmp_path, other.getsockname()[1])
    assert "rank 0 of 2 cannot meet the others at 127.0.0.1:" in first
    assert "another program holds this port; choose another" in first
    assert "no answer in 5 s; is it another program's port" in second
    assert time.monotonic() - t0 < 300  # 7 s where cores are free


def test_a_bad_environment_ends_a_program_with_exit_code_2(tmp_path):
    (tmp_path / "ends.py").write_text(ENDS, encoding="utf-8")
    done = run([sys.executable, tmp_path / "ends.py"], RANK="0")
    assert (
        done.returncode == 2
        and done.stderr.startswith("got RANK without")
        and done.stderr.count("\n") == 1
    )


COMPILED = """
import sys, torch
from gpt2edu.machine.distributed import mean_over_ranks, start, stop, wrap
from gpt2edu.model import gpt

gpt.LOGITS_AT_ONCE = 500  # so that a small model takes several chunks
ranks = start("cpu")
model = gpt.GPT(gpt.GPTConfig(1, 2, 16, 16, 64), torch.Generator().manual_seed(0))
plain = gpt.GPT(model.config, torch.Generator().manual_seed(0))
forward = wrap(torch.compile(model, backend=sys.argv[1]), ranks)
ids = torch.randint(64, (2, 4, 17), generator=torch.Generator().manual_seed(1))  # both ranks'
x, y = ids[ranks.rank, :, :-1], ids[ranks.rank, :, 1:]
for step in range(2):  # the second one uses what was compiled
    forward.zero_grad()
    loss = forward(x, y)[1]
    loss.backward()
    with torch.no_grad():
        unseen = forward(x, y)[1]  # as a validation does between two steps
    torch.testing.assert_close(unseen, loss.detach())
plain(ids[..., :-1].flatten(0, 1), ids[..., 1:].flatten(0, 1))[1].backward()  # in chunks as well
gpt.LOGITS_AT_ONCE = 2**26
whole = gpt.GPT(model.config, torch.Generator().manual_seed(0))
reference = whole(ids[..., :-1].flatten(0, 1), ids[..., 1:].flatten(0, 1))[1]  # all at once
reference.backward()
torch.testing.assert_close(mean_over_ranks(loss), reference.detach())
for p, q, r in zip(model.parameters(), plain.parameters(), whole.parameters(), strict=True):
    torch.testing.assert_close(p.grad, r.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(q.grad, r.grad, rtol=1e-4, atol=1e-6)
compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
sys.stdout.write(f"equal {compiled}\\n")  # in one piece: two ranks write into one pipe
stop()
"""


SLOW = pytest.mark.slow


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=SLOW)])
def test_compiler_ddp_and_chunked_loss_together(tmp_path, backend):
    "Gradients of two compiled ranks are those of one plain model, and no-grad passes disturb none."
    if backend == "inductor" and compiler_error():
        pytest.skip(compiler_error())
    (tmp_path / "both.py").write_text(COMPILED, encoding="utf-8")
    done = run(
        [*TORCHRUN, "--standalone", "--nproc_per_node=2", str(tmp_path / "both.py"), backend],
        TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("equal True") == 2
