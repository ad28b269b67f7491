"""Stop cleanly on a signal, a loss spike, lack of memory or a lost rank."""

# Made by tools/book.py from ../../book/tough/ch19b_interrupts.md: edit that, then `make book`.

# %% auto #0
__all__ = ['Stop', 'stop_signals', 'SpikeWatch', 'explain']

# %% ../../nbs/tough/ch19b_interrupts.ipynb #dbbba4a2
import re
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from gpt2edu.machine.signals import Stopped, be_deaf, ending, must_wait

# %% ../../nbs/tough/ch19b_interrupts.ipynb #202d251c
class Stop:
    "The signal that has come, if any; `with stop.held():` makes one wait."

    def __init__(self):
        self.caught = None  # name of the first signal
        self.waits = False  # True: the handler only notes a signal
        self.raised = False  # whether Stopped was raised; a library may make another error of it

    @contextmanager
    def held(self) -> Iterator[None]:
        "Let no signal interrupt the block; one that comes meanwhile is in `caught`."
        before, self.waits = self.waits, True
        try:
            yield
        finally:
            self.waits = before


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Catch the first SIGINT, SIGTERM or SIGHUP: outside of `held` it raises Stopped.

    A second SIGINT acts as it would without us; the others are ignored by then.
    """
    stop, old = Stop(), {}

    def catch(number, frame):
        if not stop.waits and must_wait(number, frame):
            return
        stop.caught = signal.Signals(number).name
        be_deaf()
        signal.signal(signal.SIGINT, old[signal.SIGINT])
        if not stop.waits:
            stop.raised = True
            raise Stopped(stop.caught)

    try:
        for s in ending():
            old[s] = signal.signal(s, catch)
    except ValueError:  # not in the main thread: a notebook server may do that
        pass
    try:
        yield stop
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)

# %% ../../nbs/tough/ch19b_interrupts.ipynb #e9125a73
class SpikeWatch:
    "Notice a loss that has left its recent level and does not come back."

    def __init__(
        self,
        limit: float,  # nats/token above the mean of the last 100 steps; 0 never stops
    ):
        self.limit = limit
        self.recent = deque(maxlen=100)  # losses of calm steps
        self.high = []  # where the steps of a spike began

    def sees(
        self, loss: float, position: int
    ) -> int | None:  # window where a spike of five steps began, else None
        "Add the loss of a step."
        if (
            self.limit
            and len(self.recent) >= 20
            and loss > sum(self.recent) / len(self.recent) + self.limit
        ):
            self.high.append(position)
        else:
            self.high.clear()
            self.recent.append(loss)
        return self.high[0] if len(self.high) == 5 else None

# %% ../../nbs/tough/ch19b_interrupts.ipynb #417cb291
def explain(
    e: RuntimeError,
    stop: Stop,
    config,  # a TrainConfig
    ranks,  # a Ranks
    step: int,
) -> None:  # if a signal was the reason
    "Say what a failure means. ValueError, ConnectionError: one line; any other error as it is."
    if type(e).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(e):
        b = config.micro_batch
        fix = (
            f"try --micro_batch {b // 2}; the batch of a step stays the same"
            if b > 1
            else f"try {'a smaller --block_size' if config.recompute else '--recompute'}"
        )
        where = f"micro_batch={b} x block_size={config.block_size} at step {step}"
        raise ValueError(f"out of memory with {where}; {fix}") from e
    named = any(kind.__name__ == "DistError" for kind in type(e).__mro__)
    network = named or re.search(
        r"gloo|nccl|connection (closed|reset)|broken pipe|timed out|timeout", str(e), re.IGNORECASE
    )
    if ranks.world_size == 1 or not (network or stop.caught):
        raise e
    if not stop.caught:
        why = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise ConnectionError(
            f"rank {ranks.rank} of {ranks.world_size} lost the others at step {step} ({why}); "
            "the last checkpoint is whole; go on with --resume auto"
        ) from e
