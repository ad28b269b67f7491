"""`gpt2edu_chat` as a user meets it: a pipe, a real terminal (a pty), a real client."""

import http.client
import json
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import warm

from gpt2edu.cli.chat import Chat, Talk, fit
from gpt2edu.cli.chat_web import POLICY, Server, page_of, refusal_of
from gpt2edu.model.gpt import GPT, GPTConfig
from gpt2edu.model.pretrained import export, from_pretrained
from gpt2edu.text.chat import prompt_ids, with_chat

LIBRARY = Path(__file__).parents[1]
ENV = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(LIBRARY), "TERM": "dumb"}
CHAT = [sys.executable, "-m", "gpt2edu", "chat", "--device", "cpu"]


def story_model(vocab_size: int | None = None):  # tiny, and a tokenizer with the tokens of a chat
    tokenizer = with_chat(from_pretrained("tiny")[1])
    return from_pretrained("tiny", vocab_size or tokenizer.n_vocab)[0].eval(), tokenizer


def parrot(word: str, T: int = 20_000):
    "A model that says one token until its context is full."
    _, tokenizer = story_model()
    (i,) = tokenizer.encode(word)
    model = GPT(GPTConfig(1, 1, 8, T, tokenizer.n_vocab)).eval()
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
        model.transformer.wte.weight[i] = 1.0
    return model, tokenizer


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    "Three models as folders: stories, a that never ends, and the control character ESC."
    place = tmp_path_factory.mktemp("chat")
    export(*story_model(), place / "stories")
    export(*parrot(" a"), place / "endless")
    export(*parrot("\x1b", 256), place / "escape")
    export(*parrot("\n", 256), place / "lines")
    return place


def piped(lines: str | bytes, *flags: str, place: Path) -> subprocess.CompletedProcess:
    data = lines if isinstance(lines, bytes) else lines.encode()
    return warm.run([*CHAT, *flags], input=data, cwd=place, env=ENV, text=False)


# what the model sees


def talk(n: int) -> list[dict]:
    said = [("user", "Where is the kite?"), ("assistant", "In the attic.")] * n
    return [{"role": role, "content": text} for role, text in said[:-1]]


def test_the_oldest_turns_are_left_out_and_the_system_message_stays():
    _, tokenizer = story_model()
    system = [{"role": "system", "content": "Answer."}]
    whole = prompt_ids(tokenizer, [*system, *talk(4)])
    assert fit(tokenizer, [*system, *talk(4)], len(whole), 1) == (whole, 0)
    two = prompt_ids(tokenizer, [*system, *talk(4)[4:]])
    assert fit(tokenizer, [*system, *talk(4)], len(two) + 8, 9) == (two, 4)
    short = prompt_ids(tokenizer, [*system, *talk(1)])
    assert fit(tokenizer, [*system, *talk(4)], len(short), 1) == (short, 6)
    line = f"the message with the system message has {len(short)} tokens; the context holds "
    with pytest.raises(ValueError, match=f"{line}{len(short) - 1}, 1 of them for the answer; sho"):
        fit(tokenizer, [*system, *talk(4)], len(short) - 1, 1)
    many = [*system, *talk(9_000)]  # if each trial began anew, this would take minutes
    assert fit(tokenizer, many, len(two) + 8, 9) == (two, 17_996)


def test_the_caches_change_nothing_but_the_work():
    model, tokenizer = story_model()
    first = talk(1)
    used = Chat(model, tokenizer, 10, temperature=0.0)
    answer = "".join(used.answer(used.fit(first).ids))
    assert used.read == len(prompt_ids(tokenizer, first)) and used.cut == "max_tokens is reached"
    said = [*first, {"role": "assistant", "content": answer}, {"role": "user", "content": "Why?"}]
    ids = used.fit(said).ids
    fresh = Chat(model, tokenizer, 10, temperature=0.0)
    assert list(used.answer(ids)) == list(fresh.answer(ids))
    assert used.read < 10 < fresh.read == len(ids)
    for cache, other in zip(used.caches, fresh.caches, strict=True):
        n = other.length
        assert cache.length == n == len(fresh.ids)
        torch.testing.assert_close(cache.k[:, :, :n], other.k[:, :, :n], rtol=0, atol=1e-5)


