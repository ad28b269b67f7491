"""Checks for the exercises of ch11."""

# Made by tools/book.py from ../../book/exercises/training_loop.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'Tiny', 'batch', 'grads', 'weights', 'check_shift', 'long_step',
           'check_train_step', 'check_accumulate', 'check_evaluate']

# %% ../../nbs/exercises/training_loop.ipynb #ad780120
import copy
import random

import torch
from torch import nn
from torch.nn import functional as F

from gpt2edu.exercises.core import close, exercise, fail, plain
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/training_loop.ipynb #961f196f
quiz = Quiz(
    Question(
        "A run overfits a single batch perfectly: its loss goes to 0.01. What is still open?",
        right=(
            "whether targets belong to inputs",
            "Random targets are learnt by heart as well; only reading the batch as text shows it.",
        ),
        wrong=(
            (
                "whether gradients reach the weights",
                "They do, or the loss would have stayed at ln V.",
            ),
            (
                "whether the optimiser has the right parameters",
                "It has: an optimiser of a copy leaves a level line at ln V.",
            ),
        ),
    ),
    Question(
        "The mask is missing. Training and validation loss agree, and both look fine. "
        "Why does validation not warn you?",
        right=(
            "it lets tokens see ahead as well",
            "The same model with the same leak is measured, so both numbers are too good.",
        ),
        wrong=(
            (
                "it has too few tokens to show it",
                "More of them would agree as well: each position still sees its answer.",
            ),
            (
                "it shares its stories with training",
                "No story is in both parts; the leak is inside the model.",
            ),
        ),
    ),
    Question(
        "A batch is cut into 4 equal pieces, and you forget to divide. "
        "AdamW with clipping trains about as well as before. Why?",
        right=(
            "a longer gradient of the same direction is scaled back",
            "Clipping cuts it to length 1, and Adam divides by the usual size anyway.",
        ),
        wrong=(
            (
                "gradients of pieces are averaged by `backward`",
                "`backward` adds to `.grad`; the sum of 4 pieces is 4 times their mean.",
            ),
            (
                "a gradient four times as long is worth four steps",
                "Steps did not grow, and a longer step is not the same as several.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/training_loop.ipynb #8268057f
class Tiny(nn.Module):
    """The smallest model with a GPT's call: each token alone predicts the next.

    It has dropout, and notes in which mode it is called.
    """

    def __init__(self, V=7, C=5, p=0.0):
        super().__init__()
        self.table = nn.Embedding(V, C)
        self.head = nn.Linear(C, V)
        self.p = p
        self.modes = []

    def forward(self, x, y):
        self.modes.append((self.training, torch.is_grad_enabled()))
        logits = self.head(F.dropout(self.table(x), self.p, self.training))  # (B, T, V)
        return None, F.cross_entropy(logits.flatten(0, 1), y.flatten())


def batch(B=3, T=4, V=7):
    return torch.randint(V, (B, T)), torch.randint(V, (B, T))


def grads(model):
    each = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return torch.cat([g.flatten() for g in each])


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])

# %% ../../nbs/exercises/training_loop.ipynb #47350f45
@exercise(hint="`tokens[:, :-1]` are the inputs; the targets begin one later.")
def check_shift(answer):
    "At every position the target is the token that comes next."
    tokens = torch.randperm(40)[:24].view(3, 8)
    x, y = (torch.as_tensor(plain(part)) for part in answer(tokens))
    if x.shape != y.shape:
        fail(f"x {tuple(x.shape)} and y {tuple(y.shape)} must have the same shape")
    if close(x, y):
        fail("x and y are the same: the model would only have to copy")
    if close(x, tokens) or x.shape[1] == 8:
        fail(
            "the last token has no next one: "
            "it is a target and no input (and roll would make it the first)"
        )
    if close(x, tokens[:, 1:]) and close(y, tokens[:, :-1]):
        fail("that predicts the token before: inputs and targets are swapped")
    if close(x, tokens[:, :-2]) and close(y, tokens[:, 2:]):
        fail("y is two tokens on: the target is the very next one")
    if x.shape[0] != 3:
        fail("you cut texts off and not tokens: time is the second dimension")
    if not (close(x, tokens[:, :-1]) and close(y, tokens[:, 1:])):
        fail(
            f"for {tokens[0].tolist()} "
            f"expected {tokens[0, :-1].tolist()} and {tokens[0, 1:].tolist()}"
        )

# %% ../../nbs/exercises/training_loop.ipynb #26284859
def long_step():
    "A model and a batch whose gradient is long enough for clipping to show."
    length = 0.0
    while length < 2:
        model = Tiny()
        with torch.no_grad():
            model.head.weight.mul_(30)
        x, y = batch()
        trial = copy.deepcopy(model)
        trial(x, y)[1].backward()
        length = grads(trial).norm()
    return model, x, y, trial


@exercise(
    hint="Five lines: zero_grad, model(x, y), backward, clip_grad_norm_(…, 1.0), step; "
    "return loss.item()."
)
def check_train_step(answer):
    "Forget, loss, gradient, clip, step."
    lr = random.uniform(0.1, 0.3)
    model, x, y, each = long_step()
    old = [torch.randn_like(p) for p in model.parameters()]

    def after(forget=True, clip=True):
        m = copy.deepcopy(model)
        _, loss = m(x, y)
        loss.backward()
        g = grads(m) + (0 if forget else torch.cat([o.flatten() for o in old]))
        g = g / max(1.0, g.norm() + 1e-6) if clip else g
        return weights(m) - lr * g, loss.item()

    m = copy.deepcopy(model)
    for p, o in zip(m.parameters(), old, strict=True):
        p.grad = o.clone()
    loss = answer(m, torch.optim.SGD(m.parameters(), lr=lr), x, y)
    got = weights(m)
    want, value = after()
    if close(got, weights(model)):
        fail("no weight has moved: either step is missing, or the gradient was forgotten before it")
    single = torch.cat([(p.grad / max(1.0, p.grad.norm())).flatten() for p in each.parameters()])
    stale = torch.cat([o.flatten() for o in old])
    early = "the step went along the old gradient: backward comes before step"
    for wrong, message in (
        (after(forget=False)[0], "the old gradient is still in there: zero_grad before backward"),
        (after(clip=False)[0], "the gradient is not clipped to norm 1 (between backward and step)"),
        (weights(model) - lr * single, "you clipped each tensor by its own norm: one for all"),
        (
            weights(model) - lr * grads(each).clamp(-1, 1),
            "you clipped each number, which turns the gradient: clip_grad_norm_, not _value_",
        ),
        (weights(model) - lr * stale / stale.norm(), early),
        (weights(model) - lr * stale, early),
    ):
        if close(got, wrong, 1e-4) and not close(got, want, 1e-4):
            fail(message)
    if not close(got, want, 1e-4):
        fail("the weights are not where one clipped step leads")
    if isinstance(loss, torch.Tensor):
        fail("return loss.item(): a tensor keeps the whole graph in memory")
    if not close(loss, value):
        fail(f"the loss before the step was {value:.4f}, got {loss}")

# %% ../../nbs/exercises/training_loop.ipynb #79ea146a
@exercise(
    hint="Weigh each piece by its targets: "
    "`loss * n / total`, where n counts targets that are not -100."
)
def check_accumulate(answer):
    "The gradient is that of the mean over all targets."
    model = Tiny()
    pieces = [batch(B=b) for b in random.sample((1, 2, 4), 3)]
    for _, y in pieces[:2]:
        y[0, : random.randint(1, 3)] = -100
    x, y = (torch.cat(part) for part in zip(*pieces, strict=True))

    def gradient(*shares, pieces=pieces):
        m = copy.deepcopy(model)
        for (xs, ys), share in zip(pieces, shares, strict=True):
            (m(xs, ys)[1] * share).backward()
        return grads(m)

    want = gradient(1.0, pieces=[(x, y)])
    m = copy.deepcopy(model)
    answer(m, pieces)
    got = grads(m)
    sizes = [ys.numel() for _, ys in pieces]
    if close(got, torch.zeros_like(got)):
        fail("no gradient arrived: call backward for every piece, and do not forget at the end")
    kept = [(ys != -100).sum().item() for _, ys in pieces]
    for shares, message in (
        ((1, 1, 1), "the pieces are added and not divided: about three times too large"),
        (
            (1 / 3, 1 / 3, 1 / 3),
            "the mean of means is the mean only for pieces of equal length: "
            "weigh each by its targets",
        ),
        ([s / sum(sizes) for s in sizes], "you count all targets: those of -100 do not count"),
        ((0, 0, 1), "only the last piece is left: do not forget between the pieces"),
        ((1, 0, 0), "only the first piece was read: every piece brings its gradient"),
        (kept, "that is the gradient of the sum: divide by the number of all targets"),
    ):
        if close(got, gradient(*shares), 1e-4):
            fail(message)
    if not close(got, want, 1e-4):
        fail(f"the gradient's norm should be {want.norm():.4f}, got {got.norm():.4f}")
    if not close(weights(m), weights(model)):
        fail("the weights have moved: an optimiser does that later, here only .grad is filled")

# %% ../../nbs/exercises/training_loop.ipynb #01af5811
@exercise(
    hint="Remember `model.training`, call `model.eval()`, "
    "and at the end `model.train(was_training)`."
)
def check_evaluate(answer):
    "The mean loss, measured in evaluation mode, and no trace left."
    for mode in (True, False):
        model = Tiny(p=0.5).train(mode)
        batches = [batch() for _ in range(3)]
        quiet = copy.deepcopy(model).eval()
        each = [quiet(x, y)[1].item() for x, y in batches]
        before = weights(model)
        try:
            got = answer(model, batches)
            still_off = not torch.is_grad_enabled()
        finally:
            torch.set_grad_enabled(True)
        if still_off:
            fail(
                "gradients are still off after your function: the next backward would fail. "
                "torch.no_grad() as a `with` switches them on again"
            )
        if not close(weights(model), before):
            fail("the weights have moved: an evaluation only looks")
        if any(training for training, _ in model.modes):
            fail(
                "the model was in training mode while you measured: with dropout the loss is noise"
            )
        if any(grad for _, grad in model.modes):
            fail("gradients were on: torch.no_grad() saves the memory of the whole graph")
        if model.training != mode:
            fail(
                f"the model was in {'training' if mode else 'evaluation'} "
                "mode before and now is not"
            )
        if not close(got, sum(each) / 3):
            if close(got, sum(each)):
                fail("that is the sum: divide by the number of batches")
            if close(got, each[-1]):
                fail("that is the last batch alone")
            fail(f"the mean of {[round(e, 3) for e in each]} is {sum(each) / 3:.4f}, got {got}")
