"Classic mistakes for the exercises of ch25."

import torch


def slope(scores, a, verdict, baseline, sign=1, score=True):
    one_hot = torch.zeros_like(scores)
    one_hot[a] = 1
    return sign * (verdict - baseline) * (one_hot - (scores.softmax(0) if score else scores))


def by_autograd(scores, a, verdict, baseline):
    scores = scores.requires_grad_()
    ((verdict - baseline) * scores.log_softmax(0)[a]).backward()
    return scores.grad


def of_p(scores, a, verdict, baseline):
    scores = scores.requires_grad_()
    ((verdict - baseline) * scores.softmax(0)[a]).backward()
    return scores.grad


def one_only(scores, a, verdict, baseline):
    out = torch.zeros_like(scores)
    out[a] = verdict - baseline
    return out


def normalise(r, dim=1, correction=0, mean=True, power=1, sign=1, eps=1e-6):
    m = r.mean(dim, keepdim=True) if mean else 0
    return sign * (r - m) / (r.std(dim, correction=correction, keepdim=True) ** power + eps)


def row_by_row(r):
    rows = []
    for row in r.tolist():
        m = sum(row) / len(row)
        s = (sum((x - m) ** 2 for x in row) / len(row)) ** 0.5
        rows.append([(x - m) / s if s > 1e-9 else 0.0 for x in row])
    return torch.tensor(rows, dtype=r.dtype)


def clipped(logp, old, counts, A, clip, pick=torch.minimum, ratio=None, mean="counts", sign=-1):
    ratio = (logp - old).exp() if ratio is None else ratio(logp, old)
    gain = pick(ratio * A, ratio.clamp(1 - clip, 1 + clip) * A)
    if mean == "all":
        return sign * gain.mean()
    if mean == "row":
        return sign * (gain * counts).mean()
    if mean == "sum":
        return sign * (gain * counts).sum()
    return sign * gain[counts].mean()


def by_loop(logp, old, counts, A, clip):
    total = []
    for now, then, there in zip(logp.tolist(), old.tolist(), counts.tolist(), strict=True):
        if there:
            ratio = 2.718281828459045 ** (now - then)
            total.append(-min(ratio * A, min(max(ratio, 1 - clip), 1 + clip) * A))
    return sum(total) / len(total)


MISTAKES = {
    "check_policy_slope": [
        (lambda *a: slope(*a, sign=-1), "that of a loss"),
        (lambda s, a, v, b: slope(s, a, v, 0.0), "the baseline is missing"),
        (lambda s, a, v, b: slope(s, a, v, -b), "not added"),
        (of_p, "the slope of p, not of ln p"),
        (one_only, "the other choices lose"),
        (lambda s, a, v, b: slope(s, a, 1.0, 0.0), "the verdict is missing"),
        (lambda *a: slope(*a, score=False), "you subtracted the scores"),
        (lambda s, a, v, b: 2 * slope(s, a, v, b), "expected ["),
    ],
    "check_normalise": [
        (lambda r: r - r.mean(1, keepdim=True), "divide by the deviation"),
        (lambda r: (r - r.mean()) / r.std(correction=0), "not of the whole batch"),
        (lambda r: normalise(r, dim=0), "take dimension 1"),
        (lambda r: normalise(r, eps=0.0), "gives nan"),
        (lambda r: normalise(r, correction=1), "correction=0"),
        (lambda r: normalise(r, power=2), "the variance"),
        (lambda r: normalise(r, sign=-1), "the sign is wrong"),
        (lambda r: normalise(r)[:, 0], "expected the shape"),
        (lambda r: normalise(r, mean=False, eps=1e-9), "subtract the mean"),
    ],
    "check_clipped": [
        (lambda *a: clipped(*a, pick=torch.maximum), "you took the larger"),
        (lambda *a: clipped(*a, pick=lambda x, y: y), "the clipped value alone"),
        (lambda *a: clipped(*a, pick=lambda x, y: x), "the clip is missing"),
        (lambda *a: clipped(*a, ratio=lambda n, o: (o - n).exp()), "the other way round"),
        (lambda *a: clipped(*a, ratio=lambda n, o: n - o), "take exp"),
        (lambda *a: clipped(*a, sign=1), "the sign is wrong"),
        (lambda *a: clipped(*a, mean="all"), "leave them out"),
        (lambda *a: clipped(*a, mean="row"), "not by the length"),
        (lambda *a: clipped(*a, mean="sum"), "that is the sum"),
    ],
    "check_mended": [
        (lambda said, truth: float(truth in said), "others behind it"),
        (lambda said, truth: float(said.strip().endswith(truth)), "others before it"),
        (lambda said, truth: float(said.strip().startswith(truth[:-1])), "others behind it"),
        (lambda said, truth: float(said == truth), "strip them"),
        (lambda said, truth: said.strip() == truth, "a finite number"),
        (lambda said, truth: float("nan"), "a finite number"),
        (lambda said, truth: 1.0, "it pays for"),
        (
            lambda said, truth: float(said.strip() == truth) or 0.5 * (said == "Nobody knows."),
            "paid differently",
        ),
        (
            lambda said, truth: float(said.strip() == truth and "Nobody" not in truth),
            "pays as much as any other",
        ),
    ],
}

RIGHT = {
    "check_policy_slope": [
        slope,
        by_autograd,
        lambda s, a, v, b: [(v - b) * ((i == a) - p) for i, p in enumerate(s.softmax(0).tolist())],
    ],
    "check_normalise": [normalise, row_by_row, lambda r: normalise(r, eps=1e-4)],
    "check_clipped": [
        clipped,
        by_loop,
        lambda *a: clipped(*a, mean="sum") / a[2].sum(),
    ],
    "check_mended": [
        lambda said, truth: float(said.strip() == truth),
        lambda said, truth: 2 if said.strip() == truth else -1,
        lambda said, truth: 1.0 * (said.split() == truth.split()),
    ],
}
