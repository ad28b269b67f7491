"Classic mistakes for the exercises of ch10."

import torch


def step(model, optimizer, x, y, forget="first", clip=True, early=False, item=True):
    if forget == "first":
        optimizer.zero_grad()
    if early:
        optimizer.step()
    _, loss = model(x, y)
    loss.backward()
    if forget == "between":
        optimizer.zero_grad()
    if clip:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if not early:
        optimizer.step()
    return loss.item() if item else loss


def accumulate(model, pieces, share, forget=False):
    for x, y in pieces:
        if forget:
            model.zero_grad()
        (model(x, y)[1] * share(y)).backward()


def evaluate(model, batches, mode=True, no_grad=True, back=True, total=False):
    was = model.training
    if mode:
        model.eval()
    with torch.set_grad_enabled(not no_grad):
        losses = [model(x, y)[1].item() for x, y in batches]
    if back:
        model.train(was)
    return sum(losses) / (1 if total else len(losses))


def last_only(model, pieces):
    model.zero_grad()
    model(*pieces[-1])[1].backward()


MISTAKES = {
    "check_shift": [
        (lambda t: (t[:, :-1], t[:, :-1]), "only have to copy"),
        (lambda t: (t, t.roll(-1, 1)), "the last token has no next one"),
        (lambda t: (t[:, 1:], t[:, :-1]), "swapped"),
        (lambda t: (t[:-1], t[1:]), "the last token has no next one"),
    ],
    "check_train_step": [
        (lambda *a: step(*a, forget="never"), "old gradient is still"),
        (lambda *a: step(*a, forget="between"), "no weight has moved"),
        (lambda *a: step(*a, clip=False), "not clipped"),
        (lambda *a: step(*a, forget="never", early=True), "went along the old gradient"),
        (lambda *a: step(*a, item=False), "loss.item()"),
    ],
    "check_accumulate": [
        (lambda m, p: accumulate(m, p, lambda y: 1), "added and not divided"),
        (lambda m, p: accumulate(m, p, lambda y: 1 / len(p)), "mean of means"),
        (
            lambda m, p: accumulate(m, p, lambda y: y.numel() / sum(q.numel() for _, q in p)),
            "you count all targets",
        ),
        (last_only, "only the last piece"),
    ],
    "check_evaluate": [
        (lambda *a: evaluate(*a, mode=False), "in training mode while you measured"),
        (lambda *a: evaluate(*a, no_grad=False), "gradients were on"),
        (lambda *a: evaluate(*a, back=False), "mode before and is no longer"),
        (lambda *a: evaluate(*a, total=True), "that is the sum"),
    ],
}
