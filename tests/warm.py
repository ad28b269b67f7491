"""Python in processes that have PyTorch loaded already.

A program that trains spends four seconds on loading PyTorch, its compiler and Matplotlib before it
does anything. `multiprocessing`'s fork server loads them once for all tests of a worker. What it
forks is a process of its own, with its own folder, environment, arguments, pipes and exit code.
A test of how a program starts or ends, or of how much memory it takes, needs `subprocess` itself.
"""

import atexit
import ctypes
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from multiprocessing.reduction import DupFd, recv_handle, send_handle
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, CompletedProcess, TimeoutExpired

LOADED = ["torch", "torch._dynamo", "torch.distributed.run", "matplotlib.figure"]
LOADED += ["matplotlib.backends.backend_agg", "gpt2edu.cli.commands", "gpt2edu.cli.chat"]
LOADED += ["gpt2edu.train.trainer", "gpt2edu.train.log"]
LOADED += ["pyarrow.parquet", "pandas", "httpx"]  # of datasets and the hub, which read settings
# what an interpreter or a library reads as it starts
AT_THE_START = (
    "PYTHON",
    "LC_",
    "LANG",
    "LD_",
    "MALLOC_",
    "MPL",
    "OMP_",
    "MKL_",
    "ONEDNN_",
    "ATEN_",
)
TORCHRUN = ["-m", "torch.distributed.run"]
NURSERY = b"nursery"  # the name of its process
LIBRARY = str(Path(__file__).parents[1])
SERVER = multiprocessing.get_context("forkserver") if sys.platform == "linux" else None
if SERVER:
    SERVER.set_forkserver_preload(LOADED)
ONE_AT_A_TIME = threading.Lock()  # to start one looks after all others
ALIVE = []


@atexit.register
def end_all():
    "Of a test that failed; else this process would wait for them."
    for p in ALIVE:
        p.kill()


def can_fork(line, env) -> bool:
    "Whether this is Python, in an environment that the fork server could have had."
    names = {n for n in env.keys() | os.environ.keys() if n.startswith(tuple(AT_THE_START))}
    same = all(env.get(n) == os.environ.get(n) for n in names - {"PYTHONWARNINGS", "PYTHONPATH"})
    same &= env.get("PYTHONPATH") in (os.environ.get("PYTHONPATH"), LIBRARY)
    plain = line[1] in ("-m", "-c", "-u") or not line[1].startswith("-")
    return SERVER is not None and same and line[0] == sys.executable and plain


def itself(thing):
    return thing


class Passed:
    """An open file that a new process gets as it is forked.

    A `DupFd` made earlier waits in this process to be fetched, and the pipe is open until then: for
    ever, if the new process is killed before.
    """

    def __init__(self, file):
        self.number = file.fileno()

    def __reduce__(self):
        return itself, (DupFd(self.number),)


def become(line, cwd, env, files, ready=None):
    "Be the process that this line would start, at the head of a session of its own."
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file if isinstance(file, int) else file.detach(), number)
    if ready:
        os.write(ready, str(os.getpid()).encode())
        os.close(ready)
    atexit.unregister(shutil.rmtree)  # matplotlib's, where there is no home: the server's own
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    if line[1:3] == TORCHRUN:
        fork_ranks()
    if "PYTHONWARNINGS" in env:
        warnings.simplefilter(env["PYTHONWARNINGS"])
    words = line[2:] if line[1] == "-u" else line[1:]
    own = {"encoding": "utf-8", "closefd": False}
    sys.stdin, sys.stdout = open(0, **own), open(1, "w", **own)
    sys.stdout.reconfigure(write_through=len(words) < len(line) - 1)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", **own)
    try:
        play(words)
    finally:
        atexit._run_exitfuncs()


def play(words):
    "Run a module, a program or a file, as the words after `python` say."
    how, *rest = words
    sys.path.insert(0, os.path.dirname(os.path.abspath(how)) if how[0] != "-" else os.getcwd())
    sys.argv = {"-m": rest, "-c": ["-c", *rest[1:]]}.get(how, [how, *rest])
    if how == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102
    else:
        runpy.run_path(how, run_name="__main__")


def prctl(option, value):
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def fork_ranks():
    """Let this process, which will be torchrun's agent, fork its ranks as well.

    The agent has threads by then: a process without any forks them, and they become the agent's
    children, as what is left behind by a child of a child does.
    """
    prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    agent, nursery = multiprocessing.Pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        prctl(15, NURSERY)  # PR_SET_NAME
        agent.close()
        try:
            while True:
                fork_one(nursery, nursery.recv())
        finally:  # the agent has ended
            os._exit(0)
    nursery.close()
    atexit.register(lambda: (agent.close(), os.waitpid(pid, 0)))
    from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler

    real = SubprocessHandler._popen

    def popen(self, line, env):
        files = [0, self._stdout or 1, self._stderr or 2]
        return Rank(agent, list(line), env, files) if can_fork(line, env) else real(self, line, env)

    SubprocessHandler._popen = popen


