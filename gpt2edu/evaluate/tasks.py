"""Questions from a file, the hub or the grammar, and the list of tasks that all commands use."""

# Made by tools/book.py from ../../book/tough/ch18c_tasks.md: edit that, then `make book`.

# %% auto #0
__all__ = ['HUB', 'TASKS', 'read_items', 'hub_items', 'get_items', 'Wanted', 'Subject',
           'is_stories', 'Task', 'HellaSwag', 'StoryChoice', 'same_file', 'Answers']

# %% ../../nbs/tough/ch18c_tasks.ipynb #4021372d
import filecmp
from pathlib import Path
from typing import Any, NamedTuple

from gpt2edu.text.corpus import is_hub_name, reachable, story_items
from gpt2edu.text.questions import GRAMMAR, Question, exam, hold_out, read_questions
from gpt2edu.text.files import rows_of
from gpt2edu.machine.state import without_secrets
from gpt2edu.train.config import TrainConfig

HUB = "Rowan/hellaswag"

# %% ../../nbs/tough/ch18c_tasks.ipynb #95d6762d
def read_items(
    path: str | Path,  # .jsonl
    conventions: tuple[str, ...] = ("plain",),  # those that will score the items
    limit: int | None = None,  # the first ones only
) -> list[dict]:
    """Read HellaSwag's items from a file.

    ValueError, FileNotFoundError: one line that says file, line and what is wrong.
    """
    from gpt2edu.evaluate.hellaswag import check_item

    items = []
    for where, item in rows_of(path):
        for convention in conventions:
            check_item(item, convention, where)
        items.append(item)
        if len(items) == limit:
            break
    if not items:
        raise ValueError(
            f"{path}: holds no items; expected one object with HellaSwag's fields a line"
        )
    return items


def hub_items(
    repo: str,  # owner/name
    conventions: tuple[str, ...] = ("plain",),
    limit: int | None = None,
) -> list[dict]:
    "Read the validation split of a dataset of the hub, kept in its cache. ValueError, one line."
    import datasets
    from huggingface_hub import constants
    from huggingface_hub.utils import logging

    from gpt2edu.evaluate.hellaswag import check_item

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    if not reachable(constants.ENDPOINT):
        # do not wait for the network: look in the cache only
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # the client would write a line for each attempt
    try:
        rows = datasets.load_dataset(repo, split="validation")
    except Exception as e:  # noqa: BLE001  the client passes on errors of the libraries below it
        hub = without_secrets(constants.ENDPOINT)
        hub += f" does not have it or does not answer ({type(e).__name__})"
        fix = "connect, or give a .jsonl file (eval: --data, train: --hellaswag FILE or None)"
        raise ValueError(f"{repo}: it is not in the cache, and {hub}; {fix}") from None
    finally:
        logging.set_verbosity(level)
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before  # a notebook goes on
    items = list(rows.select(range(min(limit or len(rows), len(rows)))))
    for n, item in enumerate(items):
        for convention in conventions:
            check_item(item, convention, f"{repo}, item {n}")
    if not items:
        raise ValueError(
            f"{repo}: its validation split is empty; give a file with --data hellaswag_val.jsonl"
        )
    return items


def get_items(
    data: str,  # a file, or owner/name
    conventions: tuple[str, ...] = ("plain",),
    limit: int | None = None,
) -> list[dict]:
    "Read items from a file or from the hub. ValueError, FileNotFoundError, OSError: one line."
    if is_hub_name(data):
        return hub_items(data, conventions, limit)
    if not Path(data).is_file():
        what = f"expected a .jsonl file with HellaSwag's fields, or a dataset such as {HUB}"
        raise FileNotFoundError(f"no file {data}; {what}")
    return read_items(data, conventions, limit)

