"""The name of a folder of shards changes whenever their content would."""

# Made by tools/book.py from ../../book/easy/ch05a_cache.md: edit that, then `make book`.

# %% auto #0
__all__ = ['STRETCH', 'LOCK_MODE', 'HUB', 'fingerprint', 'take_text', 'once', 'not_writable',
           'all_stories', 'try_lock', 'lock_of', 'take_lock', 'let_go', 'in_use', 'one_writer',
           'hub_name', 'hub_folder', 'prepared_before', 'shards_folder', 'check_unchanged',
           'find_finished', 'prepare_data']

# %% ../../nbs/easy/ch05a_cache.ipynb #a4c7475f
import errno
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import gpt2edu
from gpt2edu.text.corpus import EMBEDDED, documents, find_files, is_hub_name, stories
from gpt2edu.data.config import N_STORIES, TOKENIZER_CHARS, DataConfig
from gpt2edu.data.shards import MANIFEST, UNFINISHED, write_shards
from gpt2edu.machine.signals import undisturbed
from gpt2edu.text.files import EOT, typed
from gpt2edu.text.tokenizer import Tokenizer, get_tokenizer

# %% ../../nbs/easy/ch05a_cache.ipynb #31053674
def fingerprint(
    config: DataConfig,
) -> tuple[str, int]:  # SHA-256 of the source, hex; its size in bytes, about
    "Say what a dataset is made of, so that shards are found again only if nothing has changed."
    sha = hashlib.sha256()
    size = 0
    if len(config.dataset) == 1 and config.dataset[0] in EMBEDDED:
        texts = list(documents(config.dataset, n_stories=200, data_dir=config.data_dir))
        scale = N_STORIES / 200 if config.dataset == ("stories",) else 1
        for text in texts:
            sha.update(text.encode())
            size += int(len(text.encode()) * scale)
    else:
        for path in find_files(config.dataset):
            with open(path, "rb") as f:
                sha.update(hashlib.file_digest(f, "sha256").digest() + path.suffix.encode())
            size += path.stat().st_size
    return sha.hexdigest(), size


def take_text(texts: Iterable[str], characters: int) -> Iterator[str]:
    "Give documents until they hold enough characters; of a longer one, its beginning."
    most = characters
    for text in texts:
        yield text[:most]
        characters -= len(text)
        if characters <= 0:
            return


def once(say: Callable) -> Callable:  # takes a line
    "Say each line the first time only: a text is read twice, for the tokenizer and the shards."
    told = set()

    def note(line):
        if line not in told:
            told.add(line)
            say(line)

    return note


def not_writable(folder: Path, e: OSError, flag: str) -> OSError:
    "Turn an error of writing into one line; leave one that is such a line already."
    if "cannot write there" in str(e):
        return e
    return OSError(
        e.errno,
        f"{folder}: cannot write there ({e.strerror or e}); choose another folder with {flag}",
    )

# %% ../../nbs/easy/ch05a_cache.ipynb #6ba27ab1
STRETCH = """
import json, sys
from gpt2edu.text.corpus import stories
start, end = map(int, sys.argv[1:])
json.dump([s.text for s in stories(end - start, start=start)], sys.stdout)
"""


