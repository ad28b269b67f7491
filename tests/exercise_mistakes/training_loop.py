"Classic mistakes for the exercises of ch11."

import copy

import numpy as np
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


def model_only(model, pieces):
    accumulate(model, pieces, lambda y: 1)


def last_only(model, pieces):
    model.zero_grad()
    model(*pieces[-1])[1].backward()


def clip_by_hand(model, optimizer, x, y):
    for p in model.parameters():
        p.grad = None
    loss = model(x, y)[1]
    loss.backward()
    length = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
    for p in model.parameters():
        p.grad.mul_(torch.clamp(1.0 / length, max=1.0))
    optimizer.step()
    return float(loss)


def with_closure(model, optimizer, x, y):
    def closure():
        optimizer.zero_grad()
        loss = model(x, y)[1]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(model.parameters()), max_norm=1.0)
        return loss

    return optimizer.step(closure).detach().numpy()


def set_to_zero(model, optimizer, x, y):
    model.zero_grad(set_to_none=False)
    torch.autograd.backward(out := model(x, y)[-1])
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1)
    optimizer.step()
    return out.item()


def clip_each(model, optimizer, x, y, value=False):
    optimizer.zero_grad()
    loss = model(x, y)[1]
    loss.backward()
    for p in model.parameters():
        if value:
            torch.nn.utils.clip_grad_value_(p, 1.0)
        else:
            torch.nn.utils.clip_grad_norm_(p, 1.0)
    optimizer.step()
    return loss.item()


def targets(pieces):
    return sum(int((y != -100).sum()) for _, y in pieces)


def one_backward(model, pieces):
    n = targets(pieces)
    sum(model(x, y)[1] * int((y != -100).sum()) / n for x, y in pieces).backward()


def divide_later(model, pieces):
    for x, y in pieces:
        (model(x, y)[1] * (y != -100).sum()).backward()
    for p in model.parameters():
        p.grad /= targets(pieces)


def joined(model, pieces):
    xs, ys = zip(*pieces, strict=True)
    model(torch.cat(xs), torch.cat(ys))[1].backward()


def with_step(model, pieces):
    one_backward(model, pieces)
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.1 * p.grad


def switched(model, batches, back=True):
    torch.set_grad_enabled(False)
    result = evaluate(model, batches) if back else evaluate_bare(model, batches)
    torch.set_grad_enabled(back)
    return result


def evaluate_bare(model, batches):
    mode = model.training
    model.eval()
    losses = [model(x, y)[1].item() for x, y in batches]
    model.train(mode)
    return sum(losses) / len(losses)


def with_inference(model, batches):
    was = model.training
    with torch.inference_mode():
        model.train(False)
        loss = torch.stack([model(x, y)[1] for x, y in batches]).mean()
    model.train(was)
    return loss.item()


def a_copy(model, batches):
    notes = model.modes
    quiet = copy.deepcopy(model).eval()
    with torch.no_grad():
        result = np.mean([float(quiet(x, y)[1]) for x, y in batches])
    notes += quiet.modes
    return result


def with_finally(model, batches):
    before = {m: m.training for m in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            return sum(model(*b)[1] for b in batches) / len(batches)
    finally:
        for m, mode in before.items():
            m.training = mode


def always_train(model, batches):
    result = evaluate(model, batches)
    model.train()
    return result


MISTAKES = {
    "check_shift": [
        (lambda t: (t[:, :-2], t[:, 2:]), "two tokens on"),
        (lambda t: (t[:, :-1], t[:, 2:]), "must have the same shape"),
        (lambda t: (t[:, :-1], t[:, :-1] + 1), "for ["),
        (lambda t: (t[:, :-1], t[:, :-1]), "only have to copy"),
        (lambda t: (t, t.roll(-1, 1)), "the last token has no next one"),
        (lambda t: (t[:, 1:], t[:, :-1]), "swapped"),
        (lambda t: (t[:-1], t[1:]), "the last token has no next one"),
    ],
    "check_train_step": [
        (clip_each, "by its own norm"),
        (lambda *a: clip_each(*a, value=True), "clipped each number"),
        (lambda m, o, x, y: step(m, o, x, y) * 0.5, "the loss before the step"),
        (lambda m, o, x, y: m(x, y)[1].item(), "no weight has moved"),
        (lambda *a: step(*a, forget="never"), "old gradient is still"),
        (lambda *a: step(*a, forget="between"), "no weight has moved"),
        (lambda *a: step(*a, clip=False), "not clipped"),
        (lambda *a: step(*a, forget="never", early=True), "went along the old gradient"),
        (lambda *a: step(*a, item=False), "loss.item()"),
    ],
    "check_accumulate": [
        (lambda m, p: model_only(m, p[:1]), "only the first piece"),
        (lambda m, p: accumulate(m, p, lambda y: (y != -100).sum()), "gradient of the sum"),
        (lambda m, p: None, "no gradient arrived"),
        (with_step, "only .grad is filled"),
        (lambda m, p: accumulate(m, p, lambda y: 1), "added and not divided"),
        (lambda m, p: accumulate(m, p, lambda y: 1 / len(p)), "mean of means"),
        (
            lambda m, p: accumulate(m, p, lambda y: y.numel() / sum(q.numel() for _, q in p)),
            "you count all targets",
        ),
        (last_only, "only the last piece"),
    ],
    "check_evaluate": [
        (lambda *a: switched(*a, back=False), "still off after your function"),
        (always_train, "mode before and now is not"),
        (lambda m, b: evaluate(m, b[-1:]), "the last batch alone"),
        (lambda *a: evaluate(*a, mode=False), "in training mode while you measured"),
        (lambda *a: evaluate(*a, no_grad=False), "gradients were on"),
        (lambda *a: evaluate(*a, back=False), "mode before and now is not"),
        (lambda *a: evaluate(*a, total=True), "that is the sum"),
    ],
}

RIGHT = {
    "check_shift": [
        lambda t: [t[:, :-1], t[:, 1:]],
        lambda t: (t.narrow(1, 0, t.shape[1] - 1), t.narrow(1, 1, t.shape[1] - 1)),
        lambda t: (t.unfold(1, 2, 1)[..., 0], t.unfold(1, 2, 1)[..., 1]),
        lambda t: (t[..., : len(t[0]) - 1], t.roll(-1, 1)[:, :-1]),
    ],
    "check_train_step": [clip_by_hand, with_closure, set_to_zero],
    "check_accumulate": [one_backward, divide_later, joined],
    "check_evaluate": [switched, with_inference, a_copy, with_finally],
}
