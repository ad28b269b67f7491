"Classic mistakes for the exercises of ch07, and right answers in other styles."

import graphlib
import math

import torch

from gpt2edu.model.autograd import Value, recorded


def exp(slope, parents=True, scale=1.0):
    def answer(x):
        e = math.exp(x.data) * scale
        return Value(e, (x,), (slope(x.data, e),)) if parents else Value(e)

    return answer


def exp_by_name(x):
    y = Value(data=math.e**x.data, parents=(x,), name="exp")
    y.slopes = (y.data,)
    return y


def exp_from_tanh(x):  # e^x = (1 + t) / (1 - t) with t = tanh(x / 2)
    t = (0.5 * x).tanh()
    return (1 + t) * (Value(1.0) - t) ** -1


def back(loss, order=None, add=True, slopes=True, seed=1.0):
    order = recorded(loss)[::-1] if order is None else order(loss)
    loss.grad = seed
    for v in order:
        for p, s in zip(v.parents, v.slopes, strict=True):
            p.grad = (s if slopes else 1) * v.grad + (p.grad if add else 0)


def outwards(loss):
    order = [loss]
    for v in order:
        order += [p for p in dict.fromkeys(v.parents) if p not in order]
    return order


def each_time(v, first=True):
    "Hands on the whole gradient at every meeting."
    if first:
        v.grad = 1.0
    for p, s in zip(v.parents, v.slopes, strict=True):
        p.grad += s * v.grad
        each_time(p, first=False)


def by_share(loss):
    "Every path on its own: each share goes all the way down."

    def go(v, share):
        v.grad += share
        for p, s in zip(v.parents, v.slopes, strict=True):
            go(p, share * s)

    go(loss, 1.0)


def by_users(loss):
    "Counts the users of each Value, as PyTorch does."
    users, todo, seen = {}, [loss], {loss}
    while todo:
        for p in todo.pop().parents:
            users[p] = users.get(p, 0) + 1
            if p not in seen:
                seen.add(p)
                todo.append(p)
    loss.grad, ready = 1.0, [loss]
    while ready:
        v = ready.pop()
        for p, s in zip(v.parents, v.slopes, strict=True):
            p.grad += s * v.grad
            users[p] -= 1
            if not users[p]:
                ready.append(p)


def by_library(loss):
    graph, todo = {}, [loss]
    while todo:
        v = todo.pop()
        if v not in graph:
            graph[v] = v.parents
            todo += v.parents
    loss.grad = 1
    for v in [*graphlib.TopologicalSorter(graph).static_order()][::-1]:
        for p, s in zip(v.parents, v.slopes, strict=True):
            p.grad = p.grad + v.grad * s


def measured(f, x, h=1e-5, one_sided=False, together=False):
    out = torch.zeros_like(x)
    for i in range(x.numel()):
        nudge = torch.full_like(x, h) if together else torch.zeros_like(x)
        nudge.view(-1)[i] = h
        low = f(x) if one_sided else f(x - nudge)
        out.view(-1)[i] = (f(x + nudge) - low) / (h if one_sided else 2 * h)
    return out


def judge(measure=measured, compare=lambda d: d.abs().max(), relative=True, tol=1e-4):
    def answer(f, gradient, x):
        m = measure(f, x)
        return bool(compare(gradient(x) - m) < tol * (m.abs().max() if relative else 1))

    return answer


def judge_in_place(f, gradient, x, restore=True):
    claimed, largest, off, h = gradient(x), 0.0, 0.0, 1e-5
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            old = x[i, j].item()
            x[i, j] = old + h
            high = f(x)
            x[i, j] = old - h
            slope = float(high - f(x)) / (2 * h)
            if restore:
                x[i, j] = old
            largest, off = max(largest, abs(slope)), max(off, abs(slope - float(claimed[i, j])))
    return off <= largest * 1e-4


def judge_by_autograd(f, gradient, x):
    leaf = x.clone().requires_grad_(True)
    f(leaf).backward()
    return (leaf.grad - gradient(x)).abs().max() < 1e-4 * leaf.grad.abs().max()


