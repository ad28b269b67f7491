"""Let a model answer questions in its own words, and count those that are exactly right."""

# Made by tools/book.py from ../../book/tough/ch18d_answers.md: edit that, then `make book`.

# %% auto #0
__all__ = ['prompts_of', 'fits', 'replies', 'need_questions', 'answers', 'grade', 'answer_loss']

# %% ../../nbs/tough/ch18d_answers.ipynb #2326edd4
from collections.abc import Sequence

import torch

from gpt2edu.data.packing import PackedSet, own_document
from gpt2edu.evaluate.hellaswag import standard_error, sum_over_ranks
from gpt2edu.machine import device as devices
from gpt2edu.machine.distributed import Ranks, mean_over_ranks
from gpt2edu.model.generate import generate_batch
from gpt2edu.model.gpt import IGNORE
from gpt2edu.text.chat import END, answer_text, prompt_ids
from gpt2edu.text.questions import Question
from gpt2edu.text.tokenizer import Tokenizer

# %% ../../nbs/tough/ch18d_answers.ipynb #8bda9c8c
def prompts_of(tokenizer: Tokenizer, questions: Sequence[Question]) -> list[list[int]]:
    "Encode questions as a chat that ends where the answer begins."
    return [prompt_ids(tokenizer, [{"role": "user", "content": q.prompt}]) for q in questions]


def fits(prompt: list[int], block_size: int) -> bool:
    "Whether a prompt leaves room for an answer."
    return len(prompt) <= block_size


def replies(
    model,  # a GPT: not compiled, not wrapped
    tokenizer: Tokenizer,  # with the tokens of a chat
    questions: Sequence[Question],
    max_tokens: int,  # of an answer
    batch_size: int = 64,  # questions at a time
) -> list[list[int]]:  # ids of each answer, without <|end|>
    "Answer questions, each token the likeliest one."
    prompts, said = prompts_of(tokenizer, questions), [[] for _ in questions]
    asked = [i for i, ids in enumerate(prompts) if fits(ids, model.config.block_size)]
    order = sorted(asked, key=lambda i: len(prompts[i]))  # equal lengths together
    known = {"eot": tokenizer.special[END], "n_vocab": tokenizer.n_vocab}
    for a in range(0, len(order), batch_size):
        these = order[a : a + batch_size]
        some = [prompts[i] for i in these]
        for step in generate_batch(model, some, max_tokens, temperature=0, **known):
            for i, token in zip(these, step, strict=True):
                said[i] += [] if token is None else [token]
    return said


def need_questions(questions: Sequence[Question]):
    "Refuse to judge by nothing. ValueError, one line."
    if not questions:
        raise ValueError("got no questions, expected at least one")


def answers(
    model,  # a GPT: not compiled, not wrapped
    tokenizer: Tokenizer,  # with the tokens of a chat
    questions: Sequence[Question],
    batch_size: int = 64,  # questions at a time
    rank: int = 0,  # of this process; every rank has to call this
    world_size: int = 1,  # number of processes
) -> list[str]:  # the same on every rank
    "Let a model answer questions; every rank takes its share. ValueError if there are none."
    need_questions(questions)
    most = 1 + max(len(tokenizer.encode(q.answer)) for q in questions)
    table = torch.zeros(len(questions), most, dtype=torch.int64)  # ids + 1; 0: nothing
    mine = range(rank, len(questions), world_size)
    found = replies(model, tokenizer, [questions[i] for i in mine], most, batch_size)
    for i, ids in zip(mine, found, strict=True):
        table[i, : len(ids)] = torch.tensor(ids, dtype=torch.int64) + 1
    rows = sum_over_ranks(table).tolist()
    return [answer_text(tokenizer, [i - 1 for i in row if i]) for row in rows]

# %% ../../nbs/tough/ch18d_answers.ipynb #6461b46a
def grade(
    questions: Sequence[Question],
    said: Sequence[str],  # an answer for each
) -> dict[str, dict]:  # exact, each kind, each split: accuracy, error, right, n, predictions
    "Count the answers that are exactly right. ValueError if there are no questions."
    need_questions(questions)

    def count(pairs: list[tuple[Question, str]]) -> dict:
        right, n = sum(q.answer == a for q, a in pairs), len(pairs)
        figures = {"accuracy": right / n, "error": standard_error(right / n, n)}
        return figures | {"right": right, "n": n, "predictions": [a for _, a in pairs]}

    pairs = list(zip(questions, said, strict=True))
    found = {"exact": count(pairs)}
    for part in ("kind", "split"):
        for name in dict.fromkeys(getattr(q, part) for q in questions):
            own = [(q, a) for q, a in pairs if getattr(q, part) == name]
            found.setdefault(name, count(own))
    return found

# %% ../../nbs/tough/ch18d_answers.ipynb #a04ae4bf
@torch.no_grad()
def answer_loss(
    model,  # a GPT, compiled or not; called with (B, T) always
    packed: PackedSet,
    batch: int,  # B, rows at a time
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,  # of the matrix products
    ranks: Ranks = Ranks(),  # noqa: B008  frozen; every rank has to call this
) -> float:  # nats/token of the answers, the same on every rank
    "Compute the mean loss of all answers of a set, each token counted once."
    total = torch.zeros(2, dtype=torch.float64)  # nats; tokens
    p = packed
    for a in range(ranks.rank * batch, len(p.x), ranks.world_size * batch):
        rows = torch.arange(a, a + batch).clamp(max=len(p.x) - 1)
        parts = (p.x, p.y, p.positions, p.owner)
        x, y, positions, owner = (torch.from_numpy(part)[rows].long() for part in parts)
        y[len(p.x) - a :] = IGNORE  # the last row again, up to B rows
        where = {"positions": positions.to(device), "mask": own_document(owner).to(device)}
        judged = int((y != IGNORE).sum())
        with devices.autocast(device, dtype):
            loss = model(x.to(device), y.to(device), **where)[1]
        total += torch.tensor([float(loss) * judged, judged], dtype=torch.float64)
    # NCCL exchanges what is on the GPU
    on = device if torch.device(device).type == "cuda" else "cpu"
    nats, count = mean_over_ranks(total.to(on)).tolist()
    return nats / count
