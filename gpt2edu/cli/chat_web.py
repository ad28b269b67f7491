"""The same conversation in a browser, from a server that only programs on this machine reach."""

# Made by tools/book.py from ../../book/tough/ch24e_chat_web.md: edit that, then `make book`.

# %% auto #0
__all__ = ['NAMES', 'MOST_BYTES', 'STYLE', 'SCRIPT', 'PAGE', 'POLICY', 'refusal_of', 'hashed',
           'page_of', 'Handler', 'Server', 'serve']

# %% ../../nbs/tough/ch24e_chat_web.ipynb #3658be16
import base64
import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gpt2edu.cli.flags import complain, in_one_line, is_out_of_memory, visible
from gpt2edu.machine.state import loads
from gpt2edu.text.chat import check_messages

# %% ../../nbs/tough/ch24e_chat_web.ipynb #1a2e3236
NAMES = ("127.0.0.1", "localhost")
MOST_BYTES = 1 << 20  # of a question with all that came before it


def refusal_of(
    headers,  # of a request: has `get`
    port: int,
    post: bool,  # whether it wants something done
) -> tuple[int, str] | None:  # status and line; None: it may go on
    "Say why a request is refused."
    ours = {f"{name}:{port}" for name in NAMES} | (set(NAMES) if port == 80 else set())
    host, origin = headers.get("Host", ""), headers.get("Origin")
    if host.lower() not in ours:
        return 403, f"Host is {host!r}, expected {NAMES[0]}:{port}; open the address as printed"
    if not post:
        return None
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        return 403, f"Origin is {origin!r}, expected http://{host}; only the page itself may ask"
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return 415, f"Content-Type is {kind!r}, expected application/json"
    length = headers.get("Content-Length", "")
    if not (length.isascii() and length.isdecimal()):
        return 411, f"Content-Length is {length!r}, expected a number of bytes"
    if len(length) > 9 or int(length) > MOST_BYTES:
        return 413, f"got {length} bytes, expected {MOST_BYTES:,} at most; begin a new chat"
    return None

# %% ../../nbs/tough/ch24e_chat_web.ipynb #876adb5d
STYLE = """
:root { color-scheme: light dark; --line: #8886; --mine: #2563eb22; --soft: #666; }
@media (prefers-color-scheme: dark) { :root { --mine: #60a5fa33; --soft: #aaa; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100dvh; display: flex; flex-direction: column;
  font: 1rem/1.5 system-ui, sans-serif; color: CanvasText; background: Canvas; }
header, main, form { width: 100%; max-width: 44rem; margin: 0 auto; padding: .75rem 1rem; }
header { display: flex; flex-wrap: wrap; gap: .5rem; align-items: baseline; }
h1 { font-size: 1.1rem; margin: 0 auto 0 0; overflow-wrap: anywhere; }
main { flex: 1; }
main p { margin: .4rem 0; padding: .4rem .7rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.user { background: var(--mine); border-radius: .6rem; }
.note { color: var(--soft); font-size: .9rem; }
form { position: sticky; bottom: 0; background: Canvas; border-top: 1px solid var(--line); }
label { display: block; font-size: .9rem; color: var(--soft); }
textarea, input { width: 100%; font: inherit; padding: .5rem; color: inherit; background: Field;
  border: 1px solid #888; border-radius: .4rem; }
textarea { min-height: 4.5rem; resize: vertical; }
button { font: inherit; padding: .45rem 1rem; border: 1px solid #888; border-radius: .4rem;
  min-height: 2.75rem; }
button:disabled { opacity: .5; }
:focus-visible { outline: 3px solid #2563eb; outline-offset: 1px; }
.row { display: flex; gap: .5rem; margin-top: .5rem; flex-wrap: wrap; }
"""

