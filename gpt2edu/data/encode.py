"""Cut text where no id changes, and encode batches of it in several processes, in order."""

# Made by tools/book.py from ../../book/tough/ch20c_encode.md: edit that, then `make book`.

# %% auto #0
__all__ = ['CHUNK', 'SPACES', 'UNSURE', 'WORD_END', 'Batch', 'kind', 'may_cut', 'whole_characters',
           'one_piece', 'cut_run', 'safe_cut', 'make_batches', 'encode_batch', 'work', 'exchange',
           'born_deaf', 'Workers']

# %% ../../nbs/tough/ch20c_encode.ipynb #9ecfac59
import multiprocessing
import os
import re
import signal
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from queue import Queue

import numpy as np

from gpt2edu.machine.signals import ending, undisturbed
from gpt2edu.text.tokenizer import Tokenizer

# %% ../../nbs/tough/ch20c_encode.ipynb #12605ccc
CHUNK = 1 << 20  # bytes of text that are encoded at a time
SPACES = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000")
SPACES |= {chr(c) for c in range(0x2000, 0x200B)}
UNSURE = frozenset("\x1c\x1d\x1e\x1f\u180e\u200b")  # white space for some libraries only
# up to the last word that a space or a new line follows
WORD_END = re.compile(rb"(?s:.*)[!-~](?=[ \n])")


def kind(
    c: str,  # one character
) -> str | None:  # "L" letter, "N" number, "S" white space, "O" other
    "Name a character's class in GPT-2's pattern; None if versions of Unicode since 3.2 differ."
    if c in SPACES:
        return "S"
    categories = (unicodedata.ucd_3_2_0.category(c), unicodedata.category(c))
    # an unknown character counts as other
    old, new = (x[0] if x[0] in "LN" else "O" for x in categories)
    return None if old != new or c in UNSURE else new


def may_cut(
    before: str,  # the character before the cut
    after: str,  # the one behind it
    then: str,  # and the next; "" if it is not known
) -> bool:
    "Whether text may be cut between two characters without changing an id."
    if before in SPACES:
        return after in SPACES and then != "" and then not in SPACES | UNSURE
    if before in UNSURE:
        return False
    if after in SPACES:
        return True
    kinds = (kind(before), kind(after))
    return None not in kinds and kinds[0] != kinds[1] and kinds != ("O", "L")

# %% ../../nbs/tough/ch20c_encode.ipynb #3affabab
def whole_characters(data: bytes) -> bytes:
    "Drop the bytes of a character that is cut at the end."
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:  # the first byte of a character says how many bytes it has
            long = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data if long <= back else data[:-back]
    return data


def one_piece(
    before: str,  # the character before the cut
    after: str,  # the one behind it
    then: str,  # and the next
) -> bool:
    "Whether a shared token proves a cut here; false where the pattern looks beyond the piece."
    if before in UNSURE or after in UNSURE:
        return False
    if before in SPACES:
        return after in SPACES
    return after != "'" or then == "'"


