"Classic mistakes for the exercises of ch16."

import json
import os
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


MISTAKES = {
    "check_header": [
        (lambda raw: header(raw, start=0), "starts at byte 8"),
        (lambda raw: header(raw, order="big"), "little-endian"),
        (lambda raw: header(raw, metadata=True), "is not a tensor"),
    ],
    "check_atomic_write": [
        (lambda p, d: write(p, d, direct=True), "into the file itself"),
        (lambda p, d: write(p, d, sync=False), "rename without fsync"),
        (lambda p, d: write(p, d, remove=True), "gone before the rename"),
        (lambda p, d: write(p, d, litter=True), "left behind"),
        (elsewhere, "in another folder"),
        (lambda p, d: None, "the new content is not there"),
    ],
    "check_newest": [
        (lambda n, w: newest(n, w, temp=True), "nobody's checkpoint"),
        (lambda n, w: newest(n, w, broken=True), "is not whole"),
        (lambda n, w: newest(n, w, text=True), "compare numbers, not text"),
        (lambda n, w: newest(n, w) or "", "return None"),
    ],
    "check_surplus": [
        (lambda *a: surplus(*a, saved=False), "saved a moment ago"),
        (lambda *a: surplus(*a, extra=False), "the best one"),
        (lambda *a: surplus(*a, sort=False), "the list is not sorted"),
        (lambda *a: surplus(*a)[::-1], "right, but not sorted"),
    ],
}