# %% ../../nbs/tough/ch18c_tasks.ipynb #2536b4cb
class Wanted(NamedTuple):
    "Which questions to fetch."

    data: str | None = None  # HellaSwag's: a file, or a dataset of the hub
    conventions: tuple[str, ...] = ("plain",)  # those that will score the items
    limit: int | None = None  # the first ones only
    choice_items: int = 400  # stories, or questions about them
    questions: str | None = None  # a .jsonl file; "stories" or None: the grammar's
    trained: str | None = None  # the questions that the model was trained on, as above


class Subject(NamedTuple):
    "A model that answers, and how to run it."

    model: Any  # a GPT: not compiled, not wrapped
    tokenizer: Any
    device: Any  # of the model
    dtype: Any  # of its matrix products, a torch.dtype
    ranks: Any  # a Ranks; every rank has to ask
    batch: int  # items at a time, on each rank


def is_stories(
    run: TrainConfig | None,  # None for a model that is not a run of ours
) -> bool:
    "Whether a run trains on the stories of the grammar, and on nothing else."
    plain = run is not None and not (run.shards or run.questions)
    return plain and run.dataset == ("stories",)


class Task:
    "Multiple-choice questions. A subclass with a name is in `TASKS` from then on."

    name = ""  # in `gpt2edu_eval --tasks`, and of its result
    figure = ""  # its accuracy's name in log.jsonl; its error is `<figure>_error`
    conventions = ("plain",)  # those that it can be scored by
    title = ""  # in the last table of a training
    tokens = 0  # that one item takes, about: for the estimate of the time to the end

    def __init_subclass__(cls):
        TASKS[cls.name] = cls()

    def applies(self, run: TrainConfig) -> bool:
        "Whether a run answers this task at each of its validations."
        raise NotImplementedError

    def fits(self, run: TrainConfig | None, wanted: Wanted) -> bool:
        "Whether a model answers this task in `gpt2edu_eval` without --tasks."
        raise NotImplementedError

    def items(self, wanted: Wanted) -> list[dict]:
        "Fetch the questions. ValueError, FileNotFoundError, OSError: one line."
        raise NotImplementedError

    def note(self, wanted: Wanted, items: list) -> str:
        "Say what the figures leave out; nothing by default."
        return ""

    def start(self, tokenizer) -> list[int]:
        "Return the ids to put before each context."
        return []

    def encode(self, items: list, tokenizer) -> list:
        "Turn questions into ids, once for all validations of a run."
        from gpt2edu.evaluate.hellaswag import encode_item

        start = self.start(tokenizer)
        return [encode_item(item, tokenizer, start) for item in items]

    def run(self, subject: Subject, items: list, convention: str = "plain") -> dict[str, dict]:
        "Answer items, encoded or not: accuracy, error, right, n and predictions of each figure."
        from gpt2edu.evaluate.hellaswag import answer
        from gpt2edu.machine.device import autocast

        model, tokenizer, device, dtype, ranks, batch = subject
        share = (batch, ranks.rank, ranks.world_size)
        with autocast(device, dtype):
            return answer(model, tokenizer, items, self.start(tokenizer), convention, *share)

    def logged(self, subject: Subject, items: list) -> dict[str, float]:
        "Answer the items, for a line of a run's log."
        found = self.run(subject, items)["acc_norm"]
        return {self.figure: found["accuracy"], f"{self.figure}_error": found["error"]}

    def row(self, done: dict, run: TrainConfig) -> str:
        "Write the accuracy of a finished run for the last table."
        accuracy, error = done[self.figure], done[f"{self.figure}_error"]
        return f"{accuracy:.4f} ± {error:.4f}, convention plain; chance 0.25"


TASKS: dict[str, Task] = {}

# %% ../../nbs/tough/ch18c_tasks.ipynb #680c97a8
class HellaSwag(Task):
    "HellaSwag (Zellers et al. 2019), or items in its fields."

    name = figure = "hellaswag"
    title = "HellaSwag"
    conventions = ("plain", "harness")
    tokens = 250

    def applies(self, run: TrainConfig) -> bool:
        return run.hellaswag is not None

    def fits(self, run: TrainConfig | None, wanted: Wanted) -> bool:
        return wanted.data is not None or run is None or run.tokenizer == "gpt2"

    def items(self, wanted: Wanted) -> list[dict]:
        return get_items(wanted.data or HUB, wanted.conventions, wanted.limit)

