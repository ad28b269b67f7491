"""List the files of a dataset on the hub of Hugging Face at one commit, and read byte ranges."""

# Made by tools/book.py from ../../book/tough/ch20a_hub.md: edit that, then `make book`.

# %% auto #0
__all__ = ['FIRST', 'LONGEST', 'PATIENCE', 'GREETING', 'Name', 'HubError', 'pause', 'is_passing',
           'retry', 'HubFile', 'Listing', 'patterns_of', 'entry_of', 'by_name', 'choose', 'Listed',
           'SplitFiles', 'Subset', 'Card', 'Answer', 'ask_hub', 'list_files']

# %% ../../nbs/tough/ch20a_hub.ipynb #edf529a6
import email.utils
import io
import random
import re
import time
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from json import JSONDecodeError
from typing import Annotated, NamedTuple, NotRequired, TypedDict
from urllib.parse import quote

from gpt2edu.machine.state import Count, check, loads, without_secrets
from gpt2edu.text.corpus import reachable

# %% ../../nbs/tough/ch20a_hub.ipynb #fbb05d40
FIRST = 0.25  # seconds: the most that the first pause lasts
LONGEST = 60.0  # seconds: no pause is longer
PATIENCE = 900.0  # seconds without one answer after which reading gives up
GREETING = 20.0  # the same for the first request, so that a missing network is noticed soon


class HubError(OSError):
    "The hub did not answer, or refused; one line, without an access token."

    response = None  # of a server that answered, with status_code and headers

    def __init__(self, line: str):
        super().__init__(without_secrets(line))


def pause(
    attempt: int,  # 0 for the first failure
    asked: str | None = None,  # the header Retry-After: seconds or a date
) -> float:  # seconds
    "Return how long to wait: what the server asks for, else an exponential pause with jitter."
    if asked:
        try:
            return max(0.0, float(asked))
        except ValueError:
            when = email.utils.parsedate_to_datetime(asked)
            return max(0.0, when.timestamp() - time.time())
    return random.uniform(0.5, 1.0) * min(LONGEST, FIRST * 2**attempt)


def is_passing(e: Exception) -> bool:
    "Whether a failure may be gone next time: 429, 5xx, a reset, a stall, a short body."
    response = getattr(e, "response", None)
    if response is not None:
        return response.status_code in (408, 425, 429) or response.status_code >= 500
    if type(e).__module__.split(".")[0] in ("httpx", "httpx2", "requests", "urllib3"):
        return True
    garbled = (UnicodeDecodeError, JSONDecodeError)
    return isinstance(e, (ConnectionError, TimeoutError, *garbled))


def retry(
    action: Callable,  # does one request
    what: str,  # names it in messages
    patience: float = PATIENCE,  # seconds
    note: Callable = lambda line: None,  # gets a line for each pause of a second or more
):  # what the action returns
    "Repeat an action until it works. HubError, one line, after `patience`; other errors as raised."
    began, what = time.monotonic(), without_secrets(what)
    attempt = 0
    while True:
        try:
            return action()
        except Exception as e:
            if type(e).__name__ == "OfflineModeIsEnabled" or not is_passing(e):
                raise
            headers = getattr(getattr(e, "response", None), "headers", {})
            wait = pause(attempt, headers.get("Retry-After"))
            why = without_secrets(" ".join(str(e).split()))[:100] or type(e).__name__
            if time.monotonic() - began + wait > patience:
                raise HubError(
                    f"{what}: no answer for {patience:.0f} s ({why}); check the network, then go on"
                ) from None  # the client's error can quote the token
        if wait >= 1:
            note(f"{what}: {why}; trying again in {wait:.0f} s")
        time.sleep(wait)
        attempt += 1

