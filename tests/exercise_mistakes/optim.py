"""Classic mistakes in the exercises of chapter 9, and what the check must say of them."""


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


MISTAKES = {
    "check_momentum": [
        (lambda g, m, mu: mu * m + (1 - mu) * g, "running mean"),
        (lambda g, m, mu: mu * m - g, "minus sign"),
        (lambda g, m, mu: m + mu * g, "mu belongs to m"),
    ],
    "check_adamw": [
        (no_correction, "no bias correction"),
        (eps_inside, "epsilon inside the square root"),
        (l2, "without the decay in the gradient"),
        (no_decay, "do not decay"),
        (decay_without_lr, "not multiplied by the learning rate"),
        (returns_corrected, "keep the uncorrected one"),
    ],
    "check_clip": [
        (each_tensor, "every tensor by its own norm"),
        (lambda grads, limit: [g.clip(-limit, limit) for g in grads], "every number by itself"),
        (lambda grads, limit: [g * limit / norm(grads) for g in grads], "was stretched"),
        (lambda grads, limit: [g * limit / norm(grads) ** 2 for g in grads], "square root"),
    ],
    "check_wsd": [
        (lambda *a: wsd(*a, first=0), "wastes a batch"),
        (lambda s, peak, warmup, cooldown, n: peak * min(1, (s + 1) / warmup), "should reach 0"),
        (
            lambda s, peak, w, cooldown, n: peak * min(1, (s + 1) / w, (n - s) / (n - w)),
            "stay at the peak",
        ),
    ],
    "check_newton_schulz": [
        (lambda *a: newton_schulz(*a, start=False), "explode"),
        (lambda *a: newton_schulz(*a, cubes=True), "powers of every number"),
        (lambda G, n, a, b, c: newton_schulz(G, n, a, b, 0.0), "term with c"),
    ],
}