def softmax_by_jacobian(p, dp):
    return torch.stack(
        [(torch.diag(a) - torch.outer(a, a)) @ b for a, b in zip(p, dp, strict=True)]
    )


def softmax_by_loop(p, dp):
    out = torch.zeros_like(p)
    for n in range(p.shape[0]):
        for i in range(p.shape[1]):
            for j in range(p.shape[1]):
                out[n, i] += p[n, i] * (float(i == j) - p[n, j]) * dp[n, j]
    return out


def softmax_in_place(p, dp):
    dp *= p
    return dp - p * dp.sum(1)[:, None]


def linear(X, W, dY, dX=None, dW=None, db=None):
    rows, d_rows = X.flatten(0, 1), dY.flatten(0, 1)
    return (
        dY @ W.t() if dX is None else dX,
        rows.t() @ d_rows if dW is None else dW,
        d_rows.sum(0) if db is None else db,
    )


def linear_by_einsum(X, W, dY):
    return [
        torch.einsum("btd,cd->btc", dY, W),
        torch.einsum("btc,btd->cd", X, dY),
        torch.einsum("btd->d", dY),
    ]


def linear_by_loop(X, W, dY):
    dX, dW, db = torch.zeros_like(X), torch.zeros_like(W), torch.zeros_like(W[0])
    for b in range(X.shape[0]):
        for t in range(X.shape[1]):
            dX[b, t] = W @ dY[b, t]
            dW += torch.outer(X[b, t], dY[b, t])
            db += dY[b, t]
    return dX, dW, db


def linear_by_autograd(X, W, dY):
    leaves = [t.requires_grad_(True) for t in (X, W, torch.zeros_like(W[0]))]
    return torch.autograd.grad(leaves[0] @ leaves[1] + leaves[2], leaves, dY)


