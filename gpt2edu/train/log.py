"""The events of a run, one JSON object a line; drawn, shown live, and sent to a tracker."""

# Made by tools/book.py from ../../book/tough/ch19a_log.md: edit that, then `make book`.

# %% auto #0
__all__ = ['Event', 'event_of', 'RunLog', 'load_matplotlib', 'factory_settings', 'blank_figure',
           'picture', 'draw_loss', 'plot_loss', 'LivePlot', 'check_tracker', 'open_tracker']

# %% ../../nbs/tough/ch19a_log.ipynb #3808f3c2
import importlib
import importlib.util
import io
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NotRequired, TypedDict

from gpt2edu.choices import Tracker, check_choice
from gpt2edu.machine.atomic import remedy, write_atomically
from gpt2edu.machine.state import Number, check, loads

# %% ../../nbs/tough/ch19a_log.ipynb #3bd06d05
class Event(TypedDict):
    "The fields of every line; those of training and validation add numbers."

    event: str
    step: NotRequired[Annotated[int, 0, 2**53]]


def event_of(line: str) -> dict | None:
    "Read a line of a log; None for a line that is cut or does not hold an event."
    try:
        event = check(loads(line, nan=True), Event, others=True)
        if event["event"] in ("train", "val"):
            rest = {k: v for k, v in event.items() if k != "event"}
            check(rest, dict[str, Number | None])
        return event
    except ValueError:
        return None


class RunLog:
    "The events of a run, one JSON object on a line."

    def __init__(self, path: Path):
        self.path = Path(path)

    def write(self, event: str, **fields):
        "Add an event."
        line = json.dumps({"event": event} | fields).encode() + b"\n"
        try:
            with open(self.path, "ab+") as f:
                if f.tell() and f.seek(-1, 2) is not None and f.read() != b"\n":
                    f.write(b"\n")  # the last line of a killed run was cut
                f.write(line)
        except OSError as e:
            what = f"{self.path}: could not write a line ({e.strerror})"
            raise OSError(e.errno, f"{what}; {remedy(e)}") from e

    def read(self) -> list[dict]:
        "Read all whole lines; the last one of a killed run may be cut."
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        return [event for line in lines if (event := event_of(line))]

    def curve(self, event: str, field: str) -> tuple[list, list]:  # steps, values
        "Read a curve; where a resumed run did a step again, the last value counts."
        events = [e for e in self.read() if e["event"] == event and "step" in e]
        points = {e["step"]: e[field] for e in events if e.get(field) is not None}
        return sorted(points), [points[s] for s in sorted(points)]


def load_matplotlib():  # the module
    "Import Matplotlib. What MPLBACKEND names, but for a notebook's, no figure here needs."
    named = {}
    if not os.environ.get("MPLBACKEND", "module:").startswith("module:"):
        named = {"MPLBACKEND": os.environ.pop("MPLBACKEND")}  # it may not be there
    import matplotlib

    os.environ.update(named)
    return matplotlib


@contextmanager
def factory_settings():
    """Draw without a user's matplotlibrc, which may ask for LaTeX or for fonts that are not here.

    What a program has set itself stays; so does silence about letters that the font does not have.
    """
    chatty = logging.getLogger("matplotlib")
    before = chatty.level
    # else its import tells a user who has no home, as in many containers, where its own files go
    chatty.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mpl = load_matplotlib()
            usual = {k: v for k, v in mpl.rcParamsDefault.items() if not k.startswith("backend")}
            from_file = {k: v for k, v in usual.items() if mpl.rcParams[k] == mpl.rcParamsOrig[k]}
            with mpl.rc_context(from_file):
                yield
    finally:
        chatty.setLevel(before)


def blank_figure():  # a matplotlib Figure
    "Make a figure that has no window and no global state."
    from matplotlib.figure import Figure

    return Figure(figsize=(7, 4), dpi=150, layout="constrained")


def picture(
    draw: Callable,  # returns a matplotlib Figure
    *args,
) -> bytes:  # PNG
    "Draw a picture."
    with factory_settings():
        draw(*args).savefig(png := io.BytesIO())
    return png.getvalue()


def draw_loss(
    log: RunLog, name: str, floor: float | None = None, bigram: float | None = None
):  # a matplotlib Figure
    "Draw training and validation loss, and the two lines between which a model learns."
    ax = (fig := blank_figure()).add_subplot()
    ax.plot(*log.curve("train", "loss"), color="#56b4e9", label="train")
    ax.plot(*log.curve("val", "loss"), "o-", color="#0b84c6", label="validation")
    for value, name_, colour in ((bigram, "bigram model", "#808080"), (floor, "floor", "#d55e00")):
        if value is not None:
            ax.axhline(value, linestyle="--", color=colour, label=f"{name_} {value:.3f}")
    ax.set(xlabel="step", ylabel="loss, nats/token")
    short = "".join(c if c.isprintable() else "?" for c in name)  # no font has the others
    short = short if len(short) < 60 else f"{short[:59]}…"
    ax.set_title(f"Loss of {short}", parse_math=False)  # a $ in a name is a dollar
    ax.legend(frameon=False)
    return fig


def plot_loss(log: RunLog, path: Path, floor: float | None = None, bigram: float | None = None):
    "Save the picture beside the log."
    write_atomically(path, picture(draw_loss, log, path.parent.name, floor, bigram))

# %% ../../nbs/tough/ch19a_log.ipynb #c45fd441
class LivePlot:
    """The loss curve under a notebook's cell, drawn again while the run trains.

    Does nothing outside of a notebook.
    """

    def __init__(self, log: RunLog, seconds: float = 2.0):
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        self.log = log
        self.seconds = seconds
        self.last = 0.0  # when it was drawn
        self.handle = None  # of the cell's output
        self.on = shell is not None and hasattr(shell, "kernel")

    def update(self, last: bool = False):
        "Draw, if it is time."
        if not self.on or (not last and time.monotonic() - self.last < self.seconds):
            return
        from IPython.display import Image, display

        png = picture(draw_loss, self.log, self.log.path.parent.name)
        image, self.last = Image(png, width=700), time.monotonic()
        if self.handle:
            self.handle.update(image)
        else:
            self.handle = display(image, display_id=True)

# %% ../../nbs/tough/ch19a_log.ipynb #8440abdc
def check_tracker(
    kind: Tracker | None,
):
    "ValueError, one line, if a tracker is unknown or not installed."
    if kind is not None:
        check_choice("tracker", kind, Tracker)
    if kind is not None and not importlib.util.find_spec(kind):
        raise ValueError(
            f'tracker={kind} is not installed; get it with: pip install "gpt2edu[{kind}]"'
        )


def open_tracker(
    kind: Tracker | None,
    folder: Path,  # of the run
    config: dict,  # the run's choices
) -> tuple[Callable, Callable]:  # tell(step, {name: number}), close()
    """Connect to a tracker; without one, both functions do nothing.

    ValueError, one line, if it is unknown or not installed.
    """
    check_tracker(kind)
    if kind is None:
        return (lambda step, values: None), (lambda: None)
    if kind == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(folder / "tensorboard"))

        def tell(step, values):
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        return tell, writer.close
    module = importlib.import_module(kind)
    module.init(project="gpt2edu", name=folder.name, config=config)
    if kind == "wandb":
        return (lambda step, values: module.log(values, step=step)), module.finish
    return (lambda step, values: module.log(values | {"step": step})), module.finish
