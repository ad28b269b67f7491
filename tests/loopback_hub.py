"""A stand-in for the Hugging Face hub: a real HTTP server here that fails as real ones do."""

import http.server
import json
import os
import random
import socket
import struct
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

FAULTS = ("429", "503", "reset", "stall", "cut")
# any 40 hex digits: the commit that the listing names
SHA = "5b89d1ea9319fe101b3cbdacd89a903aca1d6052"
COLUMNS = "text id dump url file_path language language_score token_count score int_score".split()
KINDS = [*[pa.string()] * 6, pa.float64(), pa.int64(), pa.float64(), pa.int64()]
SCHEMA = pa.schema(list(zip(COLUMNS, KINDS, strict=True)))  # FineWeb-Edu's


def write_parquet(path, texts, rows=100, schema=SCHEMA):
    "Write texts as FineWeb-Edu's files are: its ten columns, in row groups."
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, schema, compression="snappy") as writer:
        for a in range(0, len(texts), rows):
            rng, part = random.Random(a), texts[a : a + rows]
            table = []
            for i, t in enumerate(part):
                name = f"<urn:uuid:{rng.getrandbits(128):032x}>"
                url = f"https://example.org/{a + i}"
                score, n = rng.uniform(2.5, 5), len(t or "") // 5
                table.append(
                    (
                        t, name, "CC-MAIN-2024-10", url, "s3://warc.gz", "en", rng.random(), n,
                        score, round(score),
                    )
                )  # fmt: skip
            columns = [
                pa.array(c, f.type) for c, f in zip(zip(*table, strict=True), schema, strict=True)
            ]
            writer.write_table(pa.table(columns, schema=schema))


def words(n_documents, seed=0, length=120):
    "Make documents quickly: many scripts, numbers, signs, very different lengths; a few are empty."
    rng = random.Random(seed)
    vocabulary = [
        "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(1, 9))) for _ in range(3000)
    ]
    vocabulary += [
        "it's", "we'll", "1984", "3.14", "naïve", "Straße", "привет", "日本語。", "🙂",
        "<|endoftext|>", "\n\n", "   ",
    ]  # fmt: skip
    for _ in range(n_documents):
        n = int(rng.expovariate(1 / length))
        yield " ".join(rng.choices(vocabulary, k=n))


def write_dataset(
    folder, repo="HuggingFaceFW/fineweb-edu", files=3, documents=400, rows=100, length=120
):
    "Write a dataset as the hub would hold it: a card's configs and parquet files."
    root = Path(folder) / repo
    for i in range(files):
        write_parquet(
            root / f"sample/10BT/{i:03d}_00000.parquet", list(words(documents, i, length)), rows
        )
    write_parquet(root / "data/CC-MAIN-2024-10/000.parquet", list(words(20, 99)), rows)
    configs = [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/*/*"}]},
        {"config_name": "sample-10BT", "data_files": [{"split": "train", "path": "sample/10BT/*"}]},
    ]
    (root / "card.json").write_text(json.dumps({"configs": configs}), encoding="utf-8")
    return root


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", headers=(), send=None):
        self.send_response(status)
        for key, value in [("Content-Length", str(len(body))), *headers]:
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if send is None else body[:send])

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        fault = hub.draw()
        with hub.lock:
            hub.requests.append((path, self.headers.get("Range"), fault))
        if fault == "429":
            return self.answer(429, b"slow down", [("Retry-After", str(hub.retry_after))])
        if fault and fault.startswith("echo"):  # "echo 403": the answer quotes what was sent
            sent = self.headers.get("Authorization", "")
            bare = sent.removeprefix("Bearer ") if sent.startswith("Bearer ") else ""
            body = json.dumps({"error": f"bad request: Authorization: {sent}, {bare}"})
            quoted = [("X-Error-Message", f"not allowed with {sent}"), ("X-Request-Id", sent)]
            return self.answer(int(fault[5:]), body.encode(), quoted)
        if fault == "503":
            return self.answer(503, b"\x9c busy \xff")
        if fault == "reset":  # linger 0: close sends RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return self.connection.close()
        status, body, headers = self.content(path)
        if fault == "stall":
            self.answer(status, body, headers, send=len(body) // 3)
            self.wfile.flush()
            self.close_connection = True
            return hub.stop.wait(hub.stall)
        if fault == "cut":
            self.answer(status, body, headers, send=len(body) // 2)
            self.close_connection = True
            return None
        return self.answer(status, body, headers)

    def content(self, path):
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "datasets"]:
            root = self.server.hub.root / "/".join(parts[2:4])
            if not (root / "card.json").exists():
                return 401, b'{"error":"Repository not found"}', [("X-Error-Code", "RepoNotFound")]
            if parts[4:5] == ["revision"] and parts[5] not in ("main", SHA):
                return 404, b"{}", [("X-Error-Code", "RevisionNotFound")]
            files = [p for p in sorted(root.rglob("*")) if p.is_file()]
            siblings = [
                {"rfilename": str(p.relative_to(root)), "size": p.stat().st_size} for p in files
            ]
            card = json.loads((root / "card.json").read_text(encoding="utf-8"))
            info = {
                "id": "/".join(parts[2:4]),
                "sha": SHA,
                "siblings": siblings,
                "cardData": card,
                "tags": [],
            }
            return (
                200,
                json.dumps(
                    info | {"private": False, "gated": False, "downloads": 0, "likes": 0}
                ).encode(),
                [],
            )
        assert parts[0] == "datasets" and parts[3:5] == ["resolve", SHA], path
        file = self.server.hub.root / "/".join(parts[1:3]) / "/".join(parts[5:])
        size = file.stat().st_size
        start, stop = (int(x) for x in self.headers["Range"].removeprefix("bytes=").split("-"))
        with open(file, "rb") as f:
            f.seek(start)
            body = f.read(stop + 1 - start)
        return 206, body, [("Content-Range", f"bytes {start}-{start + len(body) - 1}/{size}")]


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        "A client that has gone is what the tests are about."


class Hub:
    "The server and what it was asked."

    def __init__(self, root, faulty=0.0, faults=FAULTS, seed=0, stall=5.0, retry_after=0):
        self.root = Path(root)
        self.faulty = faulty
        self.faults = faults
        self.stall = stall
        self.retry_after = retry_after
        self.rng = random.Random(seed)
        self.lock = threading.Lock()
        self.requests = []
        self.stop = threading.Event()
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.hub = self
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self.thread.start()

    def draw(self):
        with self.lock:
            return self.rng.choice(self.faults) if self.rng.random() < self.faulty else None

    @property
    def env(self):
        "The environment of a process that takes this for the hub."
        mine = {
            "HF_ENDPOINT": f"http://127.0.0.1:{self.server.server_port}",
            "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        }
        return (
            os.environ
            | mine
            | {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": "", "NO_PROXY": "127.0.0.1"}
        )

    def bytes_asked(self):
        spans = [
            r.removeprefix("bytes=").split("-") for _, r, fault in self.requests if r and not fault
        ]
        return sum(int(b) - int(a) + 1 for a, b in spans)


@contextmanager
def serve(root, **options):
    hub = Hub(root, **options)
    try:
        yield hub
    finally:
        hub.stop.set()
        hub.server.shutdown()
        hub.server.server_close()
