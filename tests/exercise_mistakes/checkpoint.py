"Classic mistakes for the exercises of ch17."

import json
import os
import shutil
import struct
import tempfile
from pathlib import Path


def header(raw, start=8, order="little", metadata=False):
    text = json.loads(raw[start : start + int.from_bytes(raw[:8], order)])
    kept = {name: t for name, t in text.items() if metadata or name != "__metadata__"}
    return {name: (t.get("dtype"), t.get("shape", [])) for name, t in kept.items()}


def write(path, data, *, direct=False, sync=True, folder=None, remove=False, litter=False):
    temp = path if direct else Path(folder or path.parent) / ".tmp"
    with open(temp, "wb") as f:
        f.write(data)
        f.flush()
        if sync:
            os.fsync(f.fileno())
    if litter:
        (path.parent / "copy").write_bytes(data)
    if remove:
        path.unlink()
    if not direct:
        os.replace(temp, path)


def elsewhere(path, data):
    with tempfile.TemporaryDirectory() as folder:
        write(path, data, folder=folder)


def newest(names, whole, *, temp=False, broken=False, text=False):
    found = [n for n in names if (temp or n.startswith("step_")) and (broken or n in whole)]
    return max(
        found, key=(str if text else lambda n: int(n.split("step_")[1].split("-")[0])), default=None
    )


def surplus(steps, n, best, just_saved, *, sort=True, extra=True, saved=True):
    keep = {*(sorted(steps) if sort else steps)[-n:], *[best] * extra, *[just_saved] * saved}
    return [s for s in sorted(steps) if s not in keep]


def unpacked(raw):
    (n,) = struct.unpack_from("<Q", raw)
    entries = json.loads(raw[8:][:n].decode())
    entries.pop("__metadata__", None)
    return {name: [t["dtype"], tuple(t["shape"])] for name, t in entries.items()}


def by_bytes(raw):
    n = sum(byte << 8 * i for i, byte in enumerate(raw[:8]))
    result = {}
    for name, t in json.loads(bytes(raw[8 : n + 8])).items():
        if not name.startswith("__"):
            result[name] = t["dtype"], t["shape"]
    return result


def from_file(raw):
    from io import BytesIO

    f = BytesIO(raw)
    entries = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    return {k: tuple(v.values())[:2] for k, v in entries.items() if k != "__metadata__"}


def swapped(raw):
    return {name: t[::-1] for name, t in header(raw).items()}


def offsets(raw):
    text = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return {n: (t["dtype"], t["data_offsets"]) for n, t in text.items() if n != "__metadata__"}


def whole_entry(raw):
    text = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return {n: t for n, t in text.items() if n != "__metadata__"}


def unflushed(path, data):
    temp = path.with_suffix(".tmp")
    with open(temp, "wb") as f:
        f.write(data)
        os.fsync(f.fileno())
    os.replace(temp, path)


def moved_away(path, data):
    old = path.with_suffix(".old")
    if path.exists():
        os.rename(path, old)
    write(path, data)
    old.unlink(missing_ok=True)


def renamed_then_written(path, data):
    write(path, path.read_bytes() if path.exists() else b"")
    path.write_bytes(data)


def copied(path, data):
    write(path.with_suffix(".new"), data)
    shutil.copyfile(path.with_suffix(".new"), path)
    path.with_suffix(".new").unlink()


def synced_later(path, data):
    write(path, data, sync=False)
    with open(path, "rb") as f:
        os.fsync(f.fileno())


def update(path, data):
    if path.exists():
        write(path, data)


def tmpfile(path, data):
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    Path(f.name).rename(path)


def descriptor(path, data):
    temp = f"{path}.part"
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temp, path)


def with_folder(path, data):
    temp = path.parent / "half"
    with temp.open("wb", buffering=0) as f:
        f.write(data)
        os.fsync(f)
    temp.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def in_order(names, whole):
    best = None
    for name in names:
        if name in whole and name.startswith("step_"):
            step = int(name.split("_")[1])
            if best is None or step > best[0]:
                best = step, name
    return best and best[1]


def by_pattern(names, whole):
    steps = [int(n[5:]) for n in set(names) & whole if n[:5] == "step_"]
    return f"step_{max(steps)}" if steps else None


def kept_out(steps, n, best, just_saved):
    steps.sort()
    rest = steps[: max(0, len(steps) - n)]
    return [s for s in rest if s not in (best, just_saved)]


def kept(steps, n, best, just_saved):
    return [s for s in sorted(steps) if s not in surplus(steps, n, best, just_saved)]


MISTAKES = {
    "check_header": [
        (swapped, "dtype first"),
        (offsets, "data_offsets"),
        (whole_entry, "not the whole entry"),
        (lambda raw: {n: t for n, t in header(raw).items() if t[1]}, "is missing"),
        (lambda raw: header(raw, start=0), "starts at byte 8"),
        (lambda raw: header(raw, order="big"), "little-endian"),
        (lambda raw: header(raw, metadata=True), "is not a tensor"),
    ],
    "check_atomic_write": [
        (moved_away, "gone for a moment"),
        (renamed_then_written, "write to another name first"),
        (copied, "write to another name first"),
        (unflushed, "call f.flush()"),
        (synced_later, "rename without fsync"),
        (update, "no old file"),
        (lambda p, d: write(p, d, direct=True), "write to another name first"),
        (lambda p, d: write(p, d, sync=False), "rename without fsync"),
        (lambda p, d: write(p, d, remove=True), "gone for a moment"),
        (lambda p, d: write(p, d, litter=True), "left behind"),
        (elsewhere, "is in another folder"),
        (lambda p, d: None, "the new content is not there"),
    ],
    "check_newest": [
        (
            lambda n, w: newest([x for x in w if x in n or x.startswith("step")], w),
            "is not among the names",
        ),
        (
            lambda n, w: by_pattern(n, w) if by_pattern(n, w) != "step_0" else None,
            "step 0 is a step",
        ),
        (lambda n, w: max(w & set(n), default=None), "compare numbers"),
        (lambda n, w: newest(n, w, temp=True), "nobody's checkpoint"),
        (lambda n, w: newest(n, w, broken=True), "is not whole"),
        (lambda n, w: newest(n, w, text=True), "compare numbers, not text"),
        (lambda n, w: newest(n, w) or "", "return None"),
    ],
    "check_surplus": [
        (kept, "return the rest"),
        (lambda *a: set(surplus(*a)), "a set has no order"),
        (lambda s, n, b, j: surplus(s, n, b, j) or [b], "nothing is deleted"),
        (lambda s, n, b, j: surplus(s, n + 1, b, j), "expected"),
        (lambda *a: surplus(*a, saved=False), "saved a moment ago"),
        (lambda *a: surplus(*a, extra=False), "the best one"),
        (lambda *a: surplus(*a, sort=False), "the list is not sorted"),
        (lambda *a: surplus(*a)[::-1], "right, but not sorted"),
    ],
}

RIGHT = {
    "check_header": [unpacked, by_bytes, from_file],
    "check_atomic_write": [write, tmpfile, descriptor, with_folder],
    "check_newest": [
        in_order,
        by_pattern,
        lambda n, w: (
            sorted(w.intersection(x for x in n if x[0] == "s"), key=lambda x: (len(x), x)) or [None]
        )[-1],
    ],
    "check_surplus": [
        kept_out,
        lambda s, n, b, j: sorted(set(s) - set(sorted(s, reverse=True)[:n]) - {b, j}),
        lambda s, n, b, j: tuple(
            x for i, x in enumerate(sorted(s)) if i < len(s) - n and x != b and x != j
        ),
    ],
}