def test_an_answer_that_is_left_early_spoils_nothing():
    model, tokenizer = story_model()
    used, fresh = (Chat(model, tokenizer, 20, temperature=0.0) for _ in "ab")
    pieces = used.answer(used.fit(talk(1)).ids)
    next(pieces), next(pieces)
    pieces.close()
    other = talk(2)
    assert list(used.answer(used.fit(other).ids)) == list(fresh.answer(fresh.fit(other).ids))


def test_a_full_context_ends_the_answer_and_says_so():
    chat = Chat(*parrot(" a", 64), max_tokens=1000, temperature=0.0)
    ids, _ = chat.fit([{"role": "user", "content": "a"}])
    assert "".join(chat.answer(ids)) == " a" * (64 - len(ids) + 1)
    assert chat.cut == "the context is full"


def test_a_question_without_an_answer_is_forgotten(capsys):
    model, tokenizer = story_model()
    with torch.no_grad():  # <|end|> at once
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
        model.transformer.wte.weight[tokenizer.special["<|end|>"]] = 100.0
    conversation = Talk(Chat(model, tokenizer, 5, temperature=0.0))
    conversation.ask("Where is the kite?")
    assert conversation.messages == [] and capsys.readouterr().err == "(the model says nothing)\n"


# through a pipe


def test_line_n_of_a_pipes_output_answers_line_n_of_its_input(models):
    asked = "Who has the kite?\n\n/rest\n" + "The end. " * 100 + "\nWhere is it?"
    flags = ("--run", "stories", "--max_tokens", "6")
    p = piped(asked, *flags, place=models)
    out, err = p.stdout.decode().splitlines(), p.stderr.decode().splitlines()
    assert p.returncode == 2, err
    assert [bool(line.strip()) for line in out] == [True, False, False, False, True], (out, err)
    assert [out[i] for i in (1, 2, 3)] == [""] * 3
    cut = "(max_tokens is reached)"
    assert err[0] == cut and err[4] == cut and len(err) == 6
    why = "3 of 5 lines were refused, for the reasons above; mend them and ask again"
    assert err[5] == f"gpt2edu_chat: {why}"
    assert err[1] == "(the message is empty; type a question, or /help)"
    assert err[2] == "(unknown command /rest; expected one of /help, /reset, /system, /quit)"
    assert re.fullmatch(
        r"\(the message has 30\d tokens; the context holds 128, 6 of them for the answer; "
        r"shorten it by \d+ tokens\)",
        err[3],
    )
    assert piped(asked, *flags, place=models).stdout == p.stdout


def test_an_answer_of_several_lines_is_one_line_of_a_pipes_output(models):
    flags = ("--run", "lines", "--max_tokens", "3")
    p = piped("Where?\nWho?\n", *flags, place=models)
    assert (p.returncode, p.stdout) == (0, b"   \n" * 2), p.stderr


def test_old_turns_are_dropped_and_it_is_said(models):
    p = piped(
        "Where is the umbrella?\n" * 8, "--run", "stories", "--max_tokens", "20", place=models
    )
    said = re.findall(r"\(the context is full: (\d+) older messages are left out\)", str(p.stderr))
    assert p.returncode == 0 and said and p.stdout.count(b"\n") == 8
    assert set(said) == {"2"}  # those that were left out once do not come back


def test_system_reset_and_quit(models):
    p = piped(
        "/system\tBe short.\n/system\n/system off\n/system \0x\n/reset\n/quit\nmore\n",
        "--run",
        "stories",
        place=models,
    )
    lines = ["(system: Be short.)", "(system: Be short.)", "(system: off)"]
    refused = "(/system: message 1.content is "
    said = p.stderr.decode().splitlines()
    assert (p.returncode, p.stdout, said[:3], said[4]) == (2, b"", lines, "(forgotten)")
    assert said[3].startswith(refused) and "1 of 6 lines were refused" in said[5]


