"""Checks for the exercises of ch07."""

# Made by tools/book.py from ../../book/exercises/backprop.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_exp', 'computation', 'gradients', 'level_order', 'check_run_backwards',
           'claims', 'check_is_right', 'check_softmax_back', 'check_linear_back']

# %% ../../nbs/exercises/backprop.ipynb #b8fbf8be
import math
import random

import torch

from gpt2edu.model.autograd import Value, recorded
from gpt2edu.exercises.core import close, exercise, fail
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/backprop.ipynb #f6cff174
quiz = Quiz(
    Question(
        "A weight is used at every position of a text. What is its gradient?",
        right=(
            "the sum of what all positions send back",
            "The loss reacts along every path, and the reactions add up: +=, never =.",
        ),
        wrong=(
            (
                "what the last position to report sends back",
                "That is the bug of = in place of +=: each report overwrites the one before.",
            ),
            (
                "the mean of what all positions send back",
                "A mean appears only where the loss itself is one; paths that meet are added.",
            ),
        ),
    ),
    Question(
        "Why does a softmax subtract the largest logit first?",
        right=(
            "so that no exponential can overflow",
            "The largest exponent becomes 0, and the probabilities are the same in exact numbers.",
        ),
        wrong=(
            (
                "so that the rows sum to exactly one",
                "The division sees to that, with or without the shift.",
            ),
            (
                "so that the likeliest token gains more",
                "All logits move by the same number, so no probability changes.",
            ),
        ),
    ),
    Question(
        "The target has probability 0.9, another token 0.1. "
        "What is the gradient of the loss with respect to the two logits?",
        right=("-0.1 and 0.1", "It is p - y: 0.9 - 1 at the target, 0.1 - 0 at the other."),
        wrong=(
            ("0.9 and 0.1", "These are the probabilities; the target's is reduced by 1."),
            ("-1.1 and 0.0", "-1/p is the slope towards the probability, not towards the logit."),
        ),
    ),
)

# %% ../../nbs/exercises/backprop.ipynb #4ecd1758
@exercise(
    hint="`Value(number, (x,), (slope,))`: the slope of the exponential is the exponential itself."
)
def check_exp(answer):
    "Holds e to the power of x, and remembers x and the slope."
    at = random.choice((-1, 1)) * random.uniform(0.6, 1.8)
    x = Value(at)
    y = answer(x)
    e = math.exp(at)
    if not all(hasattr(y, name) for name in ("data", "parents", "slopes")):
        fail(f"return a Value, so that the computation can go on; got {type(y).__name__}")
    if not close(y.data, e):
        fail(f"e to the power of {at:.3f} is {e:.4f}, your Value holds {y.data}")
    if x not in recorded(y):
        fail("your Value does not remember x: without a parent no gradient arrives there")
    if len(y.parents) != len(y.slopes):
        fail(f"it has parents: {len(y.parents)}, and slopes: {len(y.slopes)}; one slope for each")
    scaled = 3 * (y + y)  # the gradient arrives from further on, and twice
    scaled.backward()
    if close(x.grad, 6 * at * math.exp(at - 1)):
        fail("x · e^(x - 1) is the rule for powers of x; here x is the exponent")
    if close(x.grad, 6):
        fail("with a slope of 1 the gradient passes unchanged: how steep is e^x at x?")
    if close(x.grad, 6 * at):
        fail("the slope is x; a slope belongs to the result: how steep is e^x?")
    if close(x.grad, 6 / e) or close(x.grad, 6 / at):
        fail("that is the slope turned over, or a logarithm's")
    if close(x.grad, 6 * (1 - e * e)):
        fail("1 - y² is the slope of tanh")
    if not close(x.grad, 6 * e):
        fail(f"the slope at {at:.3f} should be {e:.4f}, yours is {x.grad / 6:.4f}")
    if not (close(y.grad, 6) and close(x.data, at)):
        fail("leave x, and every grad, to the backward pass")

# %% ../../nbs/exercises/backprop.ipynb #f8778467
def computation(kind):
    "Make the last Value of a small computation, and the leaves that it came from."
    a, b = (Value(random.uniform(1.2, 2.5)) for _ in range(2))
    if kind == "twice":
        return a * a + a * b, (a, b)
    if kind == "lengths":
        c = a * b
        return c * ((3 * c + b) * 2), (a, b)
    values = [a, b]
    for _ in range(6):
        x, y = random.choices(values, k=2)
        values.append(random.choice((x + y, 0.5 * (x * y), x.tanh() + y)))
    return values[-1] * values[-2] + values[-3], (a, b)


def gradients(root, order, add=True, slopes=True, seed=1.0):
    "Run back through an order, right or with one mistake."
    grads = dict.fromkeys(order, 0.0)
    grads[root] = seed
    for value in order:
        for parent, slope in zip(value.parents, value.slopes, strict=True):
            share = (slope if slopes else 1.0) * grads[value]
            grads[parent] = share + (grads[parent] if add else 0.0)
    return grads


