"""Python in processes that have PyTorch loaded already.

A program that trains spends four seconds on loading PyTorch, its compiler and Matplotlib before it
does anything. `multiprocessing`'s fork server loads them once for all tests of a worker. What it
forks is a process of its own, with its own folder, environment, arguments, pipes and exit code.
A test of how a program starts or ends, or of how much memory it takes, needs `subprocess` itself.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import DupFd
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, CompletedProcess, TimeoutExpired

LOADED = ["torch", "torch._dynamo", "torch.distributed.run", "matplotlib.figure"]
LOADED += ["matplotlib.backends.backend_agg", "gpt2edu.cli.commands", "gpt2edu.cli.chat"]
LOADED += ["gpt2edu.train.trainer", "gpt2edu.train.log"]
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
    plain = line[1] in ("-m", "-c") or not line[1].startswith("-")
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


def become(line, cwd, env, files):
    "Be the process that this line would start, at the head of a session of its own."
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file.detach(), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    if "PYTHONWARNINGS" in env:
        warnings.simplefilter(env["PYTHONWARNINGS"])
    own = {"encoding": "utf-8", "closefd": False}
    sys.stdin, sys.stdout = open(0, **own), open(1, "w", **own)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", **own)
    how, *rest = line[1:]
    sys.path.insert(0, cwd if how in ("-m", "-c") else os.path.dirname(os.path.join(cwd, how)))
    sys.argv = {"-m": rest, "-c": ["-c", *rest[1:]]}.get(how, [how, *rest])
    try:
        if how == "-m":
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif how == "-c":
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102
        else:
            runpy.run_path(how, run_name="__main__")
    finally:
        atexit._run_exitfuncs()


class Popen:
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
        ALIVE.append(self)
        for file in writers:
            file.close()

    @property
    def pid(self):
        return self.process.pid

    @property
    def returncode(self):
        return self.poll()

    def poll(self):
        with ONE_AT_A_TIME:
            code = self.process.exitcode
        if code is not None and self in ALIVE:
            ALIVE.remove(self)
        return code

    def wait(self, timeout=None):
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end and time.monotonic() > end:
                raise TimeoutExpired(self.args, timeout)
            time.sleep(0.005)
        return code

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.process.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

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
