"""Python in processes of their own, forked from one that has loaded what takes seconds to import.

Of what is loaded there, nothing reads the environment of the hub's client: that is read in each process anew.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import runpy
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.context import ForkServerProcess

_LOADED = (
    *("torch", "torch._dynamo", "torch.distributed.tensor", "torch.distributed.fsdp", "sympy", "scipy.optimize"),
    *("scipy.sparse", "pandas", "pyarrow.dataset", "pyarrow.parquet", "sklearn.metrics", "safetensors.torch"),
    *("jinja2", "rich.console", "typer", "tokenizers", "fsspec", "dill", "psutil", "regex", "tqdm.auto"),
)
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(list(_LOADED))
_SECONDS = 120


class Started:
    """``python WORDS`` as it runs.

    Args:
        *words: ``-c`` and code, or ``-m`` and a module, and what follows.
        env: The environment; that of the tests unless given.
        cwd: Where it runs; here unless given.
        streams: Descriptors that stand for its own, by number; unless they are given, nothing is to be read, and what
            it writes comes here.
        file_bytes: How much a file of it may have.
    """

    def __init__(
        self,
        *words: Any,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        streams: Mapping[int, int] | None = None,
        file_bytes: int | None = None,
    ) -> None:
        given = {number: Connection(os.dup(stream)) for number, stream in (streams or {}).items()}
        own: dict[int, Connection] = {}
        self._files: dict[int, TextIO] = {}
        for number in {1, 2} - given.keys():
            reader, own[number] = _CONTEXT.Pipe(duplex=False)
            self._files[number] = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")
            reader.close()
        place = str(cwd or Path.cwd())
        args = (list(map(str, words)), dict(env or os.environ), place, given | own, file_bytes)
        self._process: ForkServerProcess = _CONTEXT.Process(target=_run, args=args)
        self._process.start()
        for stream in (given | own).values():
            stream.close()

    @property
    def stdout(self) -> Any:
        """What it writes, as it comes."""
        return self._files[1]

    @property
    def stderr(self) -> Any:
        """What it says, as it comes."""
        return self._files[2]

    @property
    def is_running(self) -> bool:
        """Whether it runs yet."""
        return self._process.is_alive()

    def interrupt(self) -> None:
        """Do what Ctrl-C does."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGINT)

    def done(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end; what was not read of its output comes with it. What takes too long is killed."""
        said = {1: "", 2: ""}
        late = threading.Timer(_SECONDS, self._process.kill)
        late.start()
        try:
            with ThreadPoolExecutor() as readers:  # either may be more than a pipe holds
                said |= dict(zip(self._files, readers.map(_rest, self._files.values()), strict=True))
            self._process.join()
        finally:
            late.cancel()
        assert self._process.exitcode is not None
        return subprocess.CompletedProcess((), self._process.exitcode, said[1], said[2])


def python(*words: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``python WORDS`` to its end; options are those of `Started`."""
    return Started(*words, **options).done()


def _rest(file: TextIO) -> str:
    with file:
        return file.read()


def _run(words: list[str], env: dict[str, str], cwd: str, streams: dict[int, Connection], most: int | None) -> None:
    """Be the Python that was asked for."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for number, stream in streams.items():
        os.dup2(stream.fileno(), number)
        stream.close()
    if 0 not in streams:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    if most is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    (option, code), sys.argv = words[:2], words[1:]
    if option == "-m":
        runpy.run_module(code, run_name="__main__", alter_sys=True)
    else:
        exec(code, {"__name__": "__main__"})  # noqa: S102 - it is ours
