"Classic mistakes for the exercises of ch23."

import numpy as np
import torch


def forward(x, W, b, A, B, alpha):
    return x @ W.T + b + alpha / len(A) * (x @ A.T @ B.T)


def in_place(W, A, B, alpha):
    W += alpha / len(A) * B @ A
    return W


def freeze(model, parts, match=None, count=None, back=True, turn=False):
    match = match or (lambda name, part: f".{part}." in f".{name}.")
    for name, p in model.named_parameters():
        hit = any(match(name, part) for part in parts) != turn
        if hit or back:
            p.requires_grad_(not hit)
    count = count or (lambda p: p.numel())
    return sum(count(p) for p in model.parameters() if p.requires_grad)


def frozen_numbers(model, parts):
    freeze(model, parts)
    return sum(p.numel() for p in model.parameters() if not p.requires_grad)


def everything(model, parts):
    model.requires_grad_(False)
    return 0


def grow(table, tokens, pieces, how=lambda rows: rows.mean(0)):
    return torch.stack([how(table[pieces(token)]) for token in tokens])


def longer_if_long(rows):
    return rows.mean(0) * (1 + len(rows) // 4)


MISTAKES = {
    "check_lora_forward": [
        (lambda x, W, b, A, B, alpha: x @ W.T + b, "the adapter is missing"),
        (lambda x, W, b, A, B, alpha: x @ W.T + b + x @ A.T @ B.T, "the scale is missing"),
        (lambda x, W, b, A, B, alpha: x @ W.T + b + alpha * (x @ A.T @ B.T), "divide it by"),
        (lambda x, W, b, A, B, a: x @ W.T + b + a / x.shape[1] * (x @ A.T @ B.T), "width n_in"),
        (lambda x, W, b, A, B, a: x @ W.T + b + a * len(A) * (x @ A.T @ B.T), "alpha times r"),
        (lambda x, W, b, A, B, alpha: forward(x, W, 0 * b, A, B, alpha), "the bias is missing"),
        (lambda x, W, b, A, B, alpha: forward(x, 0 * W, 0 * b, A, B, alpha), "only the adapter"),
        (
            lambda x, W, b, A, B, a: (x @ W.T + b + x @ A.T @ B.T) * a / len(A),
            "for the adapter only",
        ),
        (lambda x, W, b, A, B, alpha: forward(x, W, 2 * b, A, B, alpha), "y[0] should be"),
        (lambda x, W, b, A, B, alpha: forward(x, W, b, A, B, alpha).T, "y has shape"),
    ],
    "check_merge": [
        (lambda W, A, B, alpha: A.T @ B.T, "B comes first"),
        (lambda W, A, B, alpha: W + B @ A, "the scale is missing"),
        (lambda W, A, B, alpha: W + alpha * B @ A, "divide alpha by the rank"),
        (lambda W, A, B, alpha: W - alpha / len(A) * B @ A, "you subtracted"),
        (lambda W, A, B, alpha: alpha / len(A) * B @ A, "the change alone"),
        (lambda W, A, B, alpha: W.clone(), "W is unchanged"),
        (lambda W, A, B, alpha: W + 5 * alpha / len(A) * B @ A, "the first row should be"),
    ],
    "check_freeze": [
        (lambda m, parts: sum(p.numel() for p in m.parameters()), "nothing is frozen"),
        (everything, "everything is frozen"),
        (lambda m, parts: freeze(m, parts, lambda n, part: part in n), "not letter by letter"),
        (lambda m, parts: freeze(m, parts, lambda n, part: n == part), "nothing is frozen"),
        (
            lambda m, parts: freeze(
                m, parts, lambda n, part: n.startswith(part + ".attn") or n.startswith(part + ".w")
            ),
            "look at",
        ),
        (lambda m, parts: freeze(m, parts, turn=True), "the other way round"),
        (lambda m, parts: freeze(m, parts, count=lambda p: 1), "you counted tensors"),
        (frozen_numbers, "you counted the frozen ones"),
        (lambda m, parts: freeze(m, parts) + 1, "are left to train, got"),
        (lambda m, parts: freeze(m, parts, back=False), "a second call should free"),
    ],
    "check_grow": [
        (lambda t, new, p: grow(t, new, p, lambda rows: rows.sum(0)), "you added the pieces"),
        (lambda t, new, p: grow(t, new, p, lambda rows: rows[0]), "the first piece only"),
        (lambda t, new, p: t[: len(new)], "rows by number"),
        (lambda t, new, p: t.mean(0).expand(len(new), -1), "mean of the table"),
        (lambda t, new, p: t, "expected a row for each"),
        (lambda t, new, p: grow(t, new, p, lambda rows: 0 * rows[0]), "is known and keeps its row"),
        (
            lambda t, new, p: grow(t, new, p, lambda r: r.mean(0) * (1 + len(r) // 4)),
            "is spelled by",
        ),
    ],
}


def with_einsum(x, W, b, A, B, alpha):
    wide = torch.einsum("bi,ri,or->bo", x, A, B)
    return torch.nn.functional.linear(x, W, b) + wide * (alpha / A.shape[0])


def merged_first(x, W, b, A, B, alpha):
    return x @ (W + alpha / len(A) * B @ A).T + b


def freeze_by_words(model, parts):
    n = 0
    for name, p in model.named_parameters():
        p.requires_grad = not any(
            name == part or name.startswith(f"{part}.") or f".{part}." in name for part in parts
        )
        n += p.numel() * p.requires_grad
    return n


def freeze_in_two(model, parts):
    model.requires_grad_(True)
    for name, p in model.named_parameters():
        if set(parts) & {f"h.{name.split('.')[1]}", *name.split(".")}:
            p.requires_grad_(False)
    return np.sum([p.numel() for p in model.parameters() if p.requires_grad])


def grow_in_a_loop(table, tokens, pieces):
    out = torch.zeros(len(tokens), table.shape[1])
    for i, token in enumerate(tokens):
        for j in pieces(token):
            out[i] += table[j] / len(pieces(token))
    return out.tolist()


RIGHT = {
    "check_lora_forward": [forward, with_einsum, merged_first],
    "check_merge": [
        lambda W, A, B, alpha: torch.addmm(W, B, A, alpha=alpha / A.shape[0]),
        lambda W, A, B, alpha: (W + torch.einsum("or,ri->oi", B, A) * alpha / len(A)).numpy(),
        in_place,
    ],
    "check_freeze": [freeze, freeze_by_words, freeze_in_two],
    "check_grow": [grow, grow_in_a_loop, lambda t, new, p: [t[p(token)].mean(0) for token in new]],
}