def level_order(root):
    "List a computation as it is met when walking outwards from its end."
    order = [root]
    for value in order:
        order += [p for p in dict.fromkeys(value.parents) if p not in order]
    return order


@exercise(
    hint="List the Values with each after its parents, set loss.grad = 1, go through the list "
    "from its end: parent.grad += slope * value.grad."
)
def check_run_backwards(answer):
    "Every Value has its gradient, whatever the graph."
    for kind in ("twice", "lengths", "random"):
        root, _ = computation(kind)
        order = recorded(root)
        back = order[::-1]
        answer(root)
        got = [v.grad for v in back]
        want = gradients(root, back)
        if close(got, list(want.values())):
            continue

        def like(back=back, got=got, **mistake):
            grads = gradients(back[0], mistake.pop("order", back), **mistake)
            return close(got, [grads[v] for v in back])

        if not any(got):
            fail("every gradient is 0: where does the first one come from? loss.grad is 1")
        if got[0] == 1 and not any(got[1:]):
            fail("only the last Value has a gradient: hand it on to the parents")
        if like(add=False):
            fail("where a Value is used twice, the second path overwrites the first: += and not =")
        if like(slopes=False):
            fail("the gradients were handed on and not multiplied by the slopes")
        if kind != "twice" and like(order=level_order(root)):
            fail(
                "a Value passed its gradient on before all that use it had reported: "
                "walking outwards from the loss is not a topological order"
            )
        if like(order=order):
            fail("that goes from the leaves to the loss: go through the order from its end")
        if any(abs(g) > abs(want[v]) * 1.01 for g, v in zip(got, back, strict=True)):
            fail(
                "some gradients are too large: does a Value hand on its gradient each time "
                "that it is met? Once, when it is complete"
            )
        v = next(v for v, g in zip(back, got, strict=True) if not close(g, want[v]))
        fail(f"a gradient should be {want[v]:.4f}, got {v.grad}")

# %% ../../nbs/exercises/backprop.ipynb #288a6b12
def claims():
    "Give a function, a point, and claims of its gradient: what is wrong with each, and the claim."
    x = torch.rand(2, 3, dtype=torch.float64) + 0.5
    shares = torch.rand(2, 3, dtype=torch.float64) + 1
    shares[0, 1] = 0  # one number without a slope

    def f(x):
        return (shares * x**3).sum() + 1000

    right = 3 * shares * x**2
    off = torch.zeros_like(x)
    off[1, 2] = right.max() / 100
    across = off - off.flip(1).flip(0)  # as much too small at the other end
    faults = {
        "": right,
        "more": right + off,
        "less": right - off,
        "cancel": right + across,
        "sign": -right,
        "double": 2 * right,
        "zero": torch.zeros_like(x),
    }
    return f, x, faults


@exercise(
    hint="Measure with central differences, h = 1e-5. Then `(claimed - measured).abs().max()` "
    "against `1e-4 * measured.abs().max()`."
)
def check_is_right(answer):
    "Accepts right gradients, large and small, and refuses each wrong one."
    f, x, faults = claims()

    def says(fault, scale=1.0):
        got = answer(lambda x: scale * f(x), lambda x: scale * faults[fault], x)
        if isinstance(got, torch.Tensor) and got.numel() > 1:
            fail("return one answer for the whole gradient, not one for each number")
        return bool(got)

    if not says(""):
        fail(
            "a right gradient was refused: h is too large and f bends, or too small and rounding "
            "takes over (try 1e-5), or a slope of 0 was divided by"
        )
    accepted = [fault for fault in faults if fault and says(fault)]
    if len(accepted) == len(faults) - 1:
        fail(
            "every claim is accepted: compare each number with what you measure, "
            "and look at the largest difference"
        )
    if len({"more", "less"} & {*accepted}) == 1:
        fail("a difference below zero passes as a small one: compare its size, with abs()")
    if "sign" in accepted and "double" not in accepted:
        fail("a gradient of the wrong sign is accepted: compare the slopes, not their sizes")
    if "cancel" in accepted and not {"more", "less"} <= {*accepted}:
        fail("errors of opposite signs cancel in a sum or a mean: compare number by number")
    if accepted:
        fail(
            "a gradient that is wrong in its last number alone is accepted: "
            "look at every number, and at the largest difference"
        )
    if not says("", 1e5):
        fail(
            "a right gradient with large slopes was refused: "
            "measure the difference against the largest slope"
        )
    if says("more", 1e-7) or says("double", 1e-7):
        fail(
            "a wrong gradient with small slopes was accepted: "
            "measure the difference against the largest slope"
        )

