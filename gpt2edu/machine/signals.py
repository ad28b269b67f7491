"""Ctrl-C ends a command with one line, whenever you press it."""

# Made by tools/book.py from ../../book/easy/ch03f_signals.md: edit that, then `make book`.

# %% auto #0
__all__ = ['IMPORT', 'READER', 'ending', 'Stopped', 'Interrupted', 'undisturbed', 'is_busy',
           'again', 'must_wait', 'Deaf', 'be_deaf', 'raised_before', 'ignore_from_now_on', 'leave',
           'why', 'end_on_signals']

# %% ../../nbs/easy/ch03f_signals.ipynb #c26fbefb
import os
import signal
import sys
import threading
import time
from contextlib import suppress

# %% ../../nbs/easy/ch03f_signals.ipynb #1b84c45b
def ending() -> list[signal.Signals]:
    "List the signals that ask this process to end; what `nohup` has switched off is left out."
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    found = [getattr(signal, name) for name in names]
    off = signal.SIG_IGN
    return [s for s in found if s == signal.SIGINT or signal.getsignal(s) != off]

# %% ../../nbs/easy/ch03f_signals.ipynb #532f06f6
class Stopped(BaseException):
    "A signal asked the program to end. Not an Exception, so that no handler on the way catches it."

    def __init__(self, name: str):  # SIGTERM or SIGHUP
        super().__init__(name)  # of our own, or a codec would put words of its own around the name

    @property
    def code(self) -> int:  # 143 for SIGTERM
        return 128 + signal.Signals[str(self)]


class Interrupted(KeyboardInterrupt):
    "Ctrl-C was pressed."

# %% ../../nbs/easy/ch03f_signals.ipynb #d90ca6e9
IMPORT = "<frozen importlib._bootstrap>"  # the file name of Python's own import


def undisturbed(action, *args, **kwargs):
    "Call something that no signal may cut in two; the signal waits until the call is done."
    return action(*args, **kwargs)


def is_busy(frame) -> bool:
    "Whether an exception here would do harm."
    while frame is not None:
        code = frame.f_code
        if code.co_filename == IMPORT or code is undisturbed.__code__:
            return True
        frame = frame.f_back
    return False

# %% ../../nbs/easy/ch03f_signals.ipynb #1009d62d
def again(number: int) -> bool:  # whether the system has an alarm
    "Have a signal come again in a moment."
    if not hasattr(signal, "setitimer"):
        return False
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(number))
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    return True


def must_wait(number: int, frame) -> bool:
    "Whether a signal cannot be acted on now; then it comes again."
    return is_busy(frame) and again(number)

# %% ../../nbs/easy/ch03f_signals.ipynb #73dac6ee
READER = "gpt2edu reads ahead"  # the name of such threads


class Deaf:
    "Do nothing when asked to end: that is under way."

    def __init__(self, raised: BaseException | None):  # what the first signal has raised
        self.raised = raised

    def __call__(self, number, frame):
        pass


def be_deaf(raised: BaseException | None = None):
    "Act on no further signal."
    for s in ending():
        signal.signal(s, Deaf(raised))  # not SIG_IGN: one may be here already


def raised_before(e: BaseException) -> BaseException:
    "Give what a signal has raised, of which other code may have made this exception."
    found = (getattr(signal.getsignal(s), "raised", None) for s in ending())
    return next((raised for raised in found if raised is not None), e)


def ignore_from_now_on():
    "Ignore signals for good, Python's own end included, which takes the handlers away."
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)
    ours = ending()
    be_deaf()
    for s in ours:
        signal.signal(s, signal.SIG_IGN)


def leave(code: int):
    "End the program at once if a reader is at work; otherwise Python's own end can follow."
    if any(t.name == READER for t in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)


def why(e: BaseException) -> tuple[str, int]:
    "Say how a signal ended the program, in words and as an exit code."
    if isinstance(e, Stopped) and str(e) != "SIGINT":
        return f"stopped by {e}", e.code
    return "interrupted", 130


def end_on_signals():
    "Make a signal raise KeyboardInterrupt or Stopped: once, and never at a harmful moment."
    usual = sys.unraisablehook

    def act(number, frame):
        if must_wait(number, frame):
            return
        begun = time.monotonic()

        def leave(number, frame):
            if time.monotonic() > begun + 2:
                os._exit(128 + number)

        stop = Interrupted() if number == signal.SIGINT else Stopped(signal.Signals(number).name)
        be_deaf(stop)
        signal.signal(signal.SIGINT, leave)
        raise stop

    def swallowed(what):
        if isinstance(what.exc_value, KeyboardInterrupt):
            number = signal.SIGINT
        elif isinstance(what.exc_value, Stopped):
            number = signal.Signals[str(what.exc_value)]
        else:
            return usual(what)
        for s in ours:
            signal.signal(s, act)
        return again(number)

    ours = ending()
    for s in ours:
        signal.signal(s, act)
    sys.unraisablehook = swallowed
