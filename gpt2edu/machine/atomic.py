"""A file gets its name last, so no reader ever sees half of one."""

# Made by tools/book.py from ../../book/easy/ch03d_atomic.md: edit that, then `make book`.

# %% auto #0
__all__ = ['sync_folder', 'write_atomically', 'whole_folder']

# %% ../../nbs/easy/ch03d_atomic.ipynb #d07af229
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# %% ../../nbs/easy/ch03d_atomic.ipynb #86e4b506
def sync_folder(folder: Path):
    "Flush a folder's list of names to the disk; Windows has no such call."
    if os.name == "posix":
        fd = os.open(folder, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def write_atomically(
    path: Path,  # the final name
    *parts,  # bytes or arrays: what the file holds, in order
) -> str:  # SHA-256 of the file, hex
    "Write a file that is either whole or not there: temporary name, flush, rename. Raises OSError."
    path = Path(path)
    temp = path.with_name(f".{path.name[-50:]}.{os.getpid()}.tmp")  # a name holds 255 bytes
    sha = hashlib.sha256()
    n_bytes = sum(memoryview(part).nbytes for part in parts)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temp, "wb") as f:
            for part in parts:
                sha.update(part)
                f.write(part)
            f.flush()
            os.fsync(f.fileno())  # the bytes reach the disk before the name does
        os.replace(temp, path)
        sync_folder(path.parent)
    except OSError as e:
        fix = f"({e.strerror}); free some space or choose another folder"
        raise OSError(e.errno, f"{path}: could not write {n_bytes:,} bytes {fix}") from e
    finally:
        if temp.exists():  # it has been renamed if all went well
            temp.unlink()
    return sha.hexdigest()

# %% ../../nbs/easy/ch03d_atomic.ipynb #55a35e7b
@contextmanager
def whole_folder(
    folder: Path,  # the final name; not there yet, or an empty folder
) -> Iterator[Path]:  # a temporary folder to write into
    "Give a folder its name when all its files are on the disk, or leave nothing. Raises OSError."
    temp = folder.with_name(f".{folder.name[-50:]}.{os.getpid()}.tmp")
    try:
        temp.mkdir(parents=True)
        yield temp
        for path in temp.iterdir():
            with open(path, "r+b") as f:
                os.fsync(f.fileno())
        if folder.exists():
            folder.rmdir()
        temp.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
