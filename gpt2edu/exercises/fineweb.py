"""Checks for the exercises of ch20."""

# Made by tools/book.py from ../../book/exercises/fineweb.md: edit that, then `make book`.

# %% auto #0
__all__ = ['quiz', 'check_duration', 'check_cuts', 'check_validation', 'check_pause',
           'check_restart']

# %% ../../nbs/exercises/fineweb.ipynb #4a68e764
import random

from gpt2edu.exercises.core import close, exercise, fail, plain
from gpt2edu.data.encode import SPACES
from gpt2edu.exercises.quiz import Question, Quiz

# %% ../../nbs/exercises/fineweb.ipynb #8dda750d
quiz = Quiz(
    Question(
        "Four processes encode 2 million tokens a second together, and the network delivers text "
        "for 1 million. You start four more. What changes?",
        right=(
            "nothing: the pace stays at 1 million",
            "The stages run at the same time, and the slowest one, the download, sets the pace.",
        ),
        wrong=(
            (
                "the work is done in half the time",
                "That would hold if encoding were the slowest stage; here it waits for text.",
            ),
            (
                "the pace rises to the mean of both, 2.5 million",
                "A chain is as fast as its slowest stage, not as the average of its stages.",
            ),
        ),
    ),
    Question(
        "A preparation is killed while it writes shard 8. Shards 1 to 7 are recorded in the "
        "manifest, but the disk has damaged shard 5. What does the next start keep?",
        right=(
            "shards 1 to 4",
            "The place where shard 5 begins is known from shard 4; from there on all is rebuilt.",
        ),
        wrong=(
            (
                "shards 1 to 7, since the manifest lists them",
                "It compares each SHA-256 first, and that of shard 5 differs.",
            ),
            (
                "shards 1 to 4, 6 and 7",
                "The writer continues from one place in the stream, so it rebuilds all later ones.",
            ),
            (
                "none: it starts over",
                "Each recorded shard knows where in the source it ended, so whole ones are kept.",
            ),
        ),
    ),
    Question(
        "You hold out the first documents of a stream that is sorted by date, oldest first. "
        "What is wrong with the validation loss?",
        right=(
            "it judges the model on old pages only",
            "The first documents stand for the stream only if its order is random.",
        ),
        wrong=(
            (
                "it changes when a later preparation reads more of the stream",
                "The first documents stay the first, however much is read after them.",
            ),
            (
                "the model has been trained on those pages too",
                "They are held out: training begins after them, in any order of the stream.",
            ),
        ),
    ),
)

# %% ../../nbs/exercises/fineweb.ipynb #81b6a011
@exercise(
    hint="max(tokens / (processes * speed), tokens * bytes_per_token / download): "
    "both go on at the same time."
)
def check_duration(answer):
    "The slower of two stages sets the time."
    for slow in ("network", "tokenizer"):
        tokens = random.randint(10**8, 10**10)
        processes = random.randint(2, 16)
        size = random.uniform(2, 5)
        speed = random.uniform(5e5, 2e6)
        encode = tokens / (processes * speed)
        download = (
            tokens
            * size
            / (encode * (random.uniform(6, 9) if slow == "network" else random.uniform(0.3, 0.7)))
        )
        load = tokens * size / download
        got = answer(tokens, processes, speed, size, download)
        if close(got, encode + load):
            fail(
                "you added the two: they go on at the same time, "
                "as the next text is on its way while this one is encoded"
            )
        if close(got, min(encode, load)):
            fail("you took the faster stage: the work is done when the slower one is")
        if close(got, max(processes * tokens / speed, load)) and not close(got, max(encode, load)):
            fail("more processes take less time: divide by them")
        if close(got, max(tokens / speed, load)) and not close(got, max(encode, load)):
            fail(
                "you left out the processes: "
                "together they encode processes * speed tokens in a second"
            )
        if close(got, max(encode, tokens / download)) and not close(got, max(encode, load)):
            fail("the network counts bytes, not tokens: multiply by bytes_per_token")
        if not close(got, max(encode, load)):
            fail(f"expected {max(encode, load):.1f} seconds where the {slow} is slower, got {got}")

# %% ../../nbs/exercises/fineweb.ipynb #38329ab4
@exercise(
    hint="[i for i in range(1, len(text)) if not text[i - 1].isspace() and text[i].isspace()]"
)
def check_cuts(answer):
    "Before white space that follows a word."
    words = ["it's", "we'll", "1984", "...", "word", "a", "(so)"]
    text = (
        "".join(random.choice(words) + random.choice([" ", "  ", "\n", " \n "]) for _ in range(20))
        + "the\nend"
    )
    want = [i for i in range(1, len(text)) if text[i - 1] not in SPACES and text[i] in SPACES]
    got = plain(answer(text))
    if got == [i for i in want if text[i] == " "]:
        fail("a line break is white space too: ask isspace(), not for one character")
    if got == [i for i in range(len(text)) if i - 1 in want]:
        fail("one too far: the cut at i parts text[:i] from text[i:]")
    if got == [i + 1 for i in want] or (
        got and all(text[i - 1] in SPACES and text[i] not in SPACES for i in got)
    ):
        fail(
            "you cut behind the white space: "
            "GPT-2's pieces hold the space before a word, so ' word' would lose it"
        )
    if got == [i for i in range(1, len(text)) if text[i] in SPACES]:
        fail(
            "you also cut inside a run of white space: "
            "there the pieces depend on what stands on both sides"
        )
    if any(text[i - 1] not in SPACES and text[i] not in SPACES for i in got):
        fail(
            "you cut between two characters that are no white space: "
            "`'s` and `ing` would be torn from their words"
        )
    if got != want:
        fail(f"expected the positions {want[:5]} …, got {got[:5]} …")
    for short, places in (("", []), (" a", []), ("a", []), ("a ", [1]), ("a\u3000b\tc", [1, 3])):
        if (got := plain(answer(short))) != places:
            fail(f"at the border: {short!r} should give {places}, got {got}")

