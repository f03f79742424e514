"""A hub name, asked of a server on this machine that answers as the hub does."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.processes import python
from tests.training import tiny

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PREFIX = "/org/tiny/resolve/main/"


class Hub(BaseHTTPRequestHandler):
    """Serves the files of one folder as those of the model org/tiny, and notes what it sent."""

    protocol_version = "HTTP/1.1"

    def __init__(self, folder: Path, sent: list[tuple[str, int]], *arguments: Any) -> None:
        self._folder = folder
        self._sent = sent
        super().__init__(*arguments)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        file = self._folder / self.path.partition("?")[0].removeprefix(PREFIX)
        if not self.path.startswith(PREFIX) or not file.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if self.path.startswith(PREFIX) else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = file.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        part = content[int(wanted[1]) : int(wanted[2]) + 1] if wanted else content
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {wanted[1]}-{wanted[2]}/{len(content)}")
        for name, value in (
            ("Content-Length", str(len(part))),
            ("ETag", f'"{file.name}"'),
            ("X-Repo-Commit", "0" * 40),
            ("Accept-Ranges", "bytes"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(part)
            self._sent.append((file.name, len(part)))

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.save_bert(tmp_path / "model", hidden_size=64, intermediate_size=1024)


@pytest.fixture
def served(model: Path) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    sent: list[tuple[str, int]] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, model, sent)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", sent
        server.shutdown()
        thread.join()


def frostline(endpoint: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    return python("-m", "frostline", *arguments, env=environment, cwd=home)


def test_of_weights_on_the_hub_only_the_headers_are_fetched(
    served: tuple[str, list[tuple[str, int]]], model: Path, tmp_path: Path
) -> None:
    endpoint, sent = served
    home = tmp_path / "home"
    home.mkdir()
    done = frostline(endpoint, home, "inspect", "org/tiny", "--names")
    assert (done.returncode, done.stderr) == (0, "")
    assert "bert.encoder.layer.1.output.dense.weight True" in done.stdout.splitlines()
    size = (model / "model.safetensors").stat().st_size
    fetched = sum(count for name, count in sent if name == "model.safetensors")
    assert 0 < fetched < size / 2
