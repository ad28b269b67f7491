"""Talk with a model that was taught to answer: streaming, history, a full context, Ctrl-C."""

# Made by tools/book.py from ../../book/tough/ch24d_chat.md: edit that, then `make book`.

# %% auto #0
__all__ = ['HELP', 'KEYS', 'Fitted', 'fit', 'same_start', 'Chat', 'CtrlC', 'word_of', 'Talk',
           'ChatConfig', 'open_chat', 'chat']

# %% ../../nbs/tough/ch24d_chat.ipynb #9355345d
import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gpt2edu.choices import Device
from gpt2edu.cli.commands import generator_of
from gpt2edu.cli.flags import command, complain, in_one_line, parse, visible
from gpt2edu.machine.signals import undisturbed
from gpt2edu.text.chat import ASSISTANT, SYSTEM, USER, check_messages, need_chat, prompt_ids
from gpt2edu.train.runs import STORED, load_model, model_place

# %% ../../nbs/tough/ch24d_chat.ipynb #5ec8348b
class Fitted(NamedTuple):
    "A prompt that fits the context."

    ids: list[int]
    dropped: int  # messages that were left out, the oldest


def fit(
    tokenizer,  # with the tokens of a chat
    messages: Sequence[dict],  # role and content; the last by the user
    longest: int,  # tokens that the context holds
    room: int,  # tokens to keep for the answer
) -> Fitted:
    "Leave out the oldest turns until a conversation fits. ValueError, one line, if it cannot."
    ids = prompt_ids(tokenizer, messages)
    roles = {tokenizer.special[token] for token in (SYSTEM, USER, ASSISTANT)}
    starts = [i for i, token in enumerate(ids) if token in roles]  # of each message
    first = int(messages[0]["role"] == "system")  # the system message stays
    head = ids[: starts[first]]
    for dropped in range(0, len(messages) - first, 2):
        begin = starts[first + dropped]
        n = len(head) + len(ids) - begin
        if n + room - 1 <= longest:
            return Fitted([*head, *ids[begin:]], dropped)
    with_system = " with the system message" if first else ""
    raise ValueError(
        f"the message{with_system} has {n} tokens; the context holds {longest}, "
        f"{room} of them for the answer; shorten it by {n + room - 1 - longest} tokens"
    )

# %% ../../nbs/tough/ch24d_chat.ipynb #729f7e93
def same_start(a: Sequence[int], b: Sequence[int]) -> int:
    "Count the ids that two lists have in common at their beginning."
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


