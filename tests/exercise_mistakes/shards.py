import os
import struct


def cut_in_document(docs, val_tokens):
    val, train = [], []
    for doc in docs:
        room = max(0, val_tokens - sum(map(len, val)))
        val.append(doc[:room])
        train.append(doc[room:])
    return [d for d in val if d], [d for d in train if d]


def split(docs, val_tokens, enough):
    n = total = 0
    while not enough(total, len(docs[n]), val_tokens):
        total += len(docs[n])
        n += 1
    return docs[:n], docs[n:]


def find(lengths, i, passes, subtract=True):
    rest = i
    for shard, n in enumerate(lengths):
        if not passes(rest, n):
            return shard, rest if subtract else i
        rest -= n


def header(raw):
    return struct.unpack("<3i", raw[:12])


def no_rename(path, parts):
    with open(f"{path}.tmp", "wb") as f:
        f.writelines(parts)


def direct(path, parts):
    with open(path, "wb") as f:
        for part in parts:
            f.write(part)
            f.flush()


def delete_first(path, parts):
    if os.path.exists(path):
        os.remove(path)
    no_rename(path, parts)
    os.rename(f"{path}.tmp", path)


MISTAKES = {
    "check_pack": [
        (lambda ids: bytes(b for i in ids for b in (i // 256, i % 256)), "low byte first"),
        (lambda ids: bytes(i % 256 for i in ids), "one byte per id"),
        (lambda ids: struct.pack(f"<{len(ids)}i", *ids), "four bytes per id"),
        (lambda ids: [b for i in ids for b in (i % 256, i // 256)], "expected bytes, got list"),
    ],
    "check_is_whole": [
        (
            lambda raw: len(raw) >= 1024 and len(raw) == 1024 + 2 * header(raw)[2],
            "another magic number",
        ),
        (lambda raw: len(raw) >= 1024 and header(raw)[0] == 20240520, "cut short passed"),
        (
            lambda raw: (
                len(raw) > 12 and raw[:2] == b"\x88\xd8" and len(raw) >= 1024 + 2 * header(raw)[2]
            ),
            "too long",
        ),
        (lambda raw: len(raw) == 1024 + header(raw)[2], "two bytes per token"),
    ],
    "check_split_documents": [
        (cut_in_document, "in both splits"),
        (
            lambda docs, v: split(docs, v, lambda total, n, v: total + n > v),
            "fewer than val_tokens",
        ),
        (lambda docs, v: split(docs, v, lambda total, n, v: total > v), "yours took one more"),
        (lambda docs, v: (docs[-3:], docs[:-3]), "take the first"),
        (
            lambda docs, v: ([i for d in docs for i in d][:v], [i for d in docs for i in d][v:]),
            "single tokens",
        ),
    ],
    "check_find_token": [
        (lambda lengths, i: find(lengths, i, lambda rest, n: rest > n), "use >= at the border"),
        (
            lambda lengths, i: find(lengths, i, lambda rest, n: rest >= n, subtract=False),
            "not of the stream",
        ),
    ],
    "check_write_safely": [
        (direct, "write to another name first"),
        (no_rename, "rename the temporary file"),
        (delete_first, "the old file is gone"),
    ],
}
