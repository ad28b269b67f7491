"""A file gets its name last, so a reader never sees half of one."""

# Made by tools/book.py from ../../book/easy/ch03d_atomic.md: edit that, then `make book`.

# %% auto #0
__all__ = ['NO_SUCH_FLUSH', 'sync_folder', 'temporary', 'remedy', 'write_atomically',
           'whole_folder']

# %% ../../nbs/easy/ch03d_atomic.ipynb #d07af229
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# %% ../../nbs/easy/ch03d_atomic.ipynb #60174c5a
# how a file system says that it does not flush folders
NO_SUCH_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
NO_SUCH_FLUSH += (errno.EPERM, errno.EACCES, errno.EBADF, errno.EISDIR)


def sync_folder(folder: Path):
    "Flush a folder's list of names to the disk, where there is such a call; Windows has none."
    if os.name != "posix":
        return
    try:
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as e:
        if e.errno not in NO_SUCH_FLUSH:
            raise

# %% ../../nbs/easy/ch03d_atomic.ipynb #748478fc
def temporary(path: Path) -> Path:
    "Choose a hidden name beside a path that nobody can guess."
    # a name holds 255 bytes, and a character is at most four
    return path.with_name(f".{path.name[-50:]}.{secrets.token_hex(8)}.tmp")


def remedy(e: OSError) -> str:
    "Say what helps when a write has failed."
    if e.errno == errno.EROFS:
        return "it is read-only; choose another folder"
    if e.errno in (errno.EACCES, errno.EPERM):
        return "ask for the right to write there, or choose another folder"
    if e.errno == errno.EFBIG:
        return "raise the limit (ulimit -f) or choose another folder"
    return "free some space or choose another folder"

# %% ../../nbs/easy/ch03d_atomic.ipynb #86e4b506
def write_atomically(
    path: Path,  # the final name
    *parts,  # bytes or arrays: what the file holds, in order
) -> str:  # SHA-256 of the file, hex
    "Write a file that is either whole or not there: temporary name, flush, rename. Raises OSError."
    path = Path(path)
    temp = temporary(path)
    sha = hashlib.sha256()
    n_bytes = sum(memoryview(part).nbytes for part in parts)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temp, "xb") as f:
            for part in parts:
                sha.update(part)
                f.write(part)
            f.flush()
            os.fsync(f.fileno())  # the bytes reach the disk before the name does
        os.replace(temp, path)
        sync_folder(path.parent)
    except OSError as e:
        what = f"could not write {n_bytes:,} bytes ({e.strerror})"
        raise OSError(e.errno, f"{path}: {what}; {remedy(e)}") from e
    finally:
        with suppress(OSError):  # it has been renamed if all went well
            temp.unlink()
    return sha.hexdigest()

# %% ../../nbs/easy/ch03d_atomic.ipynb #55a35e7b
@contextmanager
def whole_folder(
    folder: Path,  # the final name; not there yet, or an empty folder
) -> Iterator[Path]:  # a temporary folder to write into
    "Give a folder its name when all its files are on the disk, or leave nothing. Raises OSError."
    temp = temporary(folder)
    try:
        temp.mkdir(parents=True)
        yield temp
        for path in temp.iterdir():
            with open(path, "r+b") as f:
                os.fsync(f.fileno())
        sync_folder(temp)
        if folder.exists():
            folder.rmdir()
        temp.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
