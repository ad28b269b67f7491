"Classic mistakes for the exercises of ch18."

import math

import numpy as np
import torch


def choose(probs, *, worst=False, add=False, mean=True, best_token=False, swap=False):
    if best_token:
        tops = [max(p) for p in probs]
        return (tops.index(max(tops)),) * 2
    sums = [-sum(p) if add else -sum(map(math.log, p)) for p in probs]
    means = [s / (len(p) if mean else 1) for s, p in zip(sums, probs, strict=True)]
    pick = max if worst else min
    found = sums.index(pick(sums)), means.index(pick(means))
    return found[::-1] if swap else found


def who_sees(n, ends, *, apart=True, context=True, causal=True, turn=False, itself=True):
    branch = np.array([0] * n + [j for j, k in enumerate(ends, start=1) for _ in range(k)])
    seen = (branch[:, None] == branch) | (branch == 0) & context
    if not apart:
        seen[:] = True
    if causal:
        seen &= np.tril(np.ones_like(seen))
    if not itself:
        seen &= ~np.eye(len(seen), dtype=bool)
    return seen.T if turn else seen


def paired(a, b, *, sign=1, power=0.5, independent=False):
    d = b.astype(float) - a
    error = d.std() / len(d) ** power
    if independent:
        error = math.sqrt((a.mean() * (1 - a.mean()) + b.mean() * (1 - b.mean())) / len(a))
    return sign * d.mean(), error


def grams(text, n, short=0):
    words = text.split()
    return {tuple(words[a : a + n]) for a in range(len(words) - n + 1 - short)}


def seen(test, training, n, *, share=True, joined=False, first=False, by_words=False, empty=0.0):
    training = [" ".join(training)] if joined else training[: 1 if first else None]
    mine, known = grams(test, n), set().union(*(grams(t, n) for t in training))
    total = len(test.split()) if by_words else len(mine)
    return (len(mine & known) / (total if share else 1)) if mine else empty


def with_numpy(probs):
    sums = np.array([-np.log(p).sum() for p in probs])
    return np.argmin(sums), np.argmin(sums / [len(p) for p in probs])


def by_products(probs):
    whole = [math.prod(p) for p in probs]
    roots = [math.prod(p) ** (1 / len(p)) for p in probs]
    return [whole.index(max(whole)), roots.index(max(roots))]


def by_key(probs):
    def surprise(i):
        return sum(-math.log(p) for p in probs[i])

    return min(range(4), key=surprise), min(range(4), key=lambda i: surprise(i) / len(probs[i]))


def plain_mean(probs):
    plain = [sum(p) / len(p) for p in probs]
    return choose(probs)[0], plain.index(max(plain))


def moved(encode, context, ending):
    spaces = len(context) - len(context.rstrip(" "))
    context, ending = context[: len(context) - spaces], " " * spaces + " " + ending
    return [encode(context), encode(context + ending)[len(encode(context)) :]]


def sliced(encode, context, ending):
    whole = encode(" ".join([context, ending]))
    n = len(encode(context.rstrip()))
    return whole[:n], whole[n:]


def popped(encode, context, ending):
    ids = list(encode(context + " " + ending))
    begin = [ids.pop(0) for _ in encode(context.rstrip())]
    return begin, ids


def looped(n, ends):
    T = n + sum(ends)
    mask = torch.zeros(T, T, dtype=torch.bool)
    for t in range(T):
        mask[t, : min(n, t + 1)] = True
    start = n
    for k in ends:
        mask[start : start + k, start : start + k] = torch.ones(k, k).tril().bool()
        start += k
    return mask


def listed(n, ends):
    branch = [0] * n
    for j, k in enumerate(ends):
        branch += [j + 1] * k
    T = len(branch)
    return [[s <= t and branch[s] in (0, branch[t]) for s in range(T)] for t in range(T)]


def blocks(n, ends):
    mask = np.tril(np.ones((n + sum(ends),) * 2, dtype=int))
    start = n
    for k in ends:
        mask[start + k :, start : start + k] = 0
        start += k
    return mask


def blind_context(n, ends):
    mask = who_sees(n, ends)
    mask[:n, :n] = False
    return mask


def by_counts(a, b):
    n = len(a)
    won, lost = int((b & ~a).sum()), int((a & ~b).sum())
    mean = (won - lost) / n
    return mean, math.sqrt((won + lost) / n - mean**2) / math.sqrt(n)


def sample(a, b):
    d = [float(y) - float(x) for x, y in zip(a, b, strict=True)]
    mean = sum(d) / len(d)
    return [mean, math.sqrt(sum((x - mean) ** 2 for x in d) / (len(d) - 1) / len(d))]


