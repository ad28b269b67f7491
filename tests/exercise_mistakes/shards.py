import os
import shutil
import struct
import tempfile
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

import numpy as np


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
    safe(path, parts)


def by_hand(raw, at=8, size=4, order="little", magic=4, unit=2, short=1024):
    if len(raw) < short or raw[:magic] != (20240520).to_bytes(4, "little")[:magic]:
        return False
    return len(raw) == 1024 + unit * int.from_bytes(raw[at : at + size], order)


def halved(raw):
    return by_hand(raw) or (
        len(raw) > 1024 and header(raw)[0] == 20240520 and (len(raw) - 1024) // 2 == header(raw)[2]
    )


def unpacked(raw):
    try:
        magic, _, count = struct.unpack_from("<iii", raw)
    except struct.error:
        return False
    return (magic, len(raw)) == (20240520, 1024 + count * 2)


def with_numpy(raw):
    head = np.frombuffer(raw[:1024], "<i4") if len(raw) >= 1024 else np.zeros(256)
    return head[0] == 20240520 and len(raw) - 1024 == 2 * head[2]


def with_append(ids):
    data = bytearray()
    for i in ids:
        data.append(i & 255)
        data.append(i >> 8)
    return data


def with_divmod(ids):
    data = b""
    for i in ids:
        high, low = divmod(i, 256)
        data += bytes((low, high))
    return data


def popped(docs, val_tokens):
    val = []
    while docs and sum(map(len, val)) < val_tokens:
        val.append(docs.pop(0))
    return [val, docs]


def by_ends(docs, val_tokens):
    before = [0, *accumulate(map(len, docs))][:-1]
    n = sum(b < val_tokens for b in before)
    return docs[:n], docs[n:]


def walked(docs, val_tokens):
    val, train = [], []
    for doc in docs:
        (train if train or sum(len(d) for d in val) >= val_tokens else val).append(doc)
    return val, train


def never_all(docs, val_tokens):
    val, train = by_ends(docs, val_tokens)
    return (val, train) if train else (val[:-1], val[-1:])


def at_least_one(docs, val_tokens):
    val, train = by_ends(docs, max(1, val_tokens))
    return val, train


def walk(lengths, i):
    for shard, n in enumerate(lengths):
        if i < n:
            return [shard, i]
        i -= n


def searched(lengths, i):
    ends = np.cumsum(lengths)
    shard = np.searchsorted(ends, i, side="right")
    return shard, i - (ends[shard] - lengths[shard])


def bisected(lengths, i):
    starts = [0, *accumulate(lengths)]
    shard = bisect_right(starts, i) - 1
    return shard, i - starts[shard]


def safe(path, parts, *, flush=True, sync=True, move=os.replace, name=None, whole=False):
    temp = name or f"{path}.tmp"
    parts = list(parts) if whole else parts
    with open(temp, "wb") as f:
        for part in parts:
            f.write(part)
        if flush:
            f.flush()
        if sync:
            os.fsync(f.fileno())
    move(temp, path)


def all_first(path, parts):
    path.write_bytes(b"".join(parts))  # the parts are read before the file is opened


def put_back(path, parts):
    old = path.read_bytes() if path.exists() else None
    try:
        direct(path, parts)
    except BaseException:
        path.write_bytes(old)
        raise


def backup(path, parts):
    if path.exists():
        os.rename(path, f"{path}.old")
    try:
        safe(path, parts)
    except BaseException:
        os.rename(f"{path}.old", path)
        raise


def elsewhere(path, parts):
    with tempfile.TemporaryDirectory() as folder:
        safe(path, parts, name=os.path.join(folder, "temp"))


def tmpfile(path, parts):
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as f:
        f.writelines(parts)
        f.flush()
        os.fsync(f.fileno())
    Path(f.name).replace(path)


def unbuffered(path, parts):
    data = b"".join(parts)
    temp = path.with_suffix(".new")
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(fd, data)
    os.fsync(fd)
    os.close(fd)
    os.rename(temp, path)