SCRIPT = """
"use strict";
const at = (id) => document.getElementById(id);
const MOST = 1048576;  // bytes of a question with all that came before it, as in the server
const log = at("log"), form = at("form"), text = at("text"), system = at("system");
let said = [], stop = null, chats = 0;
function line(kind, words) {
  const p = document.createElement("p");
  p.className = kind;
  p.textContent = words;
  log.append(p);
  p.scrollIntoView({ block: "nearest" });
  return p;
}
function busy(on) {
  at("send").disabled = on;
  at("stop").disabled = !on;
  log.setAttribute("aria-busy", on);
}
async function ask(question) {
  const asked = [...said, { role: "user", content: question }];
  const first = system.value.trim() ? [{ role: "system", content: system.value }] : [];
  const body = JSON.stringify({ messages: [...first, ...asked] }), chat = chats;
  if (new Blob([body]).size > MOST) {
    line("note", "The conversation is longer than the server reads; begin a new chat.");
    text.value = question;
    return;
  }
  const mine = line("user", question), theirs = line("model", "");
  stop = new AbortController();
  busy(true);
  let kept = asked, why = "";
  try {
    const reply = await fetch("/answer", { method: "POST", signal: stop.signal,
      headers: { "Content-Type": "application/json" },
      body });
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\\n");
      rest = lines.pop();
      for (const event of lines.map((l) => JSON.parse(l))) {
        if (event.piece) { theirs.textContent += event.piece; }
        if (event.dropped) {
          kept = asked.slice(event.dropped);
          log.insertBefore(line("note",
            "The context is full: " + event.dropped + " older messages are left out."), mine);
        }
        if (event.error) { why = event.error; }
        if (event.cut) { why = "(" + event.cut + ")"; }
      }
      theirs.scrollIntoView({ block: "nearest" });
    }
  } catch (e) {
    why = stop.signal.aborted ? "(stopped)" : "The server does not answer; is it still running?";
  }
  const answer = theirs.textContent;
  if (chat !== chats) {  // "New chat" was pressed meanwhile
    stop = null;
    busy(false);
    return;
  }
  if (answer.trim()) {
    said = [...kept, { role: "assistant", content: answer }];
  } else {
    theirs.remove();
    if (!text.value) text.value = question;
    why = why || "(the model says nothing)";
  }
  if (why) line("note", why);
  stop = null;
  busy(false);
  text.focus();
}
form.addEventListener("submit", (e) => {
  e.preventDefault();
  if (stop) return;
  const question = text.value;
  if (!question.trim()) { line("note", "The message is empty; type a question."); return; }
  text.value = "";
  ask(question);
});
text.addEventListener("keydown", (e) => {
  if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
  e.preventDefault();
  form.requestSubmit();
});
document.addEventListener("keydown", (e) => { if (e.key === "Escape" && stop) stop.abort(); });
at("stop").addEventListener("click", () => { if (stop) stop.abort(); });
at("reset").addEventListener("click", () => {
  if (stop) stop.abort();
  chats += 1;
  said = [];
  log.replaceChildren();
  text.focus();
});
text.focus();
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>gpt2edu chat</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<header><h1>{name}</h1><button type="button" id="reset">New chat</button></header>
<main id="log" role="log" aria-live="polite" aria-label="Conversation"></main>
<form id="form">
<label for="system">How to answer (system message, may stay empty)</label>
<input id="system" autocomplete="off" value="{system}">
<label for="text">Message; Enter sends, Shift+Enter begins a line, Escape stops an answer</label>
<textarea id="text" autocomplete="off"></textarea>
<div class="row"><button id="send">Send</button>
<button type="button" id="stop" disabled>Stop</button></div>
</form>
<script>{script}</script>
</body>
</html>
"""


def hashed(text: str) -> str:
    "Name a script or a style by its hash, as a content security policy does."
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