# %% ../../nbs/exercises/backprop.ipynb #5ba8bd6a
@exercise(hint="`mean = (p * dp).sum(-1, keepdim=True)`, one number for each row.")
def check_softmax_back(answer):
    "The Jacobian times dp, without the Jacobian."
    p = torch.randn(3, 5, dtype=torch.float64).softmax(-1)
    dp = torch.randn(3, 5, dtype=torch.float64)
    want = p * (dp - (p * dp).sum(-1, keepdim=True))
    got = answer(p.clone(), dp.clone())
    if close(got, p * (1 - p) * dp):
        fail("that is the diagonal alone: each logit moves every probability, by the sum below")
    if close(got, p * dp):
        fail("the sum below the line is missing: it grows with every logit")
    if close(got, p - dp) or close(got, dp - p):
        fail("p - y holds behind a cross-entropy; here dp is any gradient")
    if close(got, p * (dp - (p * dp).sum())):
        fail("the mean runs over the whole batch: each row is a softmax of its own")
    if close(got, p * (dp - (p * dp).sum(0, keepdim=True))):
        fail("the sum runs over the batch: take it over the last axis")
    if close(got, p * (dp - dp.mean(-1, keepdim=True))):
        fail("the mean of dp must be weighted by the probabilities")
    if close(got, p * (dp - dp.sum(-1, keepdim=True))):
        fail("the sum of dp must be weighted by the probabilities")
    if close(got, p * (dp - (p * dp).mean(-1, keepdim=True))):
        fail("p already sums to 1: sum p · dp, do not take its mean")
    if close(got, dp - (p * dp).sum(-1, keepdim=True)):
        fail("the factor p in front is missing: a token without probability hardly moves")
    if close(got, -want):
        fail("the sign is wrong: a token that is better than the mean has a positive slope")
    if not close(got, want):
        fail(f"the first row should be {[round(v, 4) for v in want[0].tolist()]}")
    _certain(answer)


def _certain(answer):
    "A softmax that is certain has no slope; nothing is divided by its zeros."
    p = torch.eye(4, dtype=torch.float64)[:2]
    got = answer(p.clone(), torch.ones(2, 4, dtype=torch.float64) * 3)
    if not close(got, torch.zeros(2, 4)):
        fail("probabilities of 0 and 1 give NaN or a slope: do not divide by p")

# %% ../../nbs/exercises/backprop.ipynb #9a9009e3
@exercise(
    hint="Only one arrangement fits the shapes. For W, make rows of all positions: "
    "`X.flatten(0, 1)` is (B · T, C)."
)
def check_linear_back(answer):
    "Gradients of X, W and b, summed over every use."
    B, T, C, D = 2, 3, 4, random.choice((4, 5))  # square too: there shapes tell nothing
    X, W, dY = (torch.randn(*s, dtype=torch.float64) for s in ((B, T, C), (C, D), (B, T, D)))
    rows, d_rows = X.flatten(0, 1), dY.flatten(0, 1)
    want = (dY @ W.t(), rows.t() @ d_rows, d_rows.sum(0))
    for square in (False, True):
        if square and D != C:
            W, dY = torch.randn(C, C, dtype=torch.float64), torch.randn(B, T, C).double()
            d_rows = dY.flatten(0, 1)
            want = (dY @ W.t(), rows.t() @ d_rows, d_rows.sum(0))
        got = answer(X.clone(), W.clone(), dY.clone())
        if not isinstance(got, tuple | list) or len(got) != 3:
            fail("return three gradients: of X, of W and of b")
        dX, dW, db = got
        _weights(dW, want[1], X, dY)
        _inputs(dX, want[0], W, dY)
        _biases(db, want[2], dY)


def _weights(dW, want, X, dY):
    n = X.shape[0] * X.shape[1]
    if close(dW, want.t()):
        fail("dW is transposed: it should have the shape of W, (C, D)")
    if close(dW, torch.einsum("btc,btd->bcd", X, dY)):
        fail("dW has one matrix for each sequence: W was used by all of them, so add them up")
    if close(dW, want / n) or close(dW, want / X.shape[0]):
        fail("dW is a mean; gradients of several uses add up, and the loss has its own mean")
    if close(dW, X[-1].t() @ dY[-1]) or close(dW, X[0].t() @ dY[0]):
        fail("dW has only one sequence of the batch")
    if not close(dW, want):
        fail(f"dW should be X transposed times dY over all {n} positions")


def _inputs(dX, want, W, dY):
    if W.shape[0] == W.shape[1] and close(dX, dY @ W):
        fail("dX used W; it goes back the way it came, so W is transposed")
    if not close(dX, want):
        fail(f"dX should be dY times W transposed, of shape {tuple(want.shape)}")


def _biases(db, want, dY):
    if close(db, dY.sum(0)) or close(db, dY.sum(1)):
        fail("db is summed over one axis: the bias was added at every position of every sequence")
    if close(db, want.sum()):
        fail("db is a single number: each output has its own bias")
    if close(db, dY.mean((0, 1))):
        fail("db is a mean; gradients of several uses add up, so sum")
    if close(db, want[None]) or close(db, want[None, None]):
        fail("db should have the shape of b, (D,), without further axes")
    if close(db, torch.ones_like(want)):
        fail("db is 1: that is the slope of Y towards b; multiply by dY and add up")
    if not close(db, want):
        fail("db should be dY, summed over all positions")