class Chat:
    "A model that answers, with the keys and values of what it has read."

    def __init__(
        self,
        model,  # a GPT in evaluation mode
        tokenizer,  # with the tokens of a chat
        max_tokens: int = 100,  # of an answer
        generator=None,  # a torch.Generator on the CPU; None: a fresh one
        **knobs,  # of `next_token_probs`: temperature, top_k, top_p
    ):
        self.model, self.tokenizer = model, tokenizer
        self.max_tokens = max_tokens
        self.generator = generator or generator_of(None)
        self.knobs = {"n_vocab": tokenizer.n_vocab} | knobs
        self.longest = model.config.block_size
        self.caches = model.new_caches()
        self.ids = []  # what the caches hold
        self.read = 0  # ids of the last prompt that had to be computed
        self.cut = ""  # why the last answer ended before the model ended it

    def fit(self, messages: Sequence[dict]) -> Fitted:
        "Make the prompt of a conversation; an eighth of the context is kept for the answer."
        return fit(
            self.tokenizer, messages, self.longest, min(self.max_tokens, self.longest // 8 + 1)
        )

    def next_id(self, new: list[int]) -> int:
        "Read ids behind those of the caches, and choose the id that comes next."
        import torch

        from gpt2edu.model.generate import next_token_probs, pick

        with torch.inference_mode():
            idx = torch.tensor([new], device=self.model.transformer.wte.weight.device)  # (1, n)
            logits, _ = self.model(idx, caches=self.caches, last_only=True)  # (1, 1, V)
            self.ids += new
            u = torch.rand(1, 1, dtype=torch.float64, generator=self.generator)
            return int(pick(next_token_probs(logits[:, -1], **self.knobs), u))

    def answer(
        self,
        ids: list[int],  # a prompt, from `fit`
    ) -> Iterator[str]:  # pieces of text as they become certain, never empty
        "Answer a prompt. An iterator that is closed early leaves everything as it should be."
        from gpt2edu.model.generate import TextStream

        same = min(same_start(self.ids, ids), len(ids) - 1)
        for cache in self.caches:
            cache.length = same
        self.ids, new = ids[:same], ids[same:]
        self.read = len(new)
        text, ends = TextStream(self.tokenizer), set(self.tokenizer.special.values())
        room = self.longest - len(ids) + 1
        self.cut = "the context is full" if room <= self.max_tokens else "max_tokens is reached"
        for _ in range(min(room, self.max_tokens)):
            i = self.next_id(new)
            if i in ends:
                self.cut = ""
                break
            new = [i]
            if piece := text.feed(i):
                yield piece
        if piece := text.feed(None):
            yield piece

# %% ../../nbs/tough/ch24d_chat.ipynb #606da033
class CtrlC:
    "What Ctrl-C does in a chat."

    def __init__(self):
        self.typing = False  # whether a line is being typed
        self.pressed = False

    def act(self, number, frame):
        self.pressed = True
        if self.typing:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        "Take Ctrl-C over for a block."
        before = signal.signal(signal.SIGINT, self.act)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def read_line(self, prompt: str) -> str | None:  # None at the end of the input
        "Read a line. KeyboardInterrupt if Ctrl-C is pressed meanwhile."
        try:
            self.typing = True
            line = input(prompt)
            self.typing = False
            return line
        except EOFError:
            return None
        finally:
            self.typing = False

# %% ../../nbs/tough/ch24d_chat.ipynb #aad7d243
HELP = {
    "/help": "say what can be typed",
    "/reset": "forget what was said; the system message stays",
    "/system": "say how to answer: /system TEXT; `off` takes it away; alone it is shown",
    "/quit": "end, as Ctrl-D does",
}
KEYS = "Ctrl-C stops an answer. A message that begins with / gets a space before it."


def word_of(line: str) -> str:  # "" for a message
    "Take the first word of a line that is for the program."
    return line.split(maxsplit=1)[0] if line.startswith("/") else ""


class Talk:
    "A conversation in a terminal, or through a pipe."

    def __init__(
        self,
        chat: Chat,
        system: str = "",  # said before the first message
        prompt: str = "> ",  # "" where nobody types
    ):
        self.chat = chat
        self.system = system
        self.prompt = prompt
        self.messages = []  # without the system message
        self.keys = CtrlC()
        self.lines = self.refused = 0  # that were read; that were not obeyed or answered

    def write(self, text: str):
        "Write a piece of an answer; through a pipe, an answer is one line."
        text = visible(text)
        sys.stdout.write(text if self.prompt else text.replace("\n", " "))
        sys.stdout.flush()

    def end_line(self):
        "End an answer."
        sys.stdout.write("\n")
        sys.stdout.flush()

    def ask(self, text: str):
        "Print the answer to a message, and keep both. ValueError, one line."
        if not text.strip():
            raise ValueError("the message is empty; type a question, or /help")
        system = [{"role": "system", "content": self.system}] if self.system else []
        asked = [*self.messages, {"role": "user", "content": text}]
        ids, dropped = self.chat.fit([*system, *asked])
        if dropped:
            self.note(f"the context is full: {dropped} older messages are left out")
            asked = asked[dropped:]
        self.keys.pressed = False
        said = []
        for piece in self.chat.answer(ids):
            said.append(piece)
            self.write(piece)
            if self.keys.pressed:
                self.chat.cut = "stopped"
                break
        self.end_line()
        answer = "".join(said)
        if answer.strip():
            self.messages = [*asked, {"role": "assistant", "content": answer}]
        if why := self.chat.cut or ("" if answer.strip() else "the model says nothing"):
            self.note(why)

    def note(self, line: str):
        "Say something that neither side has said."
        complain(f"({line})")

    def refuse(self, line: str, e: ValueError):
        "Say why a line is refused; through a pipe, a question keeps its line of the output."
        self.refused += 1
        self.note(in_one_line(e))
        if not (self.prompt or word_of(line) in HELP):
            self.end_line()

    def obey(self, line: str) -> bool:  # whether to go on
        "Do what a line that begins with / says. ValueError, one line."
        word, rest = word_of(line), line[len(word_of(line)) :].strip()
        if word not in HELP:
            raise ValueError(f"unknown command {word}; expected one of {', '.join(HELP)}")
        if word == "/help":
            for name, what in HELP.items():
                complain(f"{name:8} {what}")
            complain(KEYS)
        elif word == "/reset":
            self.messages = []
            self.note("forgotten")
        elif word == "/system":
            if rest:
                first = {"role": "system", "content": rest}
                check_messages([first, {"role": "user", "content": "?"}], word)
                self.system = "" if rest == "off" else rest
            self.note(f"system: {self.system or 'off'}")
        return word != "/quit"

    def loop(self):
        "Answer line after line until the input ends."
        with self.keys.watched() if self.prompt else contextlib.nullcontext():
            while True:
                try:
                    line = self.keys.read_line(self.prompt)
                    if line is None:
                        if self.prompt:
                            complain("")
                        return
                    self.lines += 1
                    if line.startswith("/"):
                        if not self.obey(line):
                            return
                    else:
                        self.ask(line)
                except KeyboardInterrupt:
                    if not self.prompt:
                        raise
                    complain("")
                    self.note("/quit or Ctrl-D ends the chat")
                except ValueError as e:
                    self.refuse(line, e)

# %% ../../nbs/tough/ch24d_chat.ipynb #4dfb2cf2
@dataclass(frozen=True)
class ChatConfig:
    "Whom to talk to, and how; each field is a flag of `gpt2edu_chat`."

    # folder or name of a run, an exported folder, or an adapter; by default the latest run
    run: str | None = None
    # a tokenizer.json with the tokens of a chat: for a folder of transformers that has none
    tokenizer: str | None = None
    system: str = ""  # said before the first message: how to answer
    max_tokens: int = 100  # tokens of an answer, at most
    temperature: float = 0.0  # 0 takes the likeliest token, 1 the model's own odds
    top_k: int | None = None  # choose among the k likeliest tokens
    top_p: float | None = None  # choose among the likeliest tokens that hold this much probability
    seed: int | None = None  # the same seed gives the same answers
    web: bool = False  # talk on a page in the browser, on this machine only
    port: int = 8000  # of that page; 0 takes any that is free
    out_dir: str = "runs"  # where runs are kept
    device: Device = "auto"  # where to compute
    self_test: bool = True  # compare a small step with the CPU's before using another device


def open_chat(config: ChatConfig) -> tuple[Chat, str]:  # and the name of the model
    "Load a model that can chat. ValueError, FileNotFoundError: one line."
    place = model_place(config.run, config.out_dir)
    name = config.run if place == STORED / (config.run or "") else str(place)
    if config.max_tokens < 1:
        raise ValueError(f"max_tokens={config.max_tokens} must be 1 or more; try 100")
    from gpt2edu.model.generate import check_sampling
    from gpt2edu.train.selftest import tested_device

    knobs = {key: getattr(config, key) for key in ("temperature", "top_k", "top_p")}
    check_sampling(**knobs)
    generator = generator_of(config.seed)
    where = tested_device(config.device, "fp32", config.self_test, complain, update=False).value
    model, tokenizer = load_model(config.run, config.out_dir, where, config.tokenizer)
    need_chat(tokenizer, name)
    found = Chat(model, tokenizer, config.max_tokens, generator, **knobs)
    if config.system.strip():  # one that leaves no room for a question is refused at once
        found.fit([{"role": "system", "content": config.system}, {"role": "user", "content": "?"}])
    return found, name


@command
def chat(args: list[str]):
    "Talk with a model that was taught to answer."
    config = parse(ChatConfig, args, "gpt2edu_chat")
    if not 0 <= config.port < 65536:
        raise ValueError(f"port={config.port} must be from 0 to 65535; try 8000")
    found, name = open_chat(config)
    if config.web:
        from gpt2edu.cli.chat_web import serve

        return serve(found, name, config.system.strip(), config.port)
    typed = sys.stdin.isatty()
    if typed:
        with contextlib.suppress(ImportError):  # Windows has none
            import readline  # noqa: F401  `input` uses it
        complain(f"chat: {name}, context of {found.longest} tokens; /help says what can be typed")
    if hasattr(sys.stdin, "reconfigure"):
        undisturbed(sys.stdin.reconfigure, errors="replace")
    talk = Talk(found, config.system.strip(), "> " if typed else "")
    talk.loop()
    if talk.refused and not typed:
        raise ValueError(
            f"{talk.refused} of {talk.lines} lines were refused, for the reasons above; "
            "mend them and ask again"
        )