POLICY = (
    f"default-src 'none'; script-src {hashed(SCRIPT)}; style-src {hashed(STYLE)}; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page_of(name: str, system: str) -> bytes:
    "Fill the page with the name of a model and a system message."
    fill = {"name": escape(visible(name)), "system": escape(visible(system))}
    return PAGE.format(style=STYLE, script=SCRIPT, **fill).encode()

# %% ../../nbs/tough/ch24e_chat_web.ipynb #9ae7f354
class Handler(BaseHTTPRequestHandler):
    "Answer one request."

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "gpt2edu", ""
    timeout = 60  # seconds that a client may be silent, or not read

    def do_GET(self):
        if refused := refusal_of(self.headers, self.server.server_port, post=False):
            return self.refuse(*refused)
        if self.path != "/":
            return self.refuse(404, f"nothing is at {self.path!r}; the page is at /")
        self.reply(200, "text/html; charset=utf-8", self.server.page)

    def do_POST(self):
        self.close_connection = True  # of a refused request nothing has been read
        if refused := refusal_of(self.headers, self.server.server_port, post=True):
            return self.refuse(*refused)
        if self.path != "/answer":
            return self.refuse(404, f"nothing is at {self.path!r}; questions go to /answer")
        try:
            asked = loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not isinstance(asked, dict) or not isinstance(asked.get("messages"), list):
                raise ValueError("expected an object with a list, messages")
            check_messages(asked["messages"])
        except ValueError as e:
            return self.refuse(400, in_one_line(ValueError(f"the question cannot be read: {e}")))
        self.head(200, "application/x-ndjson; charset=utf-8", ("Transfer-Encoding", "chunked"))
        for event in self.server.events(asked["messages"]):
            line = json.dumps(event).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.write(b"0\r\n\r\n")

    def head(self, status: int, kind: str, *more: tuple[str, str]):
        "Send the status and the headers."
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Security-Policy": POLICY}
        headers |= {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        headers |= {"Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin"}
        for key, value in (*headers.items(), *more):
            self.send_header(key, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def reply(self, status: int, kind: str, body: bytes):
        self.head(status, kind, ("Content-Length", str(len(body))))
        self.wfile.write(body)

    def refuse(self, status: int, line: str):
        self.close_connection = True
        body = json.dumps({"error": visible(line)}).encode() + b"\n"
        self.reply(status, "application/x-ndjson; charset=utf-8", body)

    def log_message(self, *args):
        "Say nothing: the terminal is not a log of requests."


class Server(ThreadingHTTPServer):
    "A page and a model behind it, on this machine only."

    daemon_threads = True
    allow_reuse_address = os.name != "nt"  # where it lets a second server take the port

    def __init__(
        self,
        chat,  # a `Chat`
        name: str,  # of the model
        system: str,  # system message that the page begins with
        port: int,  # 0: any that is free
    ):
        self.chat = chat
        self.page = page_of(name, system)
        self.lock = threading.Lock()
        self.ends = False  # whether answers should
        super().__init__((NAMES[0], port), Handler)

    def events(self, messages: list[dict]) -> Iterator[dict]:
        "Answer a conversation, as objects for the page."
        with self.lock:
            try:
                ids, dropped = self.chat.fit(messages)
                if dropped:
                    yield {"dropped": dropped}
                for piece in self.chat.answer(ids):
                    yield {"piece": visible(piece)}
                    if self.ends:
                        break
                if self.chat.cut:
                    yield {"cut": self.chat.cut}
            except ValueError as e:
                yield {"error": in_one_line(e)}
            except (MemoryError, RuntimeError) as e:
                if not is_out_of_memory(e):
                    raise
                yield {"error": "out of memory; take a smaller model, or --device cpu"}

    def handle_error(self, request, client_address):
        "Let a client leave; anything else is a bug of ours, and its traceback is shown."
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def serve(
    chat,  # a `Chat`
    name: str,  # of the model
    system: str,
    port: int,  # 0: any that is free
):
    "Serve the page until Ctrl-C. ValueError, one line, if the port is taken."
    try:
        server = Server(chat, name, system, port)
    except OSError as e:
        raise ValueError(
            f"port {port} of {NAMES[0]} cannot be used ({e.strerror}); "
            "choose another with --port, or --port 0 for any that is free"
        ) from None
    with server:
        complain(f"chat: {name} is at http://{NAMES[0]}:{server.server_port}/ (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            complain("chat: ended")
        finally:
            server.ends = True
            server.lock.acquire(timeout=20)  # an answer that is being written may end its step
