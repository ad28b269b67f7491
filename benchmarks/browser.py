"""How long a token takes in the page: the model of the playground in a browser, one core.

    taskset -c 0 python -m benchmarks.browser > benchmarks/logs/browser.json

Needs Debian's chromium and Playwright (the `dev` extra), and a quiet machine. The page promises a
token in at most 20 milliseconds.
"""

import base64
import json
import os
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from benchmarks.timing import commit
from gpt2edu.machine import device

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = "/usr/bin/chromium"
RUN = """async ([text, rounds, tokens]) => {
  const model = gpt2edu.open(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer, "tiny");
  const times = [];
  for (let round = 0; round < rounds; round++) {
    const cache = model.newCache(), begin = performance.now();
    for (let i = 0, id = model.tokenizer.eot; i < tokens; i++) {
      id = gpt2edu.pick(gpt2edu.odds(model.step(cache, id), { temperature: 0 }), 0);
    }
    times.push((performance.now() - begin) / tokens);
  }
  return times;
}"""


def milliseconds(rounds: int = 12, tokens: int = 127) -> tuple[list[float], str]:
    "Measure the time of a token, mean of a text that fills the context, several times."
    weights = base64.b64encode((ROOT / "book/play/tiny.safetensors").read_bytes()).decode()
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto((ROOT / "book/site/play.html").as_uri())
        page.add_script_tag(path=ROOT / "book/play/gpt2edu.js")
        times = page.evaluate(RUN, [weights, rounds, tokens])
        version = browser.version
        browser.close()
    return times[2:], version  # the first two are compiled on the way


def main():
    times, version = milliseconds()
    row = {
        "made_by": "benchmarks/browser.py",
        "commit": commit(),
        "hardware": device.describe("cpu").split(", ")[0],
        "browser": f"chromium {version}",
        "load": round(os.getloadavg()[0], 2),
        "ms_per_token": {"median": round(sorted(times)[len(times) // 2], 3)},
    }
    row["ms_per_token"] |= {"least": round(min(times), 3), "most": round(max(times), 3)}
    print(json.dumps(row))


if __name__ == "__main__":
    sys.exit(main())