def test_no_control_character_reaches_the_output(models):
    p = piped(
        b"\x1b[31m red \xff\n/\x1b[2J\n", "--run", "escape", "--max_tokens", "3", place=models
    )
    assert p.returncode == 2 and p.stdout.decode() == "\ufffd\ufffd\ufffd\n\n"
    assert b"\x1b" not in p.stderr and "unknown command /\ufffd[2J" in p.stderr.decode()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--run", "tiny"], "tiny has no chat template: its tokenizer tiny lacks <|user|>; teach"),
        (["--run", "no"], "no is not a run: there is no config.json in no/ or runs/no/"),
        ([], "there is no run in runs/ yet; make one with: gpt2edu_train"),
        (["--run", "stories", "--max_tokens", "0"], "max_tokens=0 must be 1 or more; try 100"),
        (["--run", "stories", "--temperature=-1"], "temperature=-1.0 must be 0 (greedy) or more"),
        (["--run", "stories", "--seed=-1"], "seed=-1 must be from 0 to 2^63 - 1"),
        (
            ["--run", "stories", "--system", "word " * 200],
            "the message with the system message has",
        ),
        (["--run", "stories", "--system", "\udcff"], "the conversation: message 1.content is"),
        (["--run", "stories", "--port", "65536"], "port=65536 must be from 0 to 65535; try 8000"),
    ],
)
def test_a_mistake_gives_one_line(models, flags, line):
    p = piped("Hello\n", *flags, place=models)
    err = p.stderr.decode()
    assert (p.returncode, p.stdout, err.count("\n")) == (2, b"", 1), err
    assert err.startswith(f"gpt2edu_chat: {line}")


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_a_closed_input_is_an_empty_one(models):
    words = [*CHAT, "--run", "stories", "--system", " "]
    line = shlex.join(words) + " <&-"
    p = subprocess.run(line, shell=True, cwd=models, env=ENV, capture_output=True, timeout=300)
    assert (p.returncode, p.stdout, p.stderr) == (0, b"", b"")


# in a terminal


class Terminal:
    "A process behind a pty: what it shows, and keys for it."

    def __init__(self, place: Path, *flags: str):
        pty = pytest.importorskip("pty")  # not on Windows
        self.us, them = pty.openpty()
        options = {"stdin": them, "stdout": them, "stderr": them, "start_new_session": True}
        take = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        take += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        words = [sys.executable, "-c", take, *CHAT[1:], *flags]
        self.process = subprocess.Popen(words, cwd=place, env=ENV, **options)
        os.close(them)
        self.shown = ""

    def see(self, pattern: str, seconds: float = 60) -> str:
        "Wait until a pattern is shown; return what came up to its end."
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.shown)):
            ready = select.select([self.us], [], [], max(0, end - time.monotonic()))[0]
            assert ready, f"{pattern!r} was not shown: {self.shown!r}"
            try:
                self.shown += os.read(self.us, 4096).decode(errors="replace")
            except OSError:  # the other side is closed
                raise AssertionError(f"{pattern!r} was not shown: {self.shown!r}") from None
        seen, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return seen

    def type(self, keys: str):
        # as late as a person: input() of CPython writes the prompt, and then goes to wait for keys;
        # a signal between the two is only acted on at the next key
        time.sleep(1.5)
        os.write(self.us, keys.encode())

    def ends(self) -> int:
        while True:  # what it still says, or it could not end
            try:
                if not os.read(self.us, 4096):
                    break
            except OSError:
                break
        return self.process.wait(300)


def test_ctrl_c_stops_the_answer_and_ctrl_d_the_chat(models):
    t = Terminal(models, "--run", "endless", "--max_tokens", "20000")
    assert "endless, context of 20000 tokens; /help says what can be typed" in t.see("> $")
    t.type("Where is it?\n")
    t.see("( a){20}")
    t.type("\x03")
    assert "Traceback" not in t.see(r"\(stopped\)\s+> $")
    t.type("half a line\x03")
    assert "(/quit or Ctrl-D ends the chat)" in t.see(r"chat\)\s+> $")
    t.type("/help\n")
    shown = t.see(r"space before it\.\s+> $")
    assert all(word in shown for word in ("/reset", "/system", "/quit"))
    t.type("Go on\n")
    t.see("( a){20}")
    t.type("\x03")
    t.see(r"\(stopped\)\s+> $")
    t.type("\x04")
    assert t.ends() == 0


def test_the_arrow_brings_back_the_last_line(models):
    t = Terminal(models, "--run", "stories", "--max_tokens", "3")
    t.see("> $")
    t.type("Who?\n")
    first = t.see(r"reached\)\s+> $")
    t.type("\x1b[A\n")
    assert "Who?" in t.see(r"reached\)\s+> $") and "Who?" in first
    t.type("/quit\n")
    assert t.ends() == 0


