"Classic mistakes for the exercises of ch01."


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


MISTAKES = {
    "check_passes": [
        (lambda c, n: c.max_steps * c.micro_batch * c.block_size / n, "use total_batch"),
        (lambda c, n: c.total_batch / n, "that is one step"),
        (lambda c, n: c.max_steps * c.total_batch, "those are the tokens read"),
        (lambda c, n: c.max_steps * c.total_batch // n, "you rounded"),
    ],
    "check_progress": [
        (lambda loss, bigram, floor: (loss - floor) / (bigram - floor), "that is left"),
        (lambda loss, bigram, floor: (bigram - loss) / bigram, "divide by the whole way"),
        (lambda loss, bigram, floor: (loss - bigram) / (bigram - floor), "the sign is wrong"),
        (
            lambda loss, bigram, floor: max(0, (bigram - loss) / (bigram - floor)),
            "do not cut it off",
        ),
    ],
    "check_sentences": [
        (all_of_it, "you read on"),
        (lambda p, n: sentences(p, n, keep=False), "the last full stop is missing"),
        (lambda p, n: sentences(p, n, end=False), "return what there is"),
        (late, "one piece more"),
    ],
}
