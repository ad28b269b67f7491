"""Checks for the exercises of ch10: momentum, AdamW, clipping, a schedule, Newton-Schulz."""

# Made by tools/book.py from ../../book/exercises/optim.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_momentum', 'adamw', 'check_adamw', 'check_clip', 'check_wsd',
           'check_newton_schulz']

# %% ../../nbs/exercises/optim.ipynb #43089604
import numpy as np
import torch

from gpt2edu.exercises.core import close, exercise, fail, plain
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/optim.ipynb #17dc5a0c
quiz = Quiz(
    Question(
        "A valley is 50 times steeper across than along. You lower the steepness across to 25. "
        "What does this allow plain SGD?",
        right=(
            "a rate about twice as large",
            "The steepest direction sets the limit: lr times the steepness must stay below 2.",
        ),
        wrong=(
            (
                "no larger rate than before",
                "The flat direction was slow because the steep one forbade a larger rate.",
            ),
            (
                "only half the rate of before",
                "Smaller gradients leave room for a larger rate, not for a smaller one.",
            ),
        ),
    ),
    Question(
        "All gradients of one weight are multiplied by 1000. What happens to its steps under Adam?",
        right=(
            "they stay as they were, except for the epsilon",
            "The step is a ratio of the mean gradient to its usual size, so the unit cancels.",
        ),
        wrong=(
            (
                "they grow by 1000, and clipping has to shorten them",
                "That is SGD. Adam divides by the root of the mean square, which grew as well.",
            ),
            (
                "they shrink, since the squares grow by a million",
                "The root is taken of the squares: 1000 above the line and 1000 below it.",
            ),
        ),
    ),
    Question(
        "A run is resumed with its weights but with a new, empty AdamW. What will you see?",
        right=(
            "another path than that of the unbroken run",
            "m and v start again at zero, so the first steps rest on one or two gradients.",
        ),
        wrong=(
            (
                "the same path, because the weights hold all that was learnt",
                "The weights are the same, but each next step also depends on m, v and t.",
            ),
            (
                "an error, because AdamW misses its state",
                "An empty state is what every new run has; nothing warns you.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/optim.ipynb #75a58edd
@exercise(hint="Multiply the old momentum by mu, then add the gradient as it is.")
def check_momentum(answer):
    "A fading sum of gradients: those that agree grow, those that alternate cancel."
    rng = np.random.default_rng()
    g = rng.normal(size=5)
    m = rng.normal(size=5)
    mu = rng.uniform(0.5, 0.95)
    got = answer(g, m, mu)
    if close(got, mu * m + (1 - mu) * g):
        fail(
            "that is a running mean (Adam's m): "
            "here the gradient is added in full, without the factor 1 - mu"
        )
    if close(got, mu * m - g):
        fail("you subtract the gradient: the minus sign comes later, when the weights are moved")
    if close(got, mu * (m + g)):
        fail("the new gradient fades only from the next step on: add it after the multiplication")
    if close(got, m + g):
        fail("the old momentum does not fade: multiply it by mu")
    if close(got, (1 - mu) * m + g) or close(got, (1 - mu) * m + mu * g):
        fail("mu is the share that stays of the old momentum, not the share that goes")
    if close(got, m + mu * g):
        fail("you let the gradient fade and keep all of the old momentum: mu belongs to m")
    if not close(got, mu * m + g):
        fail(
            f"for g={g[0]:.3f}, m={m[0]:.3f}, mu={mu:.3f} "
            f"expected {mu * m[0] + g[0]:.3f}, got {np.ravel(got)[0]}"
        )

# %% ../../nbs/exercises/optim.ipynb #8b85f694
def adamw(w, g, m, v, t, lr, b1, b2, eps, decay):
    "Compute one step of AdamW."
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    return w * (1 - lr * decay) - lr * m / (1 - b1**t) / ((v / (1 - b2**t)) ** 0.5 + eps), m, v


@exercise(
    hint="m, v: running means, each divided by its 1 - b**t; "
    "eps outside the root; w *= 1 - lr * decay."
)
def check_adamw(answer):
    "One step of AdamW, the same as PyTorch's."
    rng = np.random.default_rng()
    w = rng.normal(size=6)
    g = rng.normal(size=6)
    m = rng.normal(size=6)
    v = rng.uniform(0.1, 2, size=6)
    t = int(rng.integers(2, 6))
    lr, b1, b2, eps, decay = 0.1, 0.8, 0.9, 0.05, 0.3
    got = answer(w.copy(), g.copy(), m.copy(), v.copy(), t, lr, b1, b2, eps, decay)
    if not isinstance(got, (tuple, list)) or len(got) != 3:
        fail("return three things: w, m, v")
    want_w, want_m, want_v = adamw(w, g, m, v, t, lr, b1, b2, eps, decay)
    if close(got[1], want_m / (1 - b1**t)):
        fail("you return the corrected m: keep the uncorrected one for the next step")
    if not close(got[1], want_m):
        fail("m is wrong: it should be b1 * m + (1 - b1) * g, without the decay in the gradient")
    if not close(got[2], want_v):
        fail("v is wrong: it should be b2 * v + (1 - b2) * g**2")
    c1, c2 = 1 - b1**t, 1 - b2**t
    uncorrected = want_m / (want_v**0.5 + eps)
    eps_inside = want_m / c1 / (want_v / c2 + eps) ** 0.5
    no_root = want_m / c1 / (want_v / c2 + eps)
    mistakes = {
        "the bias correction is missing: divide m by 1 - b1**t and v by 1 - b2**t": uncorrected,
        "is your epsilon inside the square root? It is added after it": eps_inside,
        "the square root of v is missing": no_root,
        "epsilon is missing: add it to the root of v, which may be 0": want_m
        / c1
        / (want_v / c2) ** 0.5,
        "v is not corrected: divide it by 1 - b2**t as well": want_m / c1 / (want_v**0.5 + eps),
    }
    for message, direction in mistakes.items():
        if close(got[0], w * (1 - lr * decay) - lr * direction):
            fail(message)
    step = lr * want_m / c1 / ((want_v / c2) ** 0.5 + eps)
    if close(got[0], w - step):
        fail("the weights do not decay")
    if close(got[0], w * (1 - decay) - step):
        fail("the decay is not multiplied by the learning rate")
    if close(got[0], w * (1 - lr * decay) + step):
        fail("you step up the gradient: the loss would grow")
    if not close(got[0], want_w):
        fail(f"m and v are right, w is not: expected {want_w[0]:.4f}, got {np.ravel(got[0])[0]}")

# %% ../../nbs/exercises/optim.ipynb #6bb135a4
@exercise(
    hint="Square everything, add it all up, take one root; "
    "the factor is max_norm / norm, but never above 1."
)
def check_clip(answer):
    "One norm over all tensors, and only ever shorter."
    rng = np.random.default_rng()
    grads = [rng.normal(size=(3, 4)) * 5, rng.normal(size=4) * 0.3, rng.normal(size=(2, 2)) * 2]
    norm = sum((g**2).sum() for g in grads) ** 0.5
    limit = rng.uniform(1.5, 2.5)
    flat = np.concatenate([np.ravel(g) for g in answer([g.copy() for g in grads], limit)])

    def joined(factors):
        return np.concatenate([np.ravel(g * f) for g, f in zip(grads, factors, strict=True)])

    if close(flat, joined([min(1, limit / (g**2).sum() ** 0.5) for g in grads])):
        fail(
            "you clip every tensor by its own norm: "
            "that turns the direction. One norm over all of them"
        )
    if close(flat, joined([1 / norm] * 3)):
        fail(f"yours have norm 1, whatever max_norm says: here it is {limit:.2f}")
    longest = max((g**2).sum() ** 0.5 for g in grads)
    if close(flat, joined([limit / longest] * 3)):
        fail("that is the norm of the longest tensor: square and add over all of them")
    if close(flat, joined([limit / sum(np.abs(g).sum() for g in grads)] * 3)):
        fail("you added absolute values: square them, add, take the root")
    if close(flat, np.clip(joined([1, 1, 1]), -limit, limit)):
        fail("you clip every number by itself: that turns the direction. Scale all by one factor")
    if close(flat, joined([limit / norm**2] * 3)):
        fail("the square root of the norm is missing")
    if not close(flat, joined([limit / norm] * 3)):
        fail(
            f"the clipped gradients should have norm {limit}; "
            f"yours have {(flat**2).sum() ** 0.5:.4f}"
        )
    short = answer([g.copy() * 0.01 / norm for g in grads], limit)
    if not close(np.concatenate([np.ravel(g) for g in short]), joined([0.01 / norm] * 3)):
        fail("a gradient shorter than max_norm must stay as it is: yours was stretched")

# %% ../../nbs/exercises/optim.ipynb #394f210c
@exercise(
    hint="First the values at 0, warmup - 1, warmup, max_steps - cooldown and max_steps; "
    "then three formulas."
)
def check_wsd(answer):
    "Up, level, down to zero."
    rng = np.random.default_rng()
    warmup, cooldown = int(rng.integers(3, 8)), int(rng.integers(4, 9))
    max_steps = warmup + cooldown + int(rng.integers(5, 20))
    peak = rng.uniform(1, 5)
    got = plain([answer(s, peak, warmup, cooldown, max_steps) for s in range(max_steps + 1)])
    if close(got[0], 0.0):
        fail("step 0 has a rate of 0, which wastes a batch: climb with (step + 1) / warmup")
    want = [
        peak * min(1, (s + 1) / warmup, (max_steps - s) / cooldown)  # the lowest of three lines
        for s in range(max_steps + 1)
    ]
    if close(got[:warmup], [peak] * warmup):
        fail("the warmup is missing: the rate begins at the peak")
    if not close(got[:warmup], want[:warmup]):
        fail(
            f"the warmup is wrong: step {warmup - 1} should be the peak, {peak:.3f}; "
            f"got {got[warmup - 1]:.3f}"
        )
    start = max_steps - cooldown
    if not close(got[warmup : start + 1], want[warmup : start + 1]):
        fail(f"the rate should stay at the peak from step {warmup} to step {start}")
    if not close(got[-1], 0.0):
        fail(f"the rate should reach 0 at step {max_steps}; got {got[-1]:.4f}")
    if not close(got, want):
        fail("the way down is not a straight line from the peak to 0")
    late = [
        answer(max_steps + more, peak, warmup, cooldown, max_steps) for more in (1, 2, cooldown)
    ]
    if min(late) < 0:
        fail(
            f"after max_steps the rate is {min(late):.3f}, below zero, and a step would climb: "
            "stop at 0"
        )

# %% ../../nbs/exercises/optim.ipynb #097fad17
@exercise(hint="Divide by the norm first; then A = X @ X.T and X = a X + b A X + c A A X.")
def check_newton_schulz(answer):
    "Singular values near 1, directions kept."
    G = torch.randn(5, 8)
    a, b, c = 3.4445, -4.7750, 2.0315

    def iterate(X, steps, cubes=lambda X: X @ X.T @ X, fifths=lambda X: X @ X.T @ X @ X.T @ X):
        for _ in range(steps):
            X = a * X + b * cubes(X) + c * fifths(X)
        return X

    got = answer(G.clone(), 2, a, b, c)
    if not torch.is_tensor(got) or got.shape != G.shape:
        fail(f"return a matrix of the shape of G, {tuple(G.shape)}")
    X = G / G.norm()
    if close(got, iterate(X, 2, lambda X: X**3, lambda X: X**5), 1e-3):
        fail("you take powers of every number: the cubes of the singular values are in X @ X.T @ X")
    if close(got, iterate(X, 2, fifths=lambda X: 0), 1e-3):
        fail("the term with c is missing")
    if close(got, iterate(X, 1), 1e-3):
        fail("one round, whatever `steps` says")
    if close(got, (X @ X.T @ X) * (a + b + c), 1e-3):
        fail("a belongs to X, b to X Xᵀ X, c to X Xᵀ X Xᵀ X")
    if close(got, iterate(X, 2, fifths=lambda X: X @ X.T @ X @ X.T @ X @ X.T @ X), 1e-3):
        fail("the last term is a seventh power; c belongs to the fifth, A A X")
    once = iterate(X, 1)
    if close(got, iterate(once / once.norm(), 1), 1e-3):
        fail("you scale again in every round: once, at the start, is enough")
    got = answer(G.clone(), 4, a, b, c)
    if not got.isfinite().all() or got.norm() > 100:
        fail("the values explode: divide G by its norm first, so that no singular value is above 1")
    if not close(got, iterate(X, 4), 1e-3):
        fail(
            "after 4 steps the singular values should be near 1; "
            f"yours are {torch.linalg.svdvals(got).tolist()}"
        )