# %% ../../nbs/tough/ch20a_hub.ipynb #a5dd2f1e
class HubFile(io.RawIOBase):
    "A file on a server as a readable, seekable file; each read is one range request."

    def __init__(
        self,
        url: str,
        size: int,  # bytes
        note: Callable = lambda line: None,  # gets a line for each long pause
    ):
        self.url = url
        self.size = size
        self.note = note
        self.at = 0  # the byte that is read next

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        "Move to a byte, without a request."
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def read(self, n: int = -1) -> bytes:
        "Read n bytes, all of them, except at the end of the file. HubError, ValueError: one line."
        stop = self.size if n is None or n < 0 else min(self.at + n, self.size)
        if stop <= self.at:
            return b""
        name = self.url.rsplit("/", 1)[-1]
        data = retry(lambda: self.fetch(self.at, stop), f"reading {name}", note=self.note)
        self.at = stop
        return data

    def fetch(self, start: int, stop: int) -> bytes:
        "Ask once for the bytes start … stop - 1."
        from huggingface_hub import constants, get_session
        from huggingface_hub.utils import build_hf_headers

        address = without_secrets(self.url)
        headers = build_hf_headers()
        headers |= {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        seconds = constants.HF_HUB_DOWNLOAD_TIMEOUT
        response = get_session().get(self.url, headers=headers, timeout=seconds)
        if response.status_code == 416:
            raise ValueError(
                f"{address}: has changed, expected {self.size:,} bytes; list the dataset again"
            )
        if response.status_code >= 400:
            what = f"the server answered {response.status_code}"
            error = HubError(f"{address}: {what}; check access to the dataset")
            error.response = response
            raise error
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        if total.isdigit() and int(total) != self.size:
            got = f"got a file of {int(total):,} bytes, expected {self.size:,}"
            raise ValueError(f"{address}: {got}; list the dataset again")
        if len(response.content) != stop - start:
            raise ConnectionError(f"got {len(response.content):,} bytes, expected {stop - start:,}")
        return response.content

# %% ../../nbs/tough/ch20a_hub.ipynb #826db269
class Listing(NamedTuple):
    "The files of one split, in the order in which they are read."

    repo: str
    config: str  # name of the configuration
    split: str
    revision: str  # the commit, hex
    files: list[tuple[str, int]]  # path in the repository, bytes

    def url(self, path: str) -> str:
        "Where a file is; HF_ENDPOINT counts."
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repo, path, repo_type="dataset", revision=self.revision)


def patterns_of(entry: dict) -> dict[str, list[str]]:  # split → patterns of paths
    "Read `data_files` of one configuration of a card: a pattern, a list, or a list of splits."
    data = entry.get("data_files") or "**"
    folder = f"{entry['data_dir'].strip('/')}/" if entry.get("data_dir") else ""
    found = {}
    for item in [data] if isinstance(data, (str, dict)) else data:
        split = item.get("split", "train") if isinstance(item, dict) else "train"
        paths = item["path"] if isinstance(item, dict) else item
        paths = [paths] if isinstance(paths, str) else paths
        found.setdefault(split, []).extend(folder + p for p in paths)
    return found


def entry_of(
    repo: str,
    configs: list[dict],  # of the card, at least one
    config: str | None,  # None: the default one
) -> dict:
    "Find a configuration on a card. ValueError, one line, for a name that is not there."
    named = {str(c.get("config_name")): c for c in reversed(configs)}
    if config is None:
        marked = [c for c in configs if c.get("default")]
        return marked[0] if marked else named.get("default", configs[0])
    if config not in named:
        names = [str(c.get("config_name")) for c in configs]
        near = [n for n in names if n.lower() == config.lower()] or names[:8]
        more = " …" * (len(near) < len(names))
        raise ValueError(f"{repo} has no subset {config!r}; expected {', '.join(near)}{more}")
    return named[config]


def by_name(paths: list[str], split: str) -> list[str]:
    "Guess the files of a split from their names, without a card; all of them if none matches."
    return [p for p in paths if split in re.split("[-_/]", p)] or paths


def choose(
    repo: str,
    configs: list[dict],  # of the card; [] if it names none
    paths: Iterable[str],  # all files of the repository
    config: str | None,  # None: the default one
    split: str,
) -> tuple[str, list[str]]:  # the configuration's name, its parquet files in order
    "Find the parquet files of a split. ValueError, one line, where there are none."
    paths = sorted(p for p in paths if p.endswith(".parquet"))
    if not paths:
        raise ValueError(
            f"{repo} holds no parquet file; download its files and give their folder with --dataset"
        )
    if configs:
        entry = entry_of(repo, configs, config)
        name = str(entry.get("config_name"))
        splits = patterns_of(entry)
        if split not in splits:
            expected = ", ".join(splits)
            raise ValueError(f"{repo}, config {name}: no split {split!r}; expected {expected}")
        found = [p for p in paths if any(fnmatchcase(p, pattern) for pattern in splits[split])]
    elif config is not None:
        raise ValueError(f"{repo} has no subsets, got {config!r}; leave --subset out")
    else:
        name = "default"
        found = by_name(paths, split)
    if not found:
        raise ValueError(
            f"{repo}: no parquet file of config {name!r}, split {split!r}; "
            "download its files and give their folder"
        )
    return name, found

