"""Classic mistakes in the exercises of chapter 10, and what the check must say of them."""

import math

import numpy as np
import torch


def no_correction(w, g, m, v, t, lr, b1, b2, eps, decay):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    return w * (1 - lr * decay) - lr * m / (v**0.5 + eps), m, v


def eps_inside(w, g, m, v, t, lr, b1, b2, eps, decay):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    return w * (1 - lr * decay) - lr * m / (1 - b1**t) / (v / (1 - b2**t) + eps) ** 0.5, m, v


def l2(w, g, m, v, t, lr, b1, b2, eps, decay):
    g = g + decay * w
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    return w - lr * m / (1 - b1**t) / ((v / (1 - b2**t)) ** 0.5 + eps), m, v


def no_decay(w, g, m, v, t, lr, b1, b2, eps, decay):
    return adamw(w, g, m, v, t, lr, b1, b2, eps, 0.0)


def adamw(w, g, m, v, t, lr, b1, b2, eps, decay):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    return w * (1 - lr * decay) - lr * m / (1 - b1**t) / ((v / (1 - b2**t)) ** 0.5 + eps), m, v


def decay_without_lr(w, g, m, v, t, lr, b1, b2, eps, decay):
    return adamw(w, g, m, v, t, lr, b1, b2, eps, decay / lr)


def returns_corrected(w, g, m, v, t, lr, b1, b2, eps, decay):
    w, m, v = adamw(w, g, m, v, t, lr, b1, b2, eps, decay)
    return w, m / (1 - b1**t), v / (1 - b2**t)


def norm(grads):
    return sum((g**2).sum() for g in grads) ** 0.5


def each_tensor(grads, max_norm):
    return [g * min(1, max_norm / norm([g])) for g in grads]


def wsd(step, peak, warmup, cooldown, max_steps, first=1):
    return peak * min(1, (step + first) / warmup, (max_steps - step) / cooldown)


def newton_schulz(G, steps, a, b, c, start=True, cubes=False):
    X = G / G.norm() if start else G
    for _ in range(steps):
        A = X @ X.T
        X = a * X + b * X**3 + c * X**5 if cubes else a * X + b * A @ X + c * A @ A @ X
    return X


def in_place(g, m, mu):
    m *= mu
    m += g
    return m


def adamw_in_place(w, g, m, v, t, lr, b1, b2, eps, decay):
    w *= 1 - lr * decay
    m *= b1
    m += (1 - b1) * g
    v *= b2
    v += (1 - b2) * g * g
    w -= lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return [w, m, v]


def adamw_torch(w, g, m, v, t, lr, b1, b2, eps, decay):
    p = torch.nn.Parameter(torch.tensor(w))
    optimizer = torch.optim.AdamW([p], lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay)
    p.grad = torch.tensor(g)
    state = {
        "step": torch.tensor(float(t - 1)),
        "exp_avg": torch.tensor(m),
        "exp_avg_sq": torch.tensor(v),
    }
    optimizer.state[p] = state
    optimizer.step()
    return p.detach(), state["exp_avg"], state["exp_avg_sq"]


def adamw_long(w, g, m, v, t, lr, b1, b2, eps, decay):
    m, v = m + (1 - b1) * (g - m), v + (1 - b2) * (g**2 - v)
    step = lr * math.sqrt(1 - b2**t) / (1 - b1**t) * m / (v**0.5 + eps * math.sqrt(1 - b2**t))
    return (w - lr * decay * w - step, m, v)


def one_corrected(w, g, m, v, t, lr, b1, b2, eps, decay):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    return w * (1 - lr * decay) - lr * m / (1 - b1**t) / (v**0.5 + eps), m, v


def uphill(w, g, m, v, t, lr, b1, b2, eps, decay):
    return adamw(w, g, m, v, t, -lr, b1, b2, eps, -decay)


def clip_in_place(grads, max_norm):
    length = math.sqrt(sum(float((g * g).sum()) for g in grads))
    if length > max_norm:
        for g in grads:
            g *= max_norm / length
    return grads


def clip_joined(grads, max_norm):
    length = np.linalg.norm(np.concatenate([g.ravel() for g in grads]))
    return tuple(g / max(1.0, length / max_norm) for g in grads)


def clip_torch(grads, max_norm):
    parameters = [torch.zeros(g.shape, dtype=torch.float64) for g in grads]
    for p, g in zip(parameters, grads, strict=True):
        p.grad = torch.tensor(g)
    torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    return [p.grad for p in parameters]


def pieces(step, peak, warmup, cooldown, max_steps, floor=0.0):
    if step < warmup:
        return (step + 1) / warmup * peak
    if step <= max_steps - cooldown:
        return peak
    return max(floor, peak * (1 - (step - (max_steps - cooldown)) / cooldown))


def ns_loop(G, steps, a, b, c):
    X = G.clone()
    X /= (X**2).sum().sqrt()
    for _ in range(steps):
        X = a * X + (b * (X @ X.mT) + c * (X @ X.mT) @ (X @ X.mT)) @ X
    return X