def all_stories(
    n: int,  # how many
    processes: int | None = None,  # None: one for each core, at most 8, each for 1,000 stories
) -> list[str]:  # the same whatever the number of processes
    "Write the first n stories."
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    k = processes or max(1, min(cores, 8, n // 1000))
    stretches = [(n * i // k, n * (i + 1) // k) for i in range(k)]
    library = str(Path(gpt2edu.__file__).parents[1])
    path = os.pathsep.join([library, os.environ.get("PYTHONPATH", "")])
    here = os.environ | {"PYTHONPATH": path}
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "env": here}
    children = [
        # from a folder of Python's own: a random.py of the user's is not Python's
        subprocess.Popen([sys.executable, "-c", STRETCH, str(a), str(b)], cwd=sys.prefix, **quiet)
        for a, b in stretches[1:]
    ]
    try:
        texts = [s.text for s in stories(stretches[0][1])]
        for (start, end), child in zip(stretches[1:], children, strict=True):
            answer = child.communicate()[0]
            try:
                found = json.loads(answer) if child.returncode == 0 else []
            except ValueError:  # its Python greets everybody
                found = []
            texts += found or [s.text for s in stories(end - start, start=start)]
    finally:
        for child in children:
            child.kill()
            child.wait()
            child.stdout.close()
    return texts

# %% ../../nbs/easy/ch05a_cache.ipynb #21178deb
def try_lock(file) -> bool:
    "Lock an open file for this process, or say that another one has it."
    try:
        if os.name == "posix":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError as e:
        if e.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        # a network disk without locks: continue without one
        if e.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise
    return True


# O_NOFOLLOW: the name is known to all, and may be a link that somebody else has put there
LOCK_MODE = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)


def lock_of(folder: Path) -> Path:
    "Name the lock of a folder, a hidden file beside it; of a long name, its beginning and hash."
    name = folder.name
    if len(os.fsencode(name)) > 240:  # with a dot and .lock it has to fit into 255
        name = f"{name[:40]}.{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"
    return folder.with_name(f".{name}.lock")


def take_lock(path: Path, who: str):  # the locked file; None: somebody else has it
    "Lock a file, and write into it who has it. Raises OSError."
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = os.fdopen(os.open(path, LOCK_MODE, 0o666), "r+", encoding="utf-8")
        if not try_lock(file):
            file.close()
            return None
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            with suppress(OSError):  # the disk is full: nothing depends on it
                file.write(who)
                file.truncate()
                file.flush()
            return file
        file.close()  # the file has been removed meanwhile


def let_go(path: Path, file):
    "Remove a lock and give it back."
    if os.name == "posix":  # Windows cannot remove an open file
        path.unlink(missing_ok=True)
    with suppress(OSError):
        file.close()


def in_use(folder: Path, path: Path, flag: str) -> str:
    "Say who writes a folder, and what to do."
    try:
        mine = path.read_text(encoding="utf-8") == f"Trainer in {os.getpid()}"
    except (OSError, ValueError):
        mine = False
    if mine:
        return (
            f"{folder}: another Trainer of this process is writing there; "
            "call its close(), or choose another folder"
        )
    return (
        f"{folder}: another process is writing there; "
        f"wait for it, or choose another folder with {flag}"
    )


@contextmanager
def one_writer(
    folder: Path,  # what is written; the lock is a hidden file beside it, links followed
    waiting: Callable | None = None,  # called once if another process writes; None: ValueError
    flag: str = "--out",  # with which another folder is chosen
    root: str | None = None,  # with which another disk is chosen; by default the same
    who: str = "",  # written into the lock
):
    "Hold the right to write a folder. Raises ValueError, OSError."
    real = Path(os.path.realpath(folder))
    path = lock_of(real)
    told = False
    while True:
        try:
            file = undisturbed(take_lock, path, who)
        except OSError as e:
            raise not_writable(folder, e, root or flag) from e
        if file:
            break
        if waiting is None:
            raise ValueError(in_use(folder, path, flag))
        if not told:
            waiting()
            told = True
        time.sleep(0.2)
    try:
        yield
    finally:
        undisturbed(let_go, path, file)

# %% ../../nbs/easy/ch05a_cache.ipynb #b99f1db5
HUB = {  # short name: owner/name on the hub, configuration
    "fineweb-edu": ("HuggingFaceFW/fineweb-edu", "sample-10BT"),
    "tinystories": ("roneneldan/TinyStories", None),
}


def hub_name(dataset: tuple[str, ...]) -> str | None:
    "Name a dataset of the hub, a short name or owner/name; None for what is on this machine."
    name = dataset[0]
    return name if len(dataset) == 1 and (name in HUB or is_hub_name(name)) else None


def hub_folder(
    data_dir: str,
    name: str,  # a short name or owner/name
    config: str | None,  # the configuration; None: the default one
    split: str,
    tokenizer: str,  # gpt2, train, or the path of a tokenizer.json
    vocab_size: int,  # of a tokenizer that is trained
) -> Path:
    "Name the folder of a dataset of the hub: dataset, configuration, tokenizer."
    config = config or HUB.get(name, (None, None))[1]
    made_by = f"bpe{vocab_size}" if tokenizer == "train" else tokenizer
    if tokenizer not in ("gpt2", "train"):
        made_by = get_tokenizer(tokenizer).hash[:12]
    parts = [name.replace("/", "--"), config, split if split != "train" else None, made_by]
    return Path(data_dir).expanduser() / "-".join(re.sub(r"[^\w.-]", "_", p) for p in parts if p)


def prepared_before(config: DataConfig) -> Path:
    "Find what gpt2edu_prepare has written. FileNotFoundError, one line, if it has not."
    name = hub_name(config.dataset)
    folder = hub_folder(config.data_dir, name, None, "train", config.tokenizer, config.vocab_size)
    flags = [] if name == "fineweb-edu" else [f"--dataset {typed(name)}"]
    flags += [f"--tokenizer {typed(config.tokenizer)}"] if config.tokenizer != "gpt2" else []
    flags += [f"--vocab_size {config.vocab_size}"] if config.tokenizer == "train" else []
    flags += [f"--data_dir {typed(config.data_dir)}"] if config.data_dir != "data" else []
    command = " ".join(["gpt2edu_prepare", *flags])
    if (folder / MANIFEST).exists():
        return folder
    if (folder / UNFINISHED).exists():
        raise FileNotFoundError(f"{folder}: its preparation is not finished; go on with: {command}")
    what = "" if name in HUB else f"there is no file {name}; if it is a dataset of the hub, "
    fix = f"name shards that you have with --shards, or prepare it with: {command}"
    raise FileNotFoundError(f"{what}{name} is not prepared, expected {folder}; {fix}")

# %% ../../nbs/easy/ch05a_cache.ipynb #b59d4d15
def shards_folder(
    config: DataConfig,
    tokenizer: Tokenizer | None,  # None if one is to be trained
    more: tuple = (),  # other choices that change the shards
    exact: int | None = None,  # tokens for validation, whatever the size of the source
) -> tuple[Path, str, str, int, int]:  # folder, short name, SHA-256, validation tokens, bytes
    "Name the folder of a dataset that is on this machine by what goes into it."
    source, size = fingerprint(config)
    few = max(1, size // 40)  # a small corpus keeps nine tenths
    val_tokens = min(config.val_tokens, few) if exact is None else exact
    made_by = tokenizer.hash if tokenizer else config.vocab_size
    made_of = [source, N_STORIES, made_by, val_tokens, config.text_key, *more]
    made_of += [] if config.separator == EOT else [f"separator {config.separator}"]
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]
    name = config.dataset[0]
    if name not in EMBEDDED:
        name = re.sub(r"[^\w .-]", "_", Path(name).stem.strip("*.")) or "files"
        name = name.encode()[:150].decode(errors="ignore")  # the names made of it fit into 255
    return Path(config.data_dir).expanduser() / f"{name}-{key}", name, source, val_tokens, size


def check_unchanged(
    dataset: tuple[str, ...],
    begun: str | None,  # SHA-256 of the source when a run began; None: not known
    now: str,
):
    "Refuse to resume on a text that has changed. ValueError, one line."
    if begun in (None, now):
        return
    what = "the files" if len(dataset) > 1 or not Path(dataset[0]).is_file() else "the file"
    if dataset[0] in EMBEDDED:
        what = "the text"
    raise ValueError(
        f"{', '.join(dataset)}: {what} changed since the run began "
        f"(SHA-256 {begun[:12]} then, {now[:12]} now); "
        "restore the earlier text, or begin another run"
    )


def find_finished(
    folder: Path,
    say: Callable,
) -> tuple[Tokenizer, Path] | None:  # None: nothing is there, or its writer is not done
    "Open shards that somebody has finished. Nothing is written, so anybody who may read can."
    if not (folder / MANIFEST).exists():
        return None
    say(f"data: {folder} (prepared before)")
    return Tokenizer.load(folder), folder


def prepare_data(
    config: DataConfig,
    say: Callable = lambda line: None,  # called with each step of the work
    begun: str | None = None,  # SHA-256 of the source of the run being resumed, if known
) -> tuple[Tokenizer, Path]:  # the tokenizer, the folder of shards
    "Find the shards of a dataset, or write them. ValueError, FileNotFoundError, OSError: one line."
    if config.shards:
        if config.tokenizer == "train":
            own = Path(config.shards).expanduser() / "tokenizer.json"
            made_them = own if own.is_file() else "gpt2"
            raise ValueError(
                "tokenizer='train' does not go with --shards; "
                f"name the one that made them: --tokenizer {made_them}"
            )
        return get_tokenizer(config.tokenizer), Path(config.shards).expanduser()
    if hub_name(config.dataset):
        folder = prepared_before(config)
        say(f"data: {folder} (prepared before)")
        return Tokenizer.load(folder), folder
    tokenizer = None if config.tokenizer == "train" else get_tokenizer(config.tokenizer)
    folder, name, source, val_tokens, _ = shards_folder(config, tokenizer)
    check_unchanged(config.dataset, begun, source)

    if there := find_finished(folder, say):
        return there
    written = []  # stories are short enough to keep
    note = once(lambda line: say(f"data: {line}"))

    def texts():
        if config.dataset != ("stories",):
            where = {"data_dir": config.data_dir, "separator": config.separator}
            return documents(config.dataset, config.text_key, note=note, **where)
        written.extend([] if written else all_stories(N_STORIES))
        return written

    def waiting():
        say(f"data: another process is writing {folder}; waiting for it")

    try:
        with one_writer(folder, waiting, "--data_dir"):
            if there := find_finished(folder, say):
                return there
            if tokenizer is None:
                say(f"data: training a tokenizer of at most {config.vocab_size:,} ids")
                few = take_text(texts(), TOKENIZER_CHARS)
                tokenizer = Tokenizer.train(
                    few, config.vocab_size, name, lambda line: say(f"data: {line}")
                )
            say(f"data: writing shards to {folder}")
            tokenizer.save(folder)
            made_from = {"dataset": config.dataset, "sha256": source}
            write_shards(texts(), tokenizer, folder, name, val_tokens=val_tokens, source=made_from)
    except OSError as e:
        raise not_writable(folder, e, "--data_dir") from e
    return tokenizer, folder