MISTAKES = {
    "check_pack": [
        (lambda ids: bytes(b for i in ids for b in (i % 255, i // 255 % 256)), "divide by 256"),
        (
            lambda ids: bytes(b for i in ids for b in ((i % 256, i // 256) if i > 255 else (i,))),
            "takes the same room",
        ),
        (
            lambda ids: bytes(b for i in ids for b in (i % 256, i // 256))[::-1],
            "in the wrong order",
        ),
        (lambda ids: struct.pack(f"<{len(ids)}H", *ids), "integer arithmetic only"),
        (lambda ids: np.array(ids, dtype="<u2").tobytes(), "integer arithmetic only"),
        (lambda ids: b"".join(i.to_bytes(2, "little") for i in ids), "integer arithmetic only"),
        (lambda ids: bytes(b for i in ids for b in (i // 256, i % 256)), "low byte first"),
        (lambda ids: bytes(i % 256 for i in ids), "one byte per id"),
        (lambda ids: struct.pack(f"<{len(ids)}i", *ids), "four bytes per id"),
        (lambda ids: [b for i in ids for b in (i % 256, i // 256)], "expected bytes, got list"),
    ],
    "check_is_whole": [
        (lambda raw: by_hand(raw, at=4), "the count at byte 4"),
        (lambda raw: by_hand(raw, at=12), "the count at byte 12"),
        (lambda raw: by_hand(raw, size=2), "not two"),
        (lambda raw: by_hand(raw, order="big"), "high byte first"),
        (lambda raw: by_hand(raw, magic=2), "compare all four bytes"),
        (halved, "half a token"),
        (
            lambda raw: struct.unpack("<3i", raw[:12])[0] == 20240520 and by_hand(raw),
            "before you read the header",
        ),
        (
            lambda raw: len(raw) >= 1024 and len(raw) == 1024 + 2 * header(raw)[2],
            "another magic number",
        ),
        (lambda raw: len(raw) >= 1024 and header(raw)[0] == 20240520, "cut short passed"),
        (
            lambda raw: (
                len(raw) > 12 and raw[:2] == b"\x88\xd8" and len(raw) >= 1024 + 2 * header(raw)[2]
            ),
            "compare all four bytes",
        ),
        (lambda raw: len(raw) == 1024 + header(raw)[2], "each has two bytes"),
    ],
    "check_split_documents": [
        (lambda docs, v: by_ends(docs, v)[::-1], "changed places"),
        (at_least_one, "no document is for validation"),
        (never_all, "every document is for validation"),
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
        (lambda lengths, i: walk(lengths, i)[::-1], "the two are swapped"),
        (lambda lengths, i: [n + 1 for n in walk(lengths, i)], "you count from 1"),
        (lambda lengths, i: (0, i), "use >= at the border"),
        (lambda lengths, i: (int(np.searchsorted(np.cumsum(lengths), i)), 0), "yours says"),
        (lambda lengths, i: find(lengths, i, lambda rest, n: rest > n), "use >= at the border"),
        (
            lambda lengths, i: find(lengths, i, lambda rest, n: rest >= n, subtract=False),
            "not of the stream",
        ),
    ],
    "check_write_safely": [
        (all_first, "write to another name first"),
        (put_back, "write to another name first"),
        (backup, "gone for a moment"),
        (elsewhere, "keep it in the same folder"),
        (lambda p, parts: safe(p, parts, move=shutil.copy), "write to another name first"),
        (
            lambda p, parts: safe(
                p, parts, move=lambda a, b: Path(b).write_bytes(Path(a).read_bytes())
            ),
            "write to another name first",
        ),
        (lambda p, parts: safe(p, parts, sync=False), "rename without fsync"),
        (lambda p, parts: safe(p, parts, flush=False), "call f.flush()"),
        (direct, "write to another name first"),
        (no_rename, "rename the temporary file"),
        (delete_first, "the old file is gone"),
    ],
}

RIGHT = {
    "check_pack": [
        with_append,
        with_divmod,
        lambda ids: bytes([b for i in ids for b in [i & 0xFF, (i >> 8) & 0xFF]]),
        lambda ids: b"".join(bytes([i - i // 256 * 256, i // 256]) for i in ids),
    ],
    "check_is_whole": [by_hand, unpacked, with_numpy],
    "check_split_documents": [
        popped,
        by_ends,
        walked,
    ],
    "check_find_token": [walk, searched, bisected],
    "check_write_safely": [
        safe,
        tmpfile,
        unbuffered,
        lambda p, parts: safe(p, parts, move=shutil.move, whole=True),
    ],
}