# %% ../../nbs/tough/ch20a_hub.ipynb #bdb07559
Name = Annotated[str, re.compile(r"[^\x00-\x1f]{1,200}")]  # short enough for a message


class Listed(TypedDict):
    "A file of a repository."

    rfilename: str
    size: NotRequired[Count | None]  # bytes


class SplitFiles(TypedDict):
    "The files of one split, as a card names them."

    split: NotRequired[Name]
    path: str | list[str]


class Subset(TypedDict, total=False):
    "One configuration of a card."

    config_name: Name
    default: bool
    data_dir: str | None
    data_files: str | SplitFiles | list[str | SplitFiles] | None


class Card(TypedDict, total=False):
    "What we read of a card's head."

    configs: list[Subset] | None


class Answer(TypedDict):
    "What we read of the hub's answer, which says much more."

    sha: Annotated[str, re.compile("[0-9a-f]{40,64}")]
    siblings: list[Listed]
    cardData: NotRequired[Card | None]


def ask_hub(repo: str, revision: str | None, note: Callable) -> dict:
    "Ask for a dataset's card and the names and sizes of its files. HubError, ValueError: one line."
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, validate_repo_id

    validate_repo_id(repo)
    url = f"{constants.ENDPOINT}/api/datasets/{repo}"
    url += f"/revision/{quote(revision, safe='')}" if revision else ""

    def ask():
        if not reachable(constants.ENDPOINT):
            why = "its name is not known here; check the network"
            raise HubError(f"cannot ask {constants.ENDPOINT} for {repo}: {why}")
        how = {"headers": build_hf_headers(), "timeout": constants.HF_HUB_DOWNLOAD_TIMEOUT}
        response = get_session().get(url, params={"blobs": True}, **how)
        hf_raise_for_status(response)
        try:
            return loads(response.content)
        except (JSONDecodeError, UnicodeDecodeError):  # cut on its way, so asked for again
            raise
        except ValueError as e:
            raise ValueError(f"not JSON ({e})") from None

    answer = retry(ask, f"asking {constants.ENDPOINT} for {repo}", GREETING, note)
    return check(answer, Answer, others=True)


def list_files(
    repo: str,  # owner/name
    config: str | None = None,  # None: the card's default
    split: str = "train",
    revision: str | None = None,  # a commit or branch; None: the newest
    note: Callable = lambda line: None,
) -> Listing:
    "Ask the hub which files make up a split. ValueError, HubError: one line."
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    endpoint = without_secrets(constants.ENDPOINT)
    try:
        info = ask_hub(repo, revision, note)
    except GatedRepoError:
        raise ValueError(
            f"{repo} asks for an agreement; accept it on its page, then log in with: hf auth login"
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        fix = "check the name, or log in if it is private"
        raise ValueError(f"no dataset {repo!r} on {endpoint}; {fix}") from None
    except RevisionNotFoundError:
        raise ValueError(
            f"{repo} has no revision {revision!r}; leave it out to get the newest"
        ) from None
    except HubError:
        raise
    except Exception as e:
        if type(e).__name__ == "OfflineModeIsEnabled":
            raise HubError(f"cannot ask for {repo}: HF_HUB_OFFLINE is set; unset it") from None
        if getattr(e, "response", None) is not None:  # the server's words
            why = without_secrets(" ".join(str(e).split()))[:120]
            raise HubError(f"{endpoint} refused {repo}: {why}") from None
        if isinstance(e, ValueError):
            fix = "try again later, or take another dataset"
            raise ValueError(f"{endpoint}, {repo}: {e}; {fix}") from None
        raise
    sizes = {s["rfilename"]: s.get("size") for s in info["siblings"]}
    configs = (info.get("cardData") or {}).get("configs") or []
    name, found = choose(repo, configs, sizes, config, split)
    if unknown := [p for p in found if not sizes[p]]:
        what = f"the size of {unknown[0]} is missing, expected a number of bytes"
        raise ValueError(f"{endpoint}, {repo}: {what}; download its files")
    return Listing(repo, name, split, info["sha"], [(p, sizes[p]) for p in found])