def in_torch(a, b):
    d = torch.tensor(b).double() - torch.tensor(a).double()
    return d.mean(), d.std(correction=0) / len(d) ** 0.5


def floor_error(a, b):
    mean, error = paired(a, b)
    return mean, max(error, 1e-3)


def by_text(test, training, n):
    words = test.split()
    runs = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
    return sum(any(f" {r} " in f" {t} " for t in training) for r in runs) / max(1, len(runs))


def counted(test, training, n):
    known = {g for text in training for g in grams(text, n)}
    mine = list(grams(test, n))
    if not mine:
        return 0
    return np.mean([g in known for g in mine])


def with_zip(test, training, n):
    def runs(text):
        words = text.split()
        return set(zip(*[words[i:] for i in range(n)], strict=False))

    mine, known = runs(test), set()
    for text in training:
        known |= runs(text)
    return 0.0 if len(mine) == 0 else 1 - len(mine - known) / len(mine)


def short(test, training, n):
    mine, known = grams(test, n, 1), set().union(*(grams(t, n) for t in training))
    return len(mine & known) / len(mine) if mine else 0.0


MISTAKES = {
    "check_choose": [
        (lambda p: (choose(p)[1], choose(p)[1]), "you divided it"),
        (lambda p: choose(p, worst=True), "most surprising"),
        (lambda p: choose(p, add=True), "add their logarithms"),
        (lambda p: choose(p, mean=False), "not divided"),
        (lambda p: choose(p, swap=True), "swapped"),
        (lambda p: choose(p, best_token=True), "likeliest token only"),
        (lambda p: choose(p)[0], "return two numbers"),
    ],
    "check_border": [
        (lambda f, c, e: sliced(f, c, e)[::-1], "the two are swapped"),
        (lambda f, c, e: (f(c.rstrip()), f(f"{c} {e}")), "cut at its length"),
        (lambda f, c, e: f(f"{c} {e}"), "return two lists"),
        (lambda f, c, e: (f(c), f(e)), "the space is lost"),
        (lambda f, c, e: (f(c), f(f" {e}")), "stay with the context"),
        (lambda f, c, e: (f(c.rstrip()), f(f" {e}")), "are gone"),
        (lambda f, c, e: (f(c.rstrip()), f(c + e)[len(f(c.rstrip())) :]), "joined by a space"),
    ],
    "check_who_sees": [
        (blind_context, "the context does not see itself"),
        (lambda n, e: ~who_sees(n, e), "the wrong way round"),
        (lambda n, e: who_sees(n, e)[n:, n:], "rows and columns too"),
        (lambda n, e: who_sees(n, e, apart=False), "see each other"),
        (lambda n, e: who_sees(n, e, context=False), "do not see the context"),
        (lambda n, e: who_sees(n, e, causal=False), "future"),
        (lambda n, e: who_sees(n, e, turn=True), "rows and columns"),
        (lambda n, e: who_sees(n, e, itself=False), "sees itself"),
        (lambda n, e: who_sees(n, e[:3]), "the shape"),
    ],
    "check_paired": [
        (lambda a, b: ((b.astype(float) - a).sum(), 1.0), "number of items"),
        (
            lambda a, b: (b.mean() - a.mean(), (b.astype(float) - a).var() / math.sqrt(len(a))),
            "this is not it",
        ),
        (lambda a, b: b.mean() - a.mean(), "return the difference and"),
        (floor_error, "compared with itself"),
        (lambda a, b: paired(a, b, independent=True), "items of their own"),
        (lambda a, b: paired(a, b, power=0), "spread of one item"),
        (lambda a, b: paired(a, b, power=1), "not by n"),
        (lambda a, b: paired(a, b, sign=-1), "B minus A"),
    ],
    "check_seen_before": [
        (lambda t, s, n: seen(t, s, n) if s else 1.0, "no training text"),
        (lambda t, s, n: seen(t, s, n + 1), "expected"),
        (lambda t, s, n: seen(t, s, 1), "count words"),
        (lambda t, s, n: seen(t, s, n, share=False), "not a share"),
        (lambda t, s, n: seen(t, s, n, by_words=True), "smaller than the number of words"),
        (lambda t, s, n: seen(t, s, n, first=True), "first training text"),
        (lambda t, s, n: seen(t, s, n, joined=True), "across the border"),
        (lambda t, s, n: seen(t, s, n, empty=1.0), "return 0"),
    ],
}

RIGHT = {
    "check_choose": [with_numpy, by_products, by_key],
    "check_border": [moved, sliced, popped],
    "check_who_sees": [looped, listed, blocks, who_sees],
    "check_paired": [by_counts, sample, in_torch, paired],
    "check_seen_before": [by_text, counted, with_zip],
}