# %% ../../nbs/tough/ch18c_tasks.ipynb #391f54a1
class StoryChoice(Task):
    "Multiple-choice stories of the embedded grammar."

    name, figure = "stories", "story_choice"
    title = "story choice"
    tokens = 100

    def applies(self, run: TrainConfig) -> bool:
        return is_stories(run) and run.choice_items > 0

    def fits(self, run: TrainConfig | None, wanted: Wanted) -> bool:
        return is_stories(run)

    def items(self, wanted: Wanted) -> list[dict]:
        return story_items(min(wanted.choice_items, wanted.limit or wanted.choice_items))

    def start(self, tokenizer) -> list[int]:
        return [tokenizer.eot]

    def row(self, done: dict, run: TrainConfig) -> str:
        accuracy, error = done[self.figure], done[f"{self.figure}_error"]
        return f"{accuracy:.3f} ± {error:.3f} of {run.choice_items} items; chance 0.250"

# %% ../../nbs/tough/ch18c_tasks.ipynb #f0cfcee6
def same_file(
    name: str,
    other: str | None,  # may be gone
) -> bool:
    "Whether two names are those of one file, or of two with the same bytes."
    if other is None or Path(name).resolve() == Path(other).resolve():
        return other is not None
    return Path(other).is_file() and filecmp.cmp(name, other, shallow=False)


class Answers(Task):
    "Questions about stories, or from a file, answered in the model's own words."

    name, figure = "questions", "exact_match"
    title = "exact match"
    tokens = 130

    def applies(self, run: TrainConfig) -> bool:
        return run.questions is not None and run.choice_items > 0

    def fits(self, run: TrainConfig | None, wanted: Wanted) -> bool:
        return wanted.questions is not None or (run is not None and run.questions is not None)

    def items(self, wanted: Wanted) -> list[Question]:
        n = min(wanted.choice_items, wanted.limit or wanted.choice_items)
        if wanted.questions in (None, GRAMMAR):
            return exam(n)
        found = read_questions(wanted.questions)
        if same_file(wanted.questions, wanted.trained):
            return hold_out(found, wanted.questions)[1][:n]
        return found[: wanted.limit]

    def note(self, wanted: Wanted, items: list[Question]) -> str:
        if wanted.questions in (None, GRAMMAR) or not same_file(wanted.questions, wanted.trained):
            return ""
        which = f"{len(items):,} held-out ones of {wanted.questions}"
        return f"questions: {which}; the run was trained on the others"

    def encode(self, items: list[Question], tokenizer) -> list[Question]:
        return items  # graded as text

    def run(
        self, subject: Subject, items: list[Question], convention: str = "plain"
    ) -> dict[str, dict]:
        from gpt2edu.evaluate.answers import answers, grade
        from gpt2edu.machine.device import autocast
        from gpt2edu.text.chat import need_chat

        model, tokenizer, device, dtype, ranks, batch = subject
        need_chat(tokenizer, None)
        with autocast(device, dtype):
            said = answers(model, tokenizer, items, 8 * batch, ranks.rank, ranks.world_size)
        return grade(items, said)

    def logged(self, subject: Subject, items: list[Question]) -> dict[str, float]:
        found = self.run(subject, items)
        names = {k: f"{self.figure}{'' if k == 'exact' else f'_{k}'}" for k in found}
        logged = {names[k]: f["accuracy"] for k, f in found.items()}
        return logged | {f"{names[k]}_error": f["error"] for k, f in found.items()}

    def row(self, done: dict, run: TrainConfig) -> str:
        accuracy, error = done[self.figure], done[f"{self.figure}_error"]
        return f"{accuracy:.3f} ± {error:.3f} of the held-out questions, word for word"