def ns_tall(G, steps, a, b, c):
    X = (G / torch.linalg.matrix_norm(G)).T
    for _ in range(steps):
        A = X.T @ X
        X = X @ (a * torch.eye(len(A)) + b * A + c * A @ A)
    return X.T


def ns_svd(G, steps, a, b, c):
    U, S, V = torch.linalg.svd(G / G.norm(), full_matrices=False)
    for _ in range(steps):
        S = a * S + b * S**3 + c * S**5
    return U @ torch.diag(S) @ V


def rescaled(G, steps, a, b, c):
    X = G
    for _ in range(steps):
        X = newton_schulz(X, 1, a, b, c)
    return X


def seventh(G, steps, a, b, c):
    X = G / G.norm()
    for _ in range(steps):
        A = X @ X.T
        X = a * X + b * A @ X + c * A @ A @ A @ X
    return X


MISTAKES = {
    "check_momentum": [
        (lambda g, m, mu: mu * (m + g), "the new gradient fades only"),
        (lambda g, m, mu: m + g, "does not fade"),
        (lambda g, m, mu: (1 - mu) * m + g, "the share that stays"),
        (lambda g, m, mu: mu * m + (1 - mu) * g, "running mean"),
        (lambda g, m, mu: mu * m - g, "minus sign"),
        (lambda g, m, mu: m + mu * g, "mu belongs to m"),
    ],
    "check_adamw": [
        (
            lambda w, g, m, v, t, lr, b1, b2, eps, decay: adamw(
                w, g, m, v, t, lr, b1, b2, 0.0, decay
            ),
            "epsilon is missing",
        ),
        (one_corrected, "v is not corrected"),
        (lambda *a: adamw(*a)[0], "return three things"),
        (uphill, "you step up the gradient"),
        (no_correction, "the bias correction is missing"),
        (eps_inside, "epsilon inside the square root"),
        (l2, "without the decay in the gradient"),
        (no_decay, "do not decay"),
        (decay_without_lr, "not multiplied by the learning rate"),
        (returns_corrected, "keep the uncorrected one"),
    ],
    "check_clip": [
        (lambda grads, limit: [g / norm(grads) for g in grads], "whatever max_norm says"),
        (
            lambda grads, limit: [g * limit / max(norm([x]) for x in grads) for g in grads],
            "longest tensor",
        ),
        (
            lambda grads, limit: [g * limit / sum(np.abs(x).sum() for x in grads) for g in grads],
            "absolute values",
        ),
        (lambda grads, limit: grads, "should have norm"),
        (each_tensor, "every tensor by its own norm"),
        (lambda grads, limit: [g.clip(-limit, limit) for g in grads], "every number by itself"),
        (lambda grads, limit: [g * limit / norm(grads) for g in grads], "was stretched"),
        (lambda grads, limit: [g * limit / norm(grads) ** 2 for g in grads], "square root"),
    ],
    "check_wsd": [
        (wsd, "below zero"),
        (lambda s, peak, *a: peak, "the warmup is missing"),
        (
            lambda s, peak, w, c, n: pieces(s, peak, w, c, n) if s < n - c or s >= n else peak / 2,
            "stay at the peak",
        ),
        (
            lambda s, peak, w, c, n: (
                pieces(s, peak, w, c, n) ** 2 / peak if s > w else pieces(s, peak, w, c, n)
            ),
            "straight line",
        ),
        (lambda *a: wsd(*a, first=0), "wastes a batch"),
        (lambda s, peak, warmup, cooldown, n: peak * min(1, (s + 1) / warmup), "should reach 0"),
        (
            lambda s, peak, w, cooldown, n: peak * min(1, (s + 1) / w, (n - s) / (n - w)),
            "stay at the peak",
        ),
    ],
    "check_newton_schulz": [
        (lambda G, n, a, b, c: newton_schulz(G, 1, a, b, c), "one round"),
        (rescaled, "you scale again"),
        (seventh, "seventh power"),
        (lambda G, n, a, b, c: G / G.norm(), "singular values should be"),
        (lambda *a: newton_schulz(*a, start=False), "explode"),
        (lambda *a: newton_schulz(*a, cubes=True), "powers of every number"),
        (lambda G, n, a, b, c: newton_schulz(G, n, a, b, 0.0), "term with c"),
    ],
}

RIGHT = {
    "check_momentum": [
        in_place,
        lambda g, m, mu: g + m * mu,
        lambda g, m, mu: [x + mu * y for x, y in zip(g, m, strict=True)],
        lambda g, m, mu: np.add(g, np.multiply(mu, m)),
    ],
    "check_adamw": [adamw, adamw_in_place, adamw_torch, adamw_long],
    "check_clip": [clip_in_place, clip_joined, clip_torch],
    "check_wsd": [
        pieces,
        lambda *a: max(0.0, wsd(*a)),
        lambda s, peak, w, c, n: peak * max(0, min((s + 1) / w, 1, (n - s) / c)),
        lambda s, peak, w, c, n: float(np.interp(s, [-1, w - 1, n - c, n], [0, peak, peak, 0])),
    ],
    "check_newton_schulz": [newton_schulz, ns_loop, ns_tall, ns_svd],
}
