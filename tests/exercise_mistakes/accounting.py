"Classic mistakes for the exercises of ch14."


def hours(n, t, g, p, m):
    return 6 * n * t / (g * p * m) / 3600


def first_fit(memory, fixed, per_window, windows):
    return max(
        b for b in range(1, windows + 1) if windows % b == 0 and fixed + b * per_window <= memory
    )


MISTAKES = {
    "check_matrix_flops": [
        (lambda n, a, b: 2 * n * a * b, "only the forward pass"),
        (lambda n, a, b: 4 * n * a * b, "one gradient is missing"),
        (lambda n, a, b: 3 * n * a * b, "multiplications only"),
        (lambda n, a, b: 6 * a * b, "for one token"),
        (lambda n, a, b: n * (a + b), "expected"),
    ],
    "check_resting_bytes": [
        (lambda m, r, kind: 16 * (m + r), "you counted the gradients"),
        (lambda m, r, kind: 8 * (m + r), "one of the moments"),
        (lambda m, r, kind: 3 * (m + r), "4 bytes"),
        (lambda m, r, kind: 12 * (m + r), "one moment of a matrix"),
        (lambda m, r, kind: (8 if kind == "muon" else 12) * (m + r), "AdamW's two moments"),
        (lambda m, r, kind: 20 * (m + r), "adamw with"),
        (lambda m, r, kind: 12 * (m + r) if kind == "adamw" else 4 * m, "muon with"),
    ],
    "check_largest": [
        (lambda memory, fixed, per, windows: (memory - fixed) // per, "cannot be cut"),
        (lambda memory, fixed, per, windows: first_fit(memory, 0, per, windows), "what is fixed"),
        (
            lambda memory, fixed, per, windows: first_fit(memory - 1, fixed, per, windows),
            "to the last byte",
        ),
        (first_fit, "the answer is 0"),
        (lambda *a: 1, "expected"),
    ],
    "check_bill": [
        (lambda n, t, g, p, m, d: (hours(n, t, 1, p, m), 0), "GPU-hours"),
        (lambda n, t, g, p, m, d: (hours(n, t, g, p, 1), 0), "the share mfu"),
        (lambda n, t, g, p, m, d: (hours(n, t, g, p, 1 / m), 0), "divide by it"),
        (lambda n, t, g, p, m, d: (3600 * hours(n, t, g, p, m), 0), "seconds"),
        (
            lambda n, t, g, p, m, d: (hours(n, t, g, p, m), hours(n, t, g, p, m) * d),
            "pays for one GPU",
        ),
        (lambda n, t, g, p, m, d: hours(n, t, g, p, m), "two numbers"),
        (lambda n, t, g, p, m, d: (hours(n, t, g, p, m), 1.0), "dollars"),
    ],
}
