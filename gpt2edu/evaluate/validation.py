"""A model's validation loss, with the bigram loss and the floor to compare it with."""

# Made by tools/book.py from ../../book/tough/ch18a_validation.md: edit that, then `make book`.

# %% auto #0
__all__ = ['STORY', 'validation_loss', 'bigram_and_floor', 'story_choice', 'fitting_prompt',
           'report']

# %% ../../nbs/tough/ch18a_validation.ipynb #86f90c52
import shlex
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from gpt2edu.machine import device as devices
from gpt2edu.text.corpus import read_back, story_items
from gpt2edu.machine.distributed import Ranks, mean_over_ranks
from gpt2edu.evaluate.tasks import TASKS, is_stories
from gpt2edu.evaluate.answers import answer_loss
from gpt2edu.evaluate.hellaswag import choice_accuracy
from gpt2edu.text.ngram import bigram_loss
from gpt2edu.train.config import TrainConfig
from gpt2edu.train.runs import typed
from gpt2edu.model.gpt import IGNORE
from gpt2edu.data.packing import PackedSet
from gpt2edu.data.shards import ShardSet

# %% ../../nbs/tough/ch18a_validation.ipynb #6d7e5806
@torch.no_grad()
def validation_loss(
    # a GPT, compiled or not; called with (B, T) always, so that a compiled one is compiled once
    model,
    shards: ShardSet | PackedSet | np.ndarray,  # validation text, ids; or packed answers, all
    n_tokens: int,  # how many of them to read, from the beginning
    block_size: int,  # T, length of a window
    batch: int,  # B, windows at a time
    overlap: float = 0.0,  # share of a window that is context only
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,  # of the matrix products
    ranks: Ranks = Ranks(),  # noqa: B008  frozen; every rank has to call this
) -> float:  # nats/token, the same on every rank
    """Compute the loss on the first tokens of a text, each window judged but for its overlap.

    ValueError if the text is too short.
    """
    if isinstance(shards, PackedSet):
        return answer_loss(model, shards, batch, device, dtype, ranks)
    T, unjudged = block_size, int(block_size * overlap)
    if (n := min(n_tokens, len(shards) - 1)) < T:
        raise ValueError(
            f"got {n} tokens to validate on, expected block_size={T} at least; "
            + ("validate on more" if n_tokens < T else "give more text")
        )
    starts = list(range(0, n - T + 1, T - unjudged))
    total = torch.zeros(2, dtype=torch.float64)  # nats; tokens judged
    for a in range(ranks.rank * batch, len(starts), ranks.world_size * batch):
        rows = np.stack([shards[i : i + T + 1] for i in starts[a : a + batch]])
        tokens = torch.full((batch, T + 1), IGNORE)  # rows of padding count for nothing
        tokens[: len(rows)] = torch.from_numpy(rows.astype(np.int64))
        x, y = tokens[:, :-1].clamp(min=0).to(device), tokens[:, 1:].clone()  # (B, T)
        y[:, :unjudged] = IGNORE
        judged = int((y != IGNORE).sum())
        with devices.autocast(device, dtype):
            total += torch.tensor(
                [float(model(x, y.to(device))[1]) * judged, judged], dtype=torch.float64
            )
    # NCCL exchanges what is on the GPU
    where = device if torch.device(device).type == "cuda" else "cpu"
    nats, count = mean_over_ranks(total.to(where)).tolist()
    return nats / count


def bigram_and_floor(
    train: ShardSet,
    val: np.ndarray,  # (n,) ids of the validation text
    tokenizer,
    is_stories: bool,  # whether this is the embedded corpus, whose probabilities are known
) -> dict:  # bigram, floor: nats/token; the floor is None if unknown
    "Compute the bigram loss and, for stories, the entropy floor."
    floor = None
    if is_stories:
        ids, ends = val.tolist(), np.flatnonzero(val == tokenizer.eot).tolist()
        texts = [tokenizer.decode(ids[a + 1 : b]) for a, b in pairwise(ends)]  # whole ones
        floor = -sum(map(read_back, texts)) / (ends[-1] - ends[0]) if texts else None
    return {"bigram": bigram_loss(train[:4_000_000], val, tokenizer.n_vocab), "floor": floor}


def story_choice(
    model,  # a GPT
    tokenizer,
    n: int,  # items
) -> dict:  # accuracy, its standard error, n, predictions
    "Answer multiple-choice stories of the embedded grammar."
    return choice_accuracy(model, tokenizer, story_items(n), start=[tokenizer.eot])

# %% ../../nbs/tough/ch18a_validation.ipynb #3449aeec
STORY = "One day, Mia and Tom were in the"


def fitting_prompt(
    run: TrainConfig,
    tokenizer,
    val: np.ndarray,  # (n,) ids, the first ones of the validation text
) -> str:  # one line, at most half a context long; may be empty
    "Choose a prompt that looks like the text of a run."
    if run.questions:
        return ""
    room = run.block_size // 2
    if is_stories(run) and len(tokenizer.encode(STORY)) <= room:
        return STORY
    ids = [i for i in val.tolist() if i != tokenizer.eot][:room]
    text = "".join(c if c.isprintable() and c != "\ufffd" else " " for c in tokenizer.decode(ids))
    words = " ".join(text.split()).lstrip("-")
    prompt = " ".join(words.split(" ")[:6])[:60].strip()
    return prompt if len(tokenizer.encode(prompt)) <= room else ""


def report(
    done: dict,  # the last event of the log, and the step
    folder: Path,  # of the run
    run: TrainConfig,
    say: Callable,  # gets each line
    prompt: str = "",  # of the line that writes texts
):
    "Print the figures of a finished run, and what to type next."
    loss, floor, bigram = done["val_loss"], done["floor"], done["bigram"]
    rows = [("validation loss", f"{loss:.4f} nats/token")]
    if bigram is not None:
        rows.append(("bigram model", f"{bigram:.4f} nats/token"))
    if floor is not None:
        closed = f"{(bigram - loss) / (bigram - floor):.1%} of the way from the bigram model"
        rows.append(("floor", f"{floor:.4f} nats/token (no model gets under it)"))
        rows.append(("gap to the floor", f"{loss - floor:.4f} nats/token; {closed}"))
    asked = [task for task in TASKS.values() if done.get(task.figure) is not None]
    rows += [(task.title, task.row(done, run)) for task in reversed(asked)]
    rows.append(("tokens, seconds", f"{done['tokens']:,} in {done['seconds']:.0f} s"))
    rows.append(("loss curve", str(folder / "loss.png")))
    for i, text in enumerate(done["samples"], start=1):
        say(f"\nsample {i}: {text.strip()}")
    say("")
    for name, value in rows:
        say(f"{name:18} {value}")
    begin = f" --prompt {shlex.quote(prompt)}" if prompt else ""
    use = f"gpt2edu_generate --run {typed(folder)}{begin} --num_seq 3"
    use = f"gpt2edu_chat --run {typed(folder)}" if run.questions else use
    say(f"\nnext: {use}")
    say(f"next: gpt2edu_train --resume {typed(folder)} --max_steps {2 * done['step']}")
