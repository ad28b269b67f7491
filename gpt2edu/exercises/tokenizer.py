"""The checks of the tokenizer chapter's exercises, and its quiz."""

# Made by tools/book.py from ../../book/exercises/tokenizer.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_count_pairs', 'check_apply_merges', 'check_bytes_per_token', 'check_pack',
           'check_decode']

# %% ../../nbs/exercises/tokenizer.ipynb #c3db7923
import random
from collections import Counter
from itertools import pairwise

from gpt2edu.exercises.core import close, exercise, fail, plain
from gpt2edu.exercises.quiz import Question, Quiz
from gpt2edu.text.tokenizer import merge, train_bpe

# %% ../../nbs/exercises/tokenizer.ipynb #82a07099
quiz = Quiz(
    Question(
        "A word was in no text that a byte-level tokenizer was trained on. "
        "What does the tokenizer make of it?",
        right=(
            "several known tokens, at worst one for each byte",
            "Every byte has an id, so any text can be written. "
            "Merges that fit some part of the word make it shorter.",
        ),
        wrong=(
            (
                "one id that is kept for all words it does not know",
                "Tokenizers of whole words need such an id. With bytes nothing is unknown.",
            ),
            (
                "a new id, which it adds behind its last one",
                "The vocabulary is fixed after training: a model has no row for another id.",
            ),
        ),
    ),
    Question(
        "A program decodes each id by itself and prints it at once. "
        "In Japanese text it prints \N{REPLACEMENT CHARACTER} here and there. Why?",
        right=(
            "a token may end inside a character",
            "A character of three bytes can be spread over two tokens; half of it is not UTF-8. "
            "Join the bytes first, then decode.",
        ),
        wrong=(
            (
                "some characters are missing from the vocabulary",
                "Each character is some bytes, and each byte has an id, so none is missing.",
            ),
            (
                "the model sampled an id beyond its vocabulary",
                "`decode` refuses such an id with an error; it prints nothing.",
            ),
        ),
    ),
    Question(
        "A prompt that ends with a space is continued worse than the same prompt without it. "
        "What explains this?",
        right=(
            "a word's token begins with its space, so this one stands alone",
            "In training text the space belongs to the next word. "
            "After a lone space, a word without its space must follow, which is rare.",
        ),
        wrong=(
            (
                "the last space is dropped by the pattern, so two words run together",
                "The pattern loses nothing: joined, the pieces are the text again.",
            ),
            (
                "a longer prompt leaves less room for what the model remembers",
                "One token more or less hardly matters in a context of hundreds.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/tokenizer.ipynb #fb7f8d05
def _word(rng, letters="abn", longest=9):
    return "".join(rng.choices(letters, k=rng.randint(4, longest)))


@exercise(
    hint="Go through words.items(): for each pair of neighbours in the word, add the word's count."
)
def check_count_pairs(answer):  # answer(words: dict[str, int]) -> dict[tuple[str, str], int]
    "Pairs are counted over the whole text: a word that occurs n times counts n times."
    rng = random.Random()
    words = {_word(rng): rng.randint(2, 9) for _ in range(6)} | {"banana": 3, "aaaab": 2, "a": 5}
    want = Counter()
    once = Counter()
    different = Counter()
    across = Counter()
    for word, n in words.items():
        for pair in pairwise(word):
            want[pair] += n
            once[pair] += 1
        for pair in set(pairwise(word)):
            different[pair] += n
    apart = Counter(
        {pair: sum(w.count("".join(pair)) * n for w, n in words.items()) for pair in want}
    )
    across.update(pairwise("".join(word * n for word, n in words.items())))
    got = answer(dict(words))
    if not hasattr(got, "items"):
        fail(f"return a dict from pair to count, got {type(got).__name__}")
    got = {tuple(pair): n for pair, n in got.items() if n}
    if got == once:
        fail(
            "you counted every word once, whatever its count: "
            "a word that occurs n times brings each pair n times"
        )
    if got == different:
        fail("you counted a pair once per word: banana has the pair (a, n) twice")
    if got == apart:
        fail("pairs overlap: aaaa has the pair (a, a) three times, and str.count finds two")
    if got == across:
        fail("you counted pairs across the end of a word: no merge may cross it")
    if got != want:
        pair = next(p for p in want | got if want[p] != got.get(p, 0))
        fail(
            f"the pair {pair} occurs {want[pair]} times in {words}, you counted {got.get(pair, 0)}"
        )

# %% ../../nbs/exercises/tokenizer.ipynb #794f7b9e
def _in_order(word, merges):
    parts = [word[i : i + 1] for i in range(len(word))]
    for pair in merges:
        parts = merge(parts, pair)
    return parts


def _first_only(word, merges):
    parts = [word[i : i + 1] for i in range(len(word))]
    for pair in merges:
        for i, found in enumerate(pairwise(parts)):
            if found == pair:
                parts[i : i + 2] = [b"".join(pair)]
                break
    return parts


def _longest(word, merges):
    known = {a + b for a, b in merges}
    parts = []
    while word:
        n = next(n for n in range(len(word), 0, -1) if n == 1 or word[:n] in known)
        parts = [*parts, word[:n]]
        word = word[n:]
    return parts


@exercise(
    hint="Start from single bytes. One loop over the merges, and in it: parts = merge(parts, pair)."
)
def check_apply_merges(answer):
    # answer(word: bytes, merges: list[tuple[bytes, bytes]]) -> list[bytes]
    "A word is cut by replaying the merges in the order in which they were learned."
    rng = random.Random()
    merges = train_bpe([" ".join(_word(rng, "abcd") for _ in range(60))], 257 + 25)
    words = [_word(rng, "abcd", 14).encode() for _ in range(60)]
    words += [b"a"]
    got = [plain(answer(word, merges)) for word in words]
    if got[-1:] == [[]]:
        fail("the word b'a' has no pair and is a token all the same; you returned nothing")
    if any(not isinstance(part, bytes) for parts in got for part in parts):
        fail(f"return a list of bytes; yours begins with {got[0][:1]}: bytes([97]) is b'a'")
    want = [_in_order(word, merges) for word in words]
    if got == want:
        return
    if got == [_in_order(word, merges[::-1]) for word in words]:
        fail("you replayed the last merge first; the order is the one in which they were learned")
    if got == [_first_only(word, merges) for word in words]:
        fail(
            "each merge joined only the first place where its pair stands; it must join all of them"
        )
    if any(b"".join(parts) != word for parts, word in zip(got, words, strict=True)):
        fail("your tokens do not join to the word: no byte may be lost or come twice")
    if got == [_longest(word, merges) for word in words]:
        fail(
            "you took the longest known token from the left; "
            "BPE joins by age of the merge, not by length"
        )
    i = next(i for i in range(len(words)) if got[i] != want[i])
    fail(f"{words[i]} should become {want[i]}, got {got[i]}")

# %% ../../nbs/exercises/tokenizer.ipynb #44a27d03
@exercise(hint="len(text.encode()) is the number of bytes, len(encode(text)) the number of tokens.")
def check_bytes_per_token(answer):  # answer(encode, text: str) -> float
    "Compression is bytes of text per token: larger means shorter sequences."
    rng = random.Random()
    size = rng.randint(2, 5)
    text = "".join(rng.choices("aé日 z", k=rng.randint(40, 80))) + "日é"

    def encode(text):
        data = text.encode()
        return [hash(data[i : i + size]) for i in range(0, len(data), size)]

    while not len(text.encode()) % size or not len(text) % len(encode(text)):
        text += "a"  # neither ratio is a whole number

    n_bytes = len(text.encode())
    n_chars = len(text)
    n_tokens = len(encode(text))
    got = answer(encode, text)

    def near(ratio):
        return close(got, ratio, 1e-9)

    if near(n_bytes / n_tokens):
        return
    if near(n_chars / n_tokens):
        fail(
            "you counted characters; len(text) is not the number of bytes when the text has é or 日"
        )
    if near(n_tokens / n_bytes):
        fail("that is tokens per byte: turn the fraction over")
    if near(n_bytes // n_tokens) or near(round(n_bytes / n_tokens)):
        fail("you rounded: the ratio is rarely a whole number")
    if near(n_tokens / n_chars):
        fail("that is tokens per character: bytes, and bytes on top")
    fail(
        f"a text of {n_bytes} bytes in {n_tokens} tokens has "
        f"{n_bytes / n_tokens:.3f} bytes per token, got {got}"
    )

# %% ../../nbs/exercises/tokenizer.ipynb #f9ad8b21
@exercise(hint="For each document: [eot], then encode(document).")
def check_pack(answer):  # answer(documents: list[str], encode, eot: int) -> list[int]
    "One stream of ids in which every document begins with the id of <|endoftext|>."
    rng = random.Random()
    documents = [_word(rng, "abc d") for _ in range(rng.randint(3, 6))]
    eot = rng.randint(300, 900)

    def encode(text):
        return [*text.encode()]

    documents.insert(1, "")
    ids = [encode(d) for d in documents]
    got = plain(answer(documents, encode, eot))
    if any(not isinstance(i, int) for i in got):
        fail("one list of ids for all documents: yours holds something else than ids")
    between = [i for k, d in enumerate(ids) for i in ([eot] if k else []) + d]
    if got == [i for d in ids for i in [eot, *d]]:
        if plain(answer([], encode, eot)) != []:
            fail("no documents: no ids")
        return
    if got == [eot, *[i for d in ids for i in d]]:
        fail("one id at the very start only: every document begins with one")
    if got == [i for d in ids if d for i in [eot, *d]]:
        fail("an empty document is a document too: it is the id alone")
    if got == [i for d in ids for i in [*d, eot]]:
        fail(
            "you put the id after each document; "
            "here it comes first, so that a model can be started with it alone"
        )
    if got == between:
        fail(
            "the first document has no <|endoftext|>: every document begins with one, the first too"
        )
    if "|endoftext|" in bytes(i for i in got if i < 256).decode():
        fail(
            'you encoded the text "<|endoftext|>"; '
            "in a text it is plain text, so insert the id itself"
        )
    if eot not in got:
        fail(f"the id {eot} does not occur: without it nothing separates the documents")
    fail(f"{documents} should give {[i for d in ids for i in [eot, *d]][:8]}…, got {got[:8]}…")

# %% ../../nbs/exercises/tokenizer.ipynb #c4d2dc2d
@exercise(hint="Collect the bytes of all tokens first, then decode once.")
def check_decode(answer):  # answer(ids: list[int], tokens: list[bytes]) -> str
    "Bytes are joined before they are decoded, so a character may be spread over tokens."
    rng = random.Random()
    text = "".join(rng.choices("aé日z", k=12)) + "é日"
    data = text.encode()
    cuts = sorted({0, len(data), len(data) - 1, len(data) - 4, *rng.sample(range(1, len(data)), 6)})
    tokens = [data[a:b] for a, b in pairwise(cuts)]
    order = rng.sample(range(len(tokens)), len(tokens))
    table = [tokens[i] for i in order]
    ids = [order.index(i) for i in range(len(tokens))]
    ids, text, tokens = ids * 2, text * 2, tokens * 2  # ids come more than once
    try:
        got = answer(ids, table)
    except UnicodeDecodeError as e:
        if e.encoding != "utf-8":
            fail(f"the bytes are UTF-8, and you decoded them as {e.encoding}")
        fail(
            "you decoded each token by itself, and one ends in the middle of a character: "
            "join the bytes first"
        )
    if got == text:
        if answer([], table) != "":
            fail("no ids: the empty text")
        return
    if got == b"".join(tokens).decode("latin-1"):
        fail("the bytes are UTF-8, and you decoded each byte as a letter of its own (Latin-1)")
    if got == "".join(t.decode(errors="replace") for t in tokens):
        fail(
            "you decoded each token by itself: "
            "a character that two tokens share became question marks; join first"
        )
    if got == "".join(t.decode(errors="ignore") for t in tokens):
        fail(
            "you decoded each token by itself and ignored the errors: "
            "characters are lost in silence; join first"
        )
    if isinstance(got, bytes):
        fail("these are bytes; a text is wanted: decode them")
    if got == b"".join(table).decode(errors="replace"):
        fail(
            "you joined all tokens of the table; "
            "join those that the ids name, in the order of the ids"
        )
    fail(f"the ids stand for {text!r}, got {got!r}")
