"""Two stories that the grammar allows, which differ in one word and therefore in their ending."""

# Made by tools/book.py from ../../book/tough/ch28a_pairs.md: edit that, then `make book`.

# %% auto #0
__all__ = ['KINDS', 'KIND', 'LEADS', 'is_story', 'StoryPair', 'cut', 'put', 'find_fact',
           'add_decoys', 'story_pair', 'story_pairs']

# %% ../../nbs/tough/ch28a_pairs.ipynb #57e6f45a
import random
import re
from typing import NamedTuple

from gpt2edu.text.corpus import read_back, story
from gpt2edu.text.grammar import BOYS, END, FOOD, FRAGILE, GIRLS, NUMBERS, OUTSIDE, ROOMS, SPOTS
from gpt2edu.text.grammar import TOYS
from gpt2edu.text.tokenizer import Tokenizer

# %% ../../nbs/tough/ch28a_pairs.ipynb #0137d2bf
KINDS = {
    "name": GIRLS + BOYS,
    "place": ROOMS + OUTSIDE,
    "spot": tuple(spot.split()[-1] for spot in SPOTS),
    "thing": FOOD + FRAGILE + TOYS,
    "number": NUMBERS[1:],
}
KIND = {word: kind for kind, words in KINDS.items() for word in words}
LEADS = tuple(s.head[: s.head.index(",") + 1] for s in END)  # " In the end,"


def is_story(text: str) -> bool:
    "Say whether the grammar can write this text."
    try:
        read_back(text)
    except ValueError:
        return False
    return True

# %% ../../nbs/tough/ch28a_pairs.ipynb #0e09b728
class StoryPair(NamedTuple):
    "Two stories up to the word where their endings part."

    kind: str  # of the fact: name, place, spot, thing or number
    right: list[int]  # token ids of the first story, up to the answer
    wrong: list[int]  # as many ids of the second
    answer: int  # the token that continues the first
    other: int  # the token that continues the second
    fact: int  # position of the token that decides
    text: str  # the first story, whole


def cut(
    text: str,
) -> tuple[list[str], int]:  # pieces that join to the text, where the ending begins
    "Cut a story into words and marks."
    pieces = re.findall(r" ?[A-Za-z]+|[^A-Za-z]", text)
    begin, length = max(text.rfind(lead) for lead in LEADS), 0
    for i, piece in enumerate(pieces):
        if length == begin:
            return pieces, i
        length += len(piece)
    raise ValueError(f"no ending in {text[-40:]!r}; expected one of {', '.join(LEADS)}")


def put(pieces: list[str], changes: dict[int, str]) -> str:
    "Join pieces, some of them replaced."
    return "".join(changes.get(i, piece) for i, piece in enumerate(pieces))


def find_fact(
    pieces: list[str],
    ending: int,  # index of the first piece of the ending
    rng: random.Random,
) -> tuple[int, int, str] | None:  # index of the fact, of the answer, the other word
    "Find a word that the ending repeats and that alone decides it."
    for answer in range(ending, len(pieces)):
        word = pieces[answer].strip()
        kind = KIND.get(word)
        if kind is None:
            continue
        # only the people of a story can take each other's place
        others = [w for w in KINDS[kind] if kind != "name" or f" {w}" in pieces]
        for fact in (i for i in range(ending) if pieces[i].strip() == word):
            for other in rng.sample(others, min(6, len(others))):
                new = " " + other
                if (
                    other != word
                    and is_story(put(pieces, {fact: new, answer: new}))
                    and not is_story(put(pieces, {fact: new}))
                    and not is_story(put(pieces, {answer: new}))
                ):
                    return fact, answer, new
    return None

# %% ../../nbs/tough/ch28a_pairs.ipynb #c5455ee9
def add_decoys(
    pieces: list[str],
    ending: int,
    found: tuple[int, int, str],  # from `find_fact`
    rng: random.Random,
) -> list[str]:  # pieces of the second story
    "Exchange every word that can be exchanged without a change of the ending."
    fact, answer, other = found
    back = {fact: pieces[fact], answer: pieces[answer]}
    second = [{fact: other, answer: other}.get(i, piece) for i, piece in enumerate(pieces)]
    asked = {piece.strip() for piece in (*pieces[ending:], *second[ending:])}
    words = sorted({p.strip() for p in pieces[:ending]} & KIND.keys() - asked)
    for word in rng.sample(words, len(words)):
        used = {piece.strip() for piece in (*pieces, *second)}
        fresh = [w for w in KINDS[KIND[word]] if w not in used]
        for new in rng.sample(fresh, min(8, len(fresh))):
            tried = [
                f" {new}" if i < ending and piece.strip() == word else piece
                for i, piece in enumerate(second)
            ]
            if (
                is_story("".join(tried))
                and is_story(put(tried, back))
                and not is_story(put(tried, {answer: pieces[answer]}))
            ):
                second = tried
                break
    return second

# %% ../../nbs/tough/ch28a_pairs.ipynb #7ce81c7a
def story_pair(
    index: int,
    tokenizer: Tokenizer,
    longest: int = 128,  # tokens
    decoys: bool = False,  # exchange words that do not matter, too
    seed: int = 28,
) -> StoryPair | None:  # None if this story has no fact that decides alone
    "Make a pair out of story number `index`."
    rng = random.Random(f"pair {seed}:{index}")
    text = story(index, seed=seed).text
    pieces, ending = cut(text)
    found = find_fact(pieces, ending, rng)
    if found is None:
        return None
    fact, answer, other = found
    second = add_decoys(pieces, ending, found, rng) if decoys else [*pieces]
    second[fact] = other
    right, wrong = (tokenizer.encode("".join(p[:answer])) for p in (pieces, second))
    words = [tokenizer.encode(word) for word in (pieces[answer], other)]
    place = len(tokenizer.encode("".join(pieces[: fact + 1]))) - 1
    if len(right) != len(wrong) or len(right) >= longest or {len(w) for w in words} != {1}:
        return None
    return StoryPair(KIND[other.strip()], right, wrong, words[0][0], words[1][0], place, text)


def story_pairs(
    n: int,
    tokenizer: Tokenizer,
    longest: int = 128,  # tokens
    decoys: bool = False,
    seed: int = 28,
) -> list[StoryPair]:  # the same for the same arguments
    "Make n pairs. ValueError if the tokenizer cuts the grammar's words."
    pairs = []
    for index in range(20 * n + 20):
        if len(pairs) == n:
            return pairs
        if pair := story_pair(index, tokenizer, longest, decoys, seed):
            pairs.append(pair)
    raise ValueError(
        f"{len(pairs)} of {n} pairs found: {tokenizer.name} cuts the words of the stories; "
        "use a tokenizer that was trained on them, as the stored tiny's was"
    )