# %% ../../nbs/exercises/fineweb.ipynb #b4624517
@exercise(
    hint="Count documents while the tokens before them are fewer than val_tokens; "
    "a document is never divided."
)
def check_validation(answer):
    "The first documents, until there are enough tokens."
    for exact in (True, False) * 3:
        lengths = [random.randint(5, 50) for _ in range(40)]
        ends = [sum(lengths[: i + 1]) for i in range(40)]
        k = random.randint(3, 20)
        val_tokens = ends[k] if exact else ends[k] - random.randint(1, lengths[k] - 1)
        want = k + 1
        got = answer(list(lengths), val_tokens)
        if got == want - 1 and not exact:
            fail(
                "you stopped before val_tokens was reached: "
                "the document that crosses the border still belongs to validation"
            )
        if got == want + 1 and exact:
            fail("val_tokens was reached exactly, and you took one document more")
        if got != want and got == round(40 * val_tokens / sum(lengths)):
            fail(
                "you took a share of the documents: "
                "documents differ in length, so count their tokens"
            )
        if got == ends[k]:
            fail("that is the number of tokens that they hold; return the number of documents")
        if got != want and got == val_tokens:
            fail("that is a number of tokens; return a number of documents")
        if got != want:
            fail(
                f"expected {want} documents for {val_tokens} tokens of lengths {lengths[:6]} …, "
                f"got {got}"
            )
    if (got := answer([7, 7], 0)) != 0:
        fail(f"with val_tokens=0 nothing is for validation; expected 0 documents, got {got}")
    if (got := answer([7, 7], 99)) != 2:
        fail(f"there are only 14 tokens, and 99 are wanted: expected both documents, got {got}")

# %% ../../nbs/exercises/fineweb.ipynb #6f8e1144
@exercise(
    hint="random.uniform(0.5, 1) * min(longest, first * 2**attempt), "
    "unless the server has asked for a time."
)
def check_pause(answer):
    "Double, spread, cap, obey."
    first, longest = random.uniform(0.1, 1), random.uniform(20, 60)
    asked = random.uniform(70, 200)
    if not close(answer(3, first, longest, asked), asked):
        fail(
            f"the server asked for {asked:.0f} s (Retry-After) and knows best; "
            f"you waited {answer(3, first, longest, asked):.1f} s"
        )
    if not close(answer(3, first, longest, 0.0), 0.0):
        fail(
            "the server asked for 0 seconds: that is a time, not None; `if asked` takes it for none"
        )
    many = [[answer(a, first, longest, None) for _ in range(50)] for a in range(12)]
    if any(len({round(x, 9) for x in row}) == 1 for row in many):
        fail(
            "no jitter: clients that failed together come back together; "
            "multiply by random.uniform(0.5, 1)"
        )
    if max(max(row) for row in many) > longest * 1.0001:
        fail(
            f"no cap: the longest pause should be {longest:.0f} s, "
            f"got {max(max(row) for row in many):.0f} s"
        )
    for attempt, row in enumerate(many):
        top = min(longest, first * 2**attempt)
        if min(row) < top * 0.4999 and max(row) <= top * 1.0001 and min(row) < top * 0.2:
            fail(
                f"attempt {attempt}: as short as {min(row):.2f} s; "
                f"the pause is drawn between half of {top:.2f} s and all of it"
            )
        if max(row) > top * 1.0001 or min(row) < top * 0.4999:
            fail(
                f"attempt {attempt}: expected {top / 2:.2f} to {top:.2f} s, "
                f"got {min(row):.2f} to {max(row):.2f}; the pause doubles each time"
            )

# %% ../../nbs/exercises/fineweb.ipynb #3ec6b097
@exercise(
    hint="Walk along the shards and stop at the first one that is not whole; "
    "go on from the end of the one before it."
)
def check_restart(answer):
    "Behind the last shard of an unbroken row."
    for _ in range(20):
        shards = [
            {"whole": random.random() < 0.8, "end": 1000 * (i + 1) + random.randint(0, 99)}
            for i in range(8)
        ]
        shards[0]["whole"] = True
        shards[4]["whole"] = False
        shards[6]["whole"] = True
        k = next(i for i, s in enumerate(shards) if not s["whole"])
        want = shards[k - 1]["end"]
        got = answer([dict(s) for s in shards])
        if got == max(s["end"] for s in shards if s["whole"]):
            fail(
                "you went on behind the last whole shard, and an earlier one is missing: "
                "there would be a hole in the data"
            )
        if got == k:
            fail("that is the number of a shard; return the place in the source, its `end`")
        if got == shards[0]["end"] != want:
            fail("you stopped behind the first shard: go on as long as shards are whole")
        if got == shards[k]["end"]:
            fail("you went on behind the broken shard: its tokens would be lost")
        if got == sum(s["whole"] for s in shards):
            fail("that is a number of shards; return the place in the source, `end` of a shard")
        if got != want:
            fail(f"expected {want}, the end of shard {k - 1}, got {got}")
    if answer([{"whole": False, "end": 50}]) != 0:
        fail(
            "without any whole shard the work begins at 0, "
            f"got {answer([{'whole': False, 'end': 50}])}"
        )
    if (got := answer([])) != 0:
        fail(f"an empty manifest: the work begins at 0, got {got}")
    if (got := answer([{"whole": True, "end": 50}, {"whole": True, "end": 90}])) != 90:
        fail(f"all shards are whole: go on behind the last one, at 90; got {got}")