def test_sigterm_ends_a_chat_with_one_line(models):
    t = Terminal(models, "--run", "endless", "--max_tokens", "20000")
    t.see("> $")
    t.type("Where is it?\n")
    t.see("( a){20}")
    t.process.send_signal(signal.SIGTERM)
    t.see("gpt2edu_chat: stopped by SIGTERM")
    assert t.ends() == 143


# on a page


class Page:
    "A server in a process of its own, and requests to it."

    def __init__(self, place: Path, *flags: str):
        words = [*CHAT, "--web", "--port", "0", *flags]
        self.process = subprocess.Popen(
            words, cwd=place, env=ENV, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
        )
        line = self.process.stderr.readline()
        self.port = int(re.search(r"http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)", line)[1])

    def ask(self, method: str, path: str, body: bytes | None = None, **headers):
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        headers = {k.replace("_", "-"): v for k, v in headers.items()}
        link.request(method, path, body, headers)
        return link.getresponse()

    def post(self, messages, **headers):
        body = json.dumps({"messages": messages}).encode()
        return self.ask("POST", "/answer", body, **{"Content_Type": "application/json"} | headers)


@pytest.fixture
def page(models, request):
    run, *flags = getattr(request, "param", ["stories"])
    page = Page(models, "--run", run, *flags)
    yield page
    page.process.send_signal(signal.SIGINT)
    assert page.process.wait(300) == 0
    assert page.process.stderr.read() == "chat: ended\n"


USER = [{"role": "user", "content": "Where is the kite?"}]


class Exhausted:
    "A model that runs out of memory where it would answer."

    def __init__(self, error):
        self.error, self.cut = error, ""

    def fit(self, messages):
        return [1], 0

    def answer(self, ids):
        raise self.error


def test_a_model_that_runs_out_of_memory_says_so_on_the_page():
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        server = Server(Exhausted(error), "m", "", 0)
        (event,) = server.events(USER)
        assert event["error"].startswith("out of memory; take a smaller model")
        server.server_close()
    server = Server(Exhausted(RuntimeError("a bug")), "m", "", 0)
    with pytest.raises(RuntimeError, match="a bug"):
        list(server.events(USER))
    server.server_close()


@pytest.mark.parametrize("page", [["endless"]], indirect=True)
def test_a_new_chat_forgets_the_answer_that_was_being_written(page, browser):
    from playwright.sync_api import expect

    def see(selector: str):
        return expect(tab.locator(selector))

    with browser.new_context() as context:
        tab = context.new_page()
        tab.set_default_timeout(180_000)
        tab.goto(f"http://127.0.0.1:{page.port}/")
        asked = []
        tab.on("request", lambda r: asked.append(r.post_data) if r.post_data else None)
        tab.locator("#text").fill("my secret")
        tab.locator("#send").click()
        see(".model").to_have_text(re.compile(".{6}"))
        tab.locator("#reset").click()
        see("#stop").to_be_disabled()
        see("#log").to_have_text("")
        tab.locator("#text").fill("hello")
        tab.locator("#send").click()
        see(".model").to_have_text(re.compile(".{6}"))
        assert [json.loads(a)["messages"] for a in asked][-1] == [
            {"role": "user", "content": "hello"}
        ]
        tab.locator("#reset").click()
        see("#stop").to_be_disabled()
        tab.locator("#text").fill("x" * 1_100_000)
        tab.locator("#send").click()
        see("#log").to_contain_text("longer than the server reads; begin a new chat")
        assert len(asked) == 2


@pytest.mark.parametrize("page", [["stories", "--max_tokens", "5"]], indirect=True)
def test_the_page_answers_as_the_terminal_does(page, models):
    reply = page.post(USER, Origin=f"http://127.0.0.1:{page.port}")
    assert reply.status == 200 and reply.getheader("Transfer-Encoding") == "chunked"
    events = [json.loads(line) for line in reply.read().splitlines()]
    said = "".join(e.get("piece", "") for e in events)
    p = piped(USER[0]["content"], "--run", "stories", "--max_tokens", "5", place=models)
    assert said + "\n" == p.stdout.decode() and events[-1] == {"cut": "max_tokens is reached"}
    long = [USER[0], {"role": "assistant", "content": said}] * 10 + USER
    events = [json.loads(line) for line in page.post(long).read().splitlines()]
    assert events[0]["dropped"] % 2 == 0 < events[0]["dropped"] and events[1]["piece"]
    too_long = [{"role": "user", "content": "The end. " * 100}]
    (event,) = map(json.loads, page.post(too_long).read().splitlines())
    assert event["error"].startswith("the message has 30")