MISTAKES = {
    "check_exp": [
        (lambda x: math.exp(x.data), "return a Value"),
        (exp(lambda x, e: e, scale=2), "your Value holds"),
        (exp(lambda x, e: e, parents=False), "does not remember x"),
        (lambda x: Value(math.exp(x.data), (x,)), "one slope for each"),
        (exp(lambda x, e: x * math.exp(x - 1)), "the rule for powers"),
        (exp(lambda x, e: 1.0), "passes unchanged"),
        (exp(lambda x, e: x), "the slope is x"),
        (exp(lambda x, e: 1 / e), "turned over"),
        (exp(lambda x, e: 1 - e * e), "slope of tanh"),
    ],
    "check_run_backwards": [
        (lambda loss: back(loss, add=False), "overwrites the first"),
        (lambda loss: back(loss, seed=0.0), "where does the first one come from"),
        (lambda loss: setattr(loss, "grad", 1.0), "hand it on"),
        (lambda loss: back(loss, slopes=False), "not multiplied by the slopes"),
        (lambda loss: back(loss, order=outwards), "not a topological order"),
        (lambda loss: back(loss, order=recorded), "go through the order from its end"),
        (each_time, "each time that it is met"),
        (lambda loss: back(loss, seed=2.0), "too large"),
    ],
    "check_is_right": [
        (judge(compare=lambda d: d.max()), "with abs()"),
        (judge(compare=lambda d: d.sum().abs()), "compare number by number"),
        (judge(compare=lambda d: d.mean().abs()), "compare number by number"),
        (judge(compare=lambda d: d[0].abs().max()), "in its last number alone"),
        (judge(compare=lambda d: d.abs().min()), "every claim is accepted"),
        (judge(lambda f, x: measured(f, x, h=1e-12)), "a right gradient was refused"),
        (judge(lambda f, x: measured(f, x, h=0.1)), "a right gradient was refused"),
        (judge(lambda f, x: measured(f, x, 0.01, one_sided=True)), "a right gradient was refused"),
        (judge(lambda f, x: measured(f, x, together=True)), "a right gradient was refused"),
        (judge(relative=False, tol=1e-6), "large slopes was refused"),
        (judge(relative=False, tol=5e-3), "small slopes was accepted"),
        (lambda f, gradient, x: True, "every claim is accepted"),
        (
            lambda f, gradient, x: (gradient(x).abs() - measured(f, x).abs()).abs().max() < 1e-4,
            "the wrong sign",
        ),
        (lambda f, gradient, x: (gradient(x) - measured(f, x)).abs() < 1e-4, "one answer"),
    ],
    "check_softmax_back": [
        (lambda p, dp: p * (1 - p) * dp, "the diagonal alone"),
        (lambda p, dp: p * dp, "sum below the line is missing"),
        (lambda p, dp: p - dp, "behind a cross-entropy"),
        (lambda p, dp: p * (dp - (p * dp).sum()), "over the whole batch"),
        (lambda p, dp: p * (dp - (p * dp).sum(0)), "over the batch: take it over the last"),
        (lambda p, dp: p * (dp - dp.mean(-1, keepdim=True)), "the mean of dp must be weighted"),
        (lambda p, dp: p * (dp - dp.sum(-1, keepdim=True)), "the sum of dp must be weighted"),
        (lambda p, dp: p * (dp - (p * dp).mean(-1, keepdim=True)), "already sums to 1"),
        (lambda p, dp: dp - (p * dp).sum(-1, keepdim=True), "factor p in front"),
        (lambda p, dp: p * ((p * dp).sum(-1, keepdim=True) - dp), "the sign is wrong"),
        (lambda p, dp: p * (p * dp / p - (p * dp).sum(-1, keepdim=True)), "do not divide by p"),
    ],
    "check_linear_back": [
        (lambda X, W, dY: linear(X, W, dY, dW=linear(X, W, dY)[1].t()), "dW is transposed"),
        (lambda X, W, dY: linear(X, W, dY, dW=X.mT @ dY), "one matrix for each sequence"),
        (lambda X, W, dY: linear(X, W, dY, dW=(X.mT @ dY).mean(0)), "dW is a mean"),
        (lambda X, W, dY: linear(X, W, dY, dW=X[-1].t() @ dY[-1]), "only one sequence"),
        (
            lambda X, W, dY: linear(X, W, dY, dX=dY @ W if W.shape[0] == W.shape[1] else None),
            "W is transposed",
        ),
        (lambda X, W, dY: linear(X, W, dY, db=dY.sum(0)), "summed over one axis"),
        (lambda X, W, dY: linear(X, W, dY, db=dY.sum()), "a single number"),
        (lambda X, W, dY: linear(X, W, dY, db=dY.mean((0, 1))), "db is a mean"),
        (lambda X, W, dY: linear(X, W, dY, db=torch.ones(W.shape[1])), "db is 1"),
        (lambda X, W, dY: linear(X, W, dY, db=dY.sum((0, 1), keepdim=True)), "without further"),
        (lambda X, W, dY: dY @ W.t(), "return three gradients"),
    ],
}

RIGHT = {
    "check_exp": [
        exp(lambda x, e: e),
        exp(lambda x, e: math.exp(x)),
        exp_by_name,
        exp_from_tanh,
        lambda x: Value(math.exp(x.data), [x], [math.exp(x.data)], "exp"),
    ],
    "check_run_backwards": [back, by_share, by_users, by_library],
    "check_is_right": [
        judge(),
        judge_in_place,
        judge_by_autograd,
        judge(lambda f, x: measured(f, x, h=1e-4)),
        judge(lambda f, x: measured(f, x, h=1e-6, one_sided=True)),
        lambda f, g, x: torch.allclose(
            g(x), m := measured(f, x), rtol=0, atol=1e-4 * m.abs().max().item()
        ),
    ],
    "check_softmax_back": [
        lambda p, dp: p * (dp - (p * dp).sum(-1, keepdim=True)),
        softmax_by_jacobian,
        softmax_by_loop,
        softmax_in_place,
        lambda p, dp: p * dp - p * torch.einsum("bv,bv->b", p, dp).unsqueeze(1),
    ],
    "check_linear_back": [linear, linear_by_einsum, linear_by_loop, linear_by_autograd],
}
