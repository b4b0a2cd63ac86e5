"""A headless Chromium, Debian's package: a page's document, its faults, a script's answer, a picture."""

import functools
import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.patience import PATIENCE_S

_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-extensions",
    "--enable-logging=stderr",
    "--virtual-time-budget=2000",
)


@functools.cache
def chromium() -> str:
    """Path of the browser. Installs Debian's package where that can be done, else skips the test."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for words in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", "-qq", *words], capture_output=True, timeout=300, check=False)
        found = shutil.which("chromium")
    if found is None:
        pytest.skip("needs a browser: apt-get install chromium")
    return found


def browse(page: Path, work: Path, *arguments: str, width: int = 1200, height: int = 900) -> tuple[str, list[str]]:
    """Return what Chromium prints of a page, and the lines of its console."""
    profile = f"--user-data-dir={work / 'profile'}"
    words = [chromium(), *_OPTIONS, profile, f"--window-size={width},{height}", *arguments, page.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    return done.stdout, re.findall(r"CONSOLE.*", done.stderr)


def asked(page: Path, script: str, work: Path, arguments: tuple[str, ...] = (), width: int = 1200) -> Any:
    """Return what an expression of JavaScript gives on a page of this width, as JSON.

    The page forbids scripts: a copy of it does not, and is shown in a frame, as a window has 500 pixels at least.
    """
    code = (
        "<script>addEventListener('load', () => setTimeout(() => parent.postMessage("
        f"JSON.stringify({script}), '*'), 50))</script>"
    )
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text("utf-8"))
    (work / "copy.html").write_text(text.replace("</body>", f"{code}</body>"), "utf-8")
    (work / "frame.html").write_text(
        f'<!doctype html><meta charset="utf-8"><iframe src="copy.html" style="width:{width}px;height:900px;border:0">'
        "</iframe><script>addEventListener('message', said => { document.title = 'said';"
        "const pre = document.createElement('pre'); pre.id = 'answer'; pre.textContent = said.data;"
        "document.body.append(pre) })</script>",
        "utf-8",
    )
    printed, faults = browse(work / "frame.html", work, "--dump-dom", *arguments, width=max(width + 40, 600))
    found = re.search(r'<pre id="answer">([^<]*)</pre>', printed)
    assert found is not None, (faults, printed[-500:])
    return json.loads(html.unescape(found[1]))