def test_only_the_page_itself_may_ask(page):
    ours = f"127.0.0.1:{page.port}"
    for headers, status in (
        ({"Host": f"evil.example:{page.port}"}, 403),  # DNS rebinding
        ({"Host": "127.0.0.1"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": f"https://{ours}"}, 403),
        ({"Content_Type": "text/plain"}, 415),  # what a form can send
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"Host": f"localhost:{page.port}", "Origin": f"http://localhost:{page.port}"}, 200),
    ):
        reply = page.post(USER, **headers)
        assert reply.status == status, headers
        assert (b"piece" in reply.read()) == (status == 200)
    assert page.ask("GET", "/", Host="evil.example").status == 403
    for body, line in (
        (b"{", "the question cannot be read"),
        (b"[]", "expected an object with a list, messages"),
        (b'{"messages": [1]}', "the question cannot be read"),
        (b'{"messages": []}', "is empty"),
        (b'{"messages": 1, "messages": []}', "the key 'messages' is there twice"),
        (json.dumps({"messages": USER}).encode("utf-16"), "the question cannot be read"),
        (b'{"messages": [{"role": "user", "content": " "}]}', "expected a role and a content"),
        (b"[" * 100_000, "the question cannot be read"),
    ):
        reply = page.ask("POST", "/answer", body, Content_Type="application/json")
        assert reply.status == 400 and line in json.loads(reply.read())["error"], body
    large = {"Content_Type": "application/json", "Content_Length": str(1 << 21)}
    assert page.ask("POST", "/answer", b"", **large).status == 413
    assert page.ask("POST", "/other", b"{}", Content_Type="application/json").status == 404
    assert page.ask("GET", "/etc/passwd").status == 404
    assert page.ask("PUT", "/", b"").status == 501


def test_it_listens_on_loopback_alone(page):
    table = Path("/proc/net/tcp")
    if not table.exists():
        pytest.skip("needs Linux's /proc")
    lines = [line.split() for line in table.read_text(encoding="utf-8").splitlines()[1:]]
    listening = [w[1] for w in lines if w[3] == "0A" and int(w[1].split(":")[1], 16) == page.port]
    assert listening == [f"0100007F:{page.port:04X}"]


def test_the_page_asks_nothing_of_any_other_place(page):
    reply = page.ask("GET", "/")
    text = reply.read().decode()
    assert reply.status == 200 and reply.getheader("Content-Security-Policy") == POLICY
    assert reply.getheader("X-Content-Type-Options") == "nosniff"
    assert not re.search(r"https?:|//[a-z]|@import|url\(|innerHTML", text)
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text
    assert 'aria-live="polite"' in text and '<label for="text">' in text and "stories" in text


def test_a_name_cannot_become_a_part_of_the_page():
    text = page_of("<script>alert(1)</script>", '"><script>').decode()
    assert text.count("<script>") == 1 and "&lt;script&gt;alert(1)" in text


@pytest.mark.parametrize("page", [["endless", "--max_tokens", "20000"]], indirect=True)
def test_an_answer_streams_and_a_reader_who_leaves_frees_the_model(page):
    first = page.post(USER)
    assert json.loads(first.readline()) == {"piece": " a"}  # long before the end of the answer
    first.close()
    second = page.post(USER)
    assert json.loads(second.readline()) == {"piece": " a"}
    second.close()


def test_a_port_that_is_taken(models):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = str(s.getsockname()[1])
        p = piped("", "--run", "stories", "--web", "--port", port, place=models)
    err = p.stderr.decode()
    assert p.returncode == 2 and err.count("\n") == 1, err
    assert f"port {port} of 127.0.0.1 cannot be used (Address already in use); choose" in err


def test_a_request_on_port_80_has_no_port_in_its_host():
    assert refusal_of({"Host": "localhost"}, 80, post=False) is None
    assert refusal_of({"Host": "localhost"}, 8000, post=False)[0] == 403
