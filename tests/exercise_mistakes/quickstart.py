"Classic mistakes for the exercises of ch01."

from itertools import accumulate


def all_of_it(pieces, n):
    return ".".join("".join(pieces).split(".")[:n]) + "."


def sentences(pieces, n, keep=True, end=True):
    text = ""
    for piece in pieces:
        if not keep and (text + piece).count(".") >= n:
            return text
        text += piece
        if text.count(".") >= n:
            return text
    return text if end else None


def late(pieces, n):
    text = ""
    for piece in pieces:
        if text.count(".") >= n:
            return text
        text += piece
    return text


def whole_pieces(pieces, n):
    text, count = "", 0
    for piece in pieces:
        text += piece
        count += piece == "."
        if count == n:
            break
    return text


def with_accumulate(pieces, n):
    text = ""
    for text in accumulate(pieces):
        if text.count(".") >= n:
            break
    return text


def with_next(pieces, n):
    text = ""
    while text.count(".") < n and (piece := next(pieces, None)) is not None:
        text += piece
    return text


def with_list(pieces, n):
    kept, left = [], n
    for piece in pieces:
        kept.append(piece)
        left -= piece.count(".")
        if left <= 0:
            break
    return "".join(kept)


def clipped(loss, bigram, floor):
    return min(1.0, max(-0.1, (bigram - loss) / (bigram - floor)))


MISTAKES = {
    "check_passes": [
        (lambda c, n: c.max_steps / n, "a step reads total_batch tokens"),
        (lambda c, n: n / (c.max_steps * c.total_batch), "upside down"),
        (lambda c, n: round(c.max_steps * c.total_batch / n), "you rounded"),
        (lambda c, n: c.max_steps * c.micro_batch * c.block_size / n, "use total_batch"),
        (lambda c, n: c.total_batch / n, "that is one step"),
        (lambda c, n: c.max_steps * c.total_batch, "those are the tokens read"),
        (lambda c, n: c.max_steps * c.total_batch // n, "you rounded"),
    ],
    "check_progress": [
        (lambda loss, bigram, floor: bigram - loss, "those are nats"),
        (lambda loss, bigram, floor: (bigram - loss) / floor, "expected"),
        (clipped, "expected"),
        (lambda loss, bigram, floor: (loss - floor) / (bigram - floor), "that is left"),
        (lambda loss, bigram, floor: (bigram - loss) / bigram, "divide by the whole way"),
        (lambda loss, bigram, floor: (loss - bigram) / (bigram - floor), "the sign is wrong"),
        (
            lambda loss, bigram, floor: max(0, (bigram - loss) / (bigram - floor)),
            "do not cut it off",
        ),
    ],
    "check_sentences": [
        (whole_pieces, "is one piece"),
        (lambda p, n: sentences(p, n) or None, "return the empty text"),
        (lambda p, n: sentences(p, n - 1), "expected"),
        (all_of_it, "you read on"),
        (lambda p, n: sentences(p, n, keep=False), "the last full stop is missing"),
        (lambda p, n: sentences(p, n, end=False), "return what there is"),
        (late, "one piece more"),
    ],
}

RIGHT = {
    "check_passes": [
        lambda c, n: c.total_batch * c.max_steps / n,
        lambda c, n: c.total_batch / n * c.max_steps,
        lambda c, n: sum(c.total_batch for _ in range(c.max_steps)) / n,
        lambda c, n: c.max_steps / (n / c.total_batch),
    ],
    "check_progress": [
        lambda loss, bigram, floor: 1 - (loss - floor) / (bigram - floor),
        lambda loss, bigram, floor: (loss - bigram) / (floor - bigram),
        lambda loss, bigram, floor: bigram / (bigram - floor) - loss / (bigram - floor),
    ],
    "check_sentences": [with_accumulate, with_next, with_list],
}