def fork_one(nursery, order):
    "Fork a rank, by way of a process that ends at once."
    files = [recv_handle(nursery) for _ in range(3)]
    done, ready = os.pipe()
    fork = multiprocessing.get_context("fork")
    between = os.fork()
    if between == 0:
        nursery.close()
        os.close(done)
        prctl(15, b"python")
        fork.Process(target=become, args=(*order, files, ready)).start()
        os._exit(0)
    os.close(ready)
    os.waitpid(between, 0)
    with open(done, encoding="utf-8") as f:
        nursery.send(int(f.read()))
    for file in files:
        os.close(file)


def ranks(agent):
    "The processes that torchrun's agent has started."
    found = Path(f"/proc/{agent}/task/{agent}/children").read_text(encoding="utf-8").split()
    names = {pid: Path(f"/proc/{pid}/comm").read_bytes() for pid in found}
    return [int(pid) for pid, name in names.items() if name != NURSERY + b"\n"]


class Process:
    "What `subprocess.Popen` can do once it has started."

    @property
    def returncode(self):
        return self.poll()

    def wait(self, timeout=None):
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end and time.monotonic() > end:
                raise TimeoutExpired(self.args, timeout)
            time.sleep(0.005)
        return code

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


class Rank(Process):
    "As torchrun's agent sees it: a child of its own."

    def __init__(self, nursery, line, env, files):
        self.args, self.code = line, None
        nursery.send((line, os.getcwd(), env))
        for file in files:
            send_handle(nursery, file if isinstance(file, int) else file.fileno(), None)
        self.pid = nursery.recv()

    def poll(self):
        if self.code is None and (found := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.code = os.waitstatus_to_exitcode(found[1])
        return self.code


class Popen(Process):
    "As `subprocess.Popen`, as far as the tests need it."

    def __init__(self, line, cwd, env, input, stdout, stderr, text):
        self.args = line
        given = tempfile.TemporaryFile()
        given.write(input if isinstance(input, bytes) else input.encode())
        given.seek(0)
        self.stdin = self.stdout = self.stderr = None
        writers = [given]
        for name, kind in (("stdout", stdout), ("stderr", stderr)):
            if kind == PIPE:
                r, w = os.pipe()
                setattr(self, name, open(r, encoding="utf-8") if text else open(r, "rb"))
                writers.append(open(w, "wb"))
            elif kind == STDOUT:
                writers.append(writers[-1])
            else:
                writers.append(open(os.devnull, "wb"))
        files = [Passed(f) for f in writers]
        self.process = SERVER.Process(target=become, args=(line, str(cwd), dict(env), files))
        with ONE_AT_A_TIME:
            self.process.start()
        self.pid = self.process.pid
        ALIVE.append(self)
        for file in writers:
            file.close()

    def poll(self):
        with ONE_AT_A_TIME:
            code = self.process.exitcode
        if code is not None and self in ALIVE:
            ALIVE.remove(self)
        return code

    def communicate(self, timeout=None):
        with ThreadPoolExecutor() as pool:
            parts = [f and pool.submit(f.read) for f in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except TimeoutExpired:
                self.kill()
                raise
            return [part and part.result() for part in parts]


def start(line, *, cwd=None, env=os.environ, stdout=DEVNULL, stderr=DEVNULL):
    "Start Python: a fork where that is possible, else a program as any other."
    line, cwd = [str(word) for word in line], cwd or os.getcwd()
    if can_fork(line, env):
        return Popen(line, cwd, env, "", stdout, stderr, True)
    pipes = {"stdout": stdout, "stderr": stderr, "text": True}
    return subprocess.Popen(line, cwd=cwd, env=env, start_new_session=True, **pipes)


def run(line, *, cwd=None, env=os.environ, input="", timeout=600, text=True):
    "As `subprocess.run` with `capture_output=True`."
    line, cwd = [str(word) for word in line], cwd or os.getcwd()
    if not can_fork(line, env):
        options = {"cwd": cwd, "env": env, "input": input, "timeout": timeout, "text": text}
        return subprocess.run(line, capture_output=True, **options)
    p = Popen(line, cwd, env, input, PIPE, PIPE, text)
    said = p.communicate(timeout)
    return CompletedProcess(line, p.returncode, *said)


def shell(line, *, cwd=None, env=os.environ):
    "Type a line in bash. Where it is no more than one command of Python, bash takes it apart only."
    options = {"cwd": cwd, "env": env, "capture_output": True, "text": True}
    if not set("|&;<>") & set(line):
        apart = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], check=True, **options)
        words = apart.stdout.split("\0")[:-1]
        if words[0] == sys.executable:
            return run(words, cwd=cwd, env=env)
    return subprocess.run(["bash", "-c", line], timeout=300, **options)


def kernel(line, *, cwd=None, env=os.environ, **_):
    "In place of `jupyter_client`'s `launch_kernel`."
    p = start(line, cwd=cwd, env=env)
    while p.poll() is None and os.getpgid(p.pid) == os.getpgid(0):  # it will be told to stop, alone
        time.sleep(0.001)
    return p


if __name__ == "__main__":  # a Python whose torchrun forks its ranks
    if sys.argv[1:3] == TORCHRUN:
        for name in LOADED:
            import_module(name)
        fork_ranks()
    del sys.path[0]
    play(sys.argv[1:])
