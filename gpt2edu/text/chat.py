"""Four tokens say who speaks and where an answer ends, and no text can forge them."""

# Made by tools/book.py from ../../book/easy/ch04a_chat.md: edit that, then `make book`.

# %% auto #0
__all__ = ['SYSTEM', 'USER', 'ASSISTANT', 'END', 'TEMPLATE', 'Message', 'check_messages', 'render',
           'parse', 'is_chat', 'with_chat', 'chat_ids', 'need_chat', 'Encoded', 'encode_chat',
           'prompt_ids', 'answer_text']

# %% ../../nbs/easy/ch04a_chat.ipynb #c85f2890
import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypedDict

from gpt2edu.machine.state import Filled, check
from gpt2edu.text.files import typed
from gpt2edu.text.tokenizer import CHAT, Tokenizer

SYSTEM, USER, ASSISTANT, END = CHAT

# %% ../../nbs/easy/ch04a_chat.ipynb #87846ac3
class Message(TypedDict):
    "What one side says."

    role: Literal["system", "user", "assistant"]
    content: Filled


def check_messages(
    messages: Sequence[dict],
    where: str = "the conversation",  # names it in messages
) -> None:
    "Refuse what is not a conversation. ValueError, one line."
    if not messages:
        raise ValueError(f"{where} is empty; expected a message of the user")
    for i, message in enumerate(messages):
        try:
            check(message, Message, f"message {i + 1}")
        except ValueError as e:
            raise ValueError(f"{where}: {e}; expected a role and a content with text") from None
    roles = [m["role"] for m in messages]
    turns = roles[roles[0] == "system" :]
    for i, role in enumerate(turns):
        if role != (want := ("user", "assistant")[i % 2]):
            n = i + 1 + len(roles) - len(turns)
            raise ValueError(f"{where}: message {n} is by {role}, expected {want}: they take turns")
    if not turns:
        raise ValueError(f"{where} has a system message only; add a message of the user")

# %% ../../nbs/easy/ch04a_chat.ipynb #612dbaac
def render(
    messages: Sequence[dict],
    answer_next: bool = False,  # whether to end where the model has to answer
) -> str:
    "Write a conversation as text: <|user|>QUESTION<|assistant|>ANSWER<|end|>."
    check_messages(messages)
    parts = [f"<|{m['role']}|>{m['content']}{'' if m['role'] == 'user' else END}" for m in messages]
    return "".join(parts) + ASSISTANT * answer_next


def parse(
    text: str,  # what `render` wrote
) -> list[dict]:  # the messages
    "Read a conversation from text. ValueError, one line."
    marks = "|".join(map(re.escape, (SYSTEM, USER, ASSISTANT)))
    before, *parts = re.split(f"({marks})", text)
    if before:
        raise ValueError(f"the text begins with {before[:20]!r}, expected {SYSTEM} or {USER}")
    pairs = zip(parts[::2], parts[1::2], strict=True)
    messages = [{"role": mark[2:-2], "content": said.removesuffix(END)} for mark, said in pairs]
    check_messages(messages)
    return messages

# %% ../../nbs/easy/ch04a_chat.ipynb #06f7ae74
def is_chat(tokenizer: Tokenizer) -> bool:
    "Whether a tokenizer has the tokens of a chat."
    return all(token in tokenizer.special for token in CHAT)


def with_chat(tokenizer: Tokenizer) -> Tokenizer:  # the same ids, and four more
    "Add the tokens of a chat to a tokenizer; one that has them is returned as it is."
    if is_chat(tokenizer):
        return tokenizer
    t = tokenizer
    return Tokenizer(t.name, t.merges, t.byte_order, t.pattern, CHAT)


def chat_ids(
    tokenizer: Tokenizer | None,  # None: one that is still to be trained
) -> int:
    "Count the ids that `with_chat` adds."
    return 0 if tokenizer and is_chat(tokenizer) else len(CHAT)


def need_chat(
    tokenizer: Tokenizer,
    name: str | None,  # of the model, for the message
    flags: str = "",  # for the line to type, for example --out_dir elsewhere
) -> None:
    "Refuse a model that was never taught to chat. ValueError, one line."
    if not is_chat(tokenizer):
        raise ValueError(
            f"{name or 'the model'} has no chat template: "
            f"its tokenizer {tokenizer.name} lacks {USER}; teach it first: "
            f"gpt2edu_train --preset tiny-sft --init_from {typed(name) if name else 'NAME'}{flags}"
        )

# %% ../../nbs/easy/ch04a_chat.ipynb #06fdf3cd
class Encoded(NamedTuple):
    "A conversation in ids."

    ids: list[int]
    answers: list[bool]  # for each id, whether the assistant says it


def encode_chat(
    tokenizer: Tokenizer,  # with the tokens of a chat
    messages: Sequence[dict],
) -> Encoded:
    "Turn a conversation into ids, and mark the answers. ValueError, one line."
    check_messages(messages)
    ids, answers = [], []
    for m in messages:
        said = tokenizer.encode(m["content"])
        said += [] if m["role"] == "user" else [tokenizer.special[END]]
        ids += [tokenizer.special[f"<|{m['role']}|>"], *said]
        answers += [False, *([m["role"] == "assistant"] * len(said))]
    return Encoded(ids, answers)


def prompt_ids(
    tokenizer: Tokenizer,  # with the tokens of a chat
    messages: Sequence[dict],  # the last by the user
) -> list[int]:  # end with <|assistant|>: what follows is the answer
    "Turn a conversation into the ids after which the model answers. ValueError, one line."
    if messages and messages[-1].get("role") == "assistant":
        raise ValueError("the last message is an answer already; expected one of the user")
    return [*encode_chat(tokenizer, messages).ids, tokenizer.special[ASSISTANT]]


def answer_text(
    tokenizer: Tokenizer,
    ids: Iterable[int],  # what the model said
) -> str:
    "Turn an answer into text: what stands before the first token that no text contains."
    said = []
    for i in ids:
        if i in tokenizer.special.values():
            break
        said.append(i)
    return tokenizer.decode(said).strip()

# %% ../../nbs/easy/ch04a_chat.ipynb #2373e7b7
TEMPLATE = (
    "{% for m in messages %}"
    "{{ '<|' + m['role'] + '|>' + m['content'] }}"
    "{% if m['role'] != 'user' %}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