def cut_run(
    data: bytes | memoryview,  # UTF-8, longer than start + size
    start: int,  # a safe cut, followed by `size` bytes of one piece
    size: int,  # bytes
    tokenizer: Tokenizer,
) -> int | None:  # where to cut; None if no place was found
    """Find a cut inside one long piece: a token that two encodings share.

    Source: github.com/github/rust-gems, crates/bpe/README.md, corollaries II and III.
    """
    window = whole_characters(bytes(data[start : start + size]))
    ids = tokenizer.encode(window.decode())
    ends = np.cumsum([len(tokenizer.decode_bytes([i])) for i in ids])
    for k in range(len(ids) * 7 // 8, 0, -max(1, len(ids) // 16)):
        at = int(ends[k - 1])  # token k begins here
        if window[at] & 0xC0 == 0x80:
            continue  # inside a character
        before = window[max(0, at - 4) : at].decode(errors="ignore")
        after = window[at : at + 8].decode(errors="ignore")
        if one_piece(before[-1], after[0], after[1:2]):
            cut = start + at
            again = tokenizer.encode(whole_characters(bytes(data[cut : cut + size])).decode())
            if again[0] == ids[k]:
                return cut
    return None


def safe_cut(
    data: bytes | memoryview,  # a document in UTF-8
    start: int,  # a safe cut, or 0
    size: int,  # bytes that are wanted
    tokenizer: Tokenizer,
) -> int:  # start + size or a little before it; the end of the document if that is near
    "Find the last place where a cut changes no id. Raises ValueError for what is not UTF-8."
    while len(data) - start > size:
        window = whole_characters(bytes(data[start : start + size]))
        if m := WORD_END.match(window):
            return start + m.end()
        text = window.decode()
        for i in range(len(text) - 1, 0, -1):
            if may_cut(text[i - 1], text[i], text[i + 1 : i + 2]):
                return start + len(text[:i].encode())
        if (cut := cut_run(data, start, size, tokenizer)) is not None:
            return cut
        size *= 2
    return len(data)

# %% ../../nbs/tough/ch20c_encode.ipynb #3ad79b8f
# text, ends of its chunks, whether a chunk begins a document
Batch = tuple[bytes, list[int], list[bool]]


def make_batches(
    documents: Iterable[bytes | memoryview],  # UTF-8
    tokenizer: Tokenizer,
    size: int = CHUNK,  # bytes of text in a batch; one of twice the size at most
) -> Iterator[Batch]:
    "Collect documents into batches; cut what is larger than a batch."
    parts, ends, first = [], [], []
    for document in documents:
        at = 0
        while True:
            end = safe_cut(document, at, size, tokenizer)
            parts.append(document[at:end])
            ends.append((ends[-1] if ends else 0) + end - at)
            first.append(at == 0)
            at = end
            if ends[-1] >= size:
                yield b"".join(parts), ends, first
                parts, ends, first = [], [], []
            if at >= len(document):
                break
    if parts:
        yield b"".join(parts), ends, first


def encode_batch(
    text: bytes,  # UTF-8
    ends: list[int],  # of the chunks, bytes
    first: list[bool],  # whether a chunk begins a document
    tokenizer: Tokenizer,
) -> np.ndarray:  # (N,) uint16, with <|endoftext|> before each document
    "Encode one batch. Raises ValueError for what is not UTF-8."
    out = []
    for a, b, begins in zip([0, *ends[:-1]], ends, first, strict=True):
        ids = [tokenizer.eot] * begins + tokenizer.encode(text[a:b].decode())
        out.append(np.array(ids, dtype="<u2"))
    return np.concatenate(out)

# %% ../../nbs/tough/ch20c_encode.ipynb #6d21087f
def work(pipe: Connection):
    "Run a worker: receive the tokenizer, then answer each batch with ids until the pipe closes."
    for s in set(ending()) - {signal.SIGTERM}:  # with which the parent's end can kill it
        signal.signal(s, signal.SIG_IGN)
    if os.name == "posix":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ending())
    inbox = Queue()

    def receive():  # in a separate thread, so that the next batch is here when this one is done
        try:
            while True:
                inbox.put(pipe.recv())
        except (EOFError, OSError):  # the parent has closed the pipe, or is gone
            inbox.put(None)

    threading.Thread(target=receive, daemon=True).start()
    if (recipe := inbox.get()) is None:
        return
    tokenizer = Tokenizer(*recipe)
    while (batch := inbox.get()) is not None:
        try:
            answer = encode_batch(*batch, tokenizer)
        except ValueError as e:
            answer = str(e)
        try:
            pipe.send(answer)
        except OSError:
            return


def exchange(action: Callable, *args):
    "Send to a worker or receive from it. Raises OSError, one line, if it is dead."
    try:
        return action(*args)
    except (EOFError, ConnectionError):
        why = (
            "is memory short (use a smaller --num_proc), "
            'or has your script no `if __name__ == "__main__":`?'
        )
        raise OSError(f"a worker process ended before its work was done; {why}") from None


@contextmanager
def born_deaf():
    "Block signals for processes that start meanwhile, until they can ignore them."
    if os.name != "posix":
        yield
        return
    resource_tracker.ensure_running()  # otherwise the first child starts it, and it unblocks all
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Workers:
    "Processes that encode; use with `with`."

    def __init__(self, tokenizer: Tokenizer, num_proc: int):
        self.pipes, self.processes = [], []
        recipe = (tokenizer.name, tokenizer.merges, tokenizer.byte_order, tokenizer.pattern)
        try:
            for _ in range(num_proc):
                undisturbed(self.start_one)
            # not as an argument: Python waits for ever if a child dies while it reads one
            for pipe in self.pipes:
                exchange(pipe.send, recipe)
        except BaseException:
            self.__exit__(OSError)
            raise

    def start_one(self):
        "Start one worker."
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs,), daemon=True)
        with born_deaf():  # no traceback at start-up
            process.start()
        theirs.close()
        self.pipes.append(ours)
        self.processes.append(process)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error):
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(0.2 if error[0] else 5)
            if process.is_alive():
                process.kill()
                process.join()

    def encode(
        self,
        batches: Iterable[tuple],  # a label, then what `make_batches` gives
    ) -> Iterator[tuple]:  # the label, ids (N,) uint16: in the order of the batches
        "Encode batches. Raises ValueError for what is not UTF-8, OSError when a worker has died."
        batches = iter(batches)
        idle = self.pipes * 2  # each pipe once for each batch that its worker may still get
        running = {pipe: [] for pipe in self.pipes}  # numbers of the batches that a worker has
        labels, answers = {}, {}  # of batches that have not been given yet, by number
        sent = due = 0
        most = 4 * len(self.pipes)  # a slow batch must not fill the memory with later ones
        more = True
        while True:
            while more and idle and sent - due < most:
                item = next(batches, None)
                if item is None:
                    more = False
                else:
                    pipe = idle.pop(0)
                    labels[sent], *batch = item
                    exchange(pipe.send, batch)
                    running[pipe].append(sent)
                    sent += 1
            if due in answers:
                yield labels.pop(due), answers.pop(due)
                due += 1
            elif due < sent:
                for pipe in wait([p for p in running if running[p]]):
                    answer = exchange(pipe.recv)
                    n = running[pipe].pop(0)  # a worker answers in the order of its batches
                    if isinstance(answer, str):
                        raise ValueError(f"{labels[n]}: {answer}")
                    answers[n] = answer
                    idle.append(pipe)
            else:
                return
