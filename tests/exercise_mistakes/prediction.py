"Classic mistakes in the exercises of ch02, and the phrase by which the check names each."

import numpy as np

MISTAKES = {
    "check_normalise": [
        (lambda c: c / c.sum(), "sum of the whole table"),
        (lambda c: c / c.sum(0, keepdims=True), "sums of the columns"),
        (lambda c: c, "expected row 0"),
    ],
    "check_draw": [
        (lambda p, u: int(p.argmax()), "always take the likeliest"),
        (lambda p, u: int(u * len(p)), "equally likely"),
        (lambda p, u: int(np.searchsorted(np.cumsum(p), u, side="right")) + 1, "one off"),
        (lambda p, u: None, "expected one id"),
    ],
    "check_mean_surprise": [
        (lambda p: np.log(p).mean(), "sign is wrong"),
        (lambda p: -np.log2(p).mean(), "in bits"),
        (lambda p: -np.log(p).sum(), "you summed"),
        (lambda p: -np.log(p.mean()), "logarithm of the mean"),
        (lambda p: -(p * np.log(p)).sum(), "weighted each surprise"),
    ],
    "check_smooth": [
        (lambda c, q, a: c / c.sum(), "never seen still has probability 0"),
        (lambda c, q, a: (c + a * q) / c.sum(), "sums to more than 1"),
        (lambda c, q, a: (c + a) / (c + a).sum(), "added alpha to every count"),
        (lambda c, q, a: (c / c.sum() + a * q) / (1 + a), "mixed probabilities"),
    ],
    "check_bits_per_byte": [
        (lambda x, n, t: x * n / len(t.encode()), "nats per byte"),
        (lambda x, n, t: x * n * np.log(2) / len(t.encode()), "multiplied by ln 2"),
        (lambda x, n, t: x * n / np.log(2) / len(t), "bits per character"),
        (lambda x, n, t: x / np.log(2), "bits per token"),
    ],
}
