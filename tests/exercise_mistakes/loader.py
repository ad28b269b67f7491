MISTAKES = {
    "check_split_window": [
        (lambda w: (w[:-1], w[:-1]), "only learn to copy"),
        (lambda w: (w[1:], w[:-1]), "the wrong way round"),
        (lambda w: (w, w[1:]), "yours has all tokens"),
    ],
    "check_count_windows": [
        (lambda n, T: n // T, "the last target"),
        (lambda n, T: n // (T + 1), "neighbours share one"),
        (lambda n, T: n - T, "windows start T tokens apart"),
    ],
    "check_positions_of": [
        (lambda p, B, r: list(range(p, p + B)), "every rank reads the same"),
        (lambda p, B, r: list(range(r * B, r * B + B)), "start at position"),
        (lambda p, B, r: list(range(p + r, p + r + B)), "each of them reads B"),
        (lambda p, B, r: [p + r * B], "yours reads 1"),
    ],
    "check_undo_round": [
        (lambda a, b, f: (b, a ^ f(b)), "another round forwards"),
        (lambda a, b, f: (b, a), "only swapped"),
        (lambda a, b, f: (a, b ^ f(a)), "in the wrong order"),
    ],
    "check_where_is_it": [
        (lambda s, B, w, n: (s * B, s * B // n), "the windows of one rank"),
        (lambda s, B, w, n: (s * B * w % n, s * B * w // n), "over all epochs"),
        (lambda s, B, w, n: (s * B * w, s * B * w // n + 1), "counted from 0"),
    ],
}
