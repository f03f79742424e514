"""What all tests share: one thread each, no progress bars, a home folder of their own, and golden texts."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests import outside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Read by torch and by the hub's client as they are imported, which is later than this file; so tests of the
# light parts need not load them. Each worker of xdist has one thread.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

# Nor do tests find or leave anything in the caches of whoever runs them.
_HOME = tempfile.mkdtemp(prefix="frostline-tests-home-")
os.environ["HOME"] = _HOME
for _name in outside.CACHES:
    os.environ.pop(_name, None)
outside.watch()

settings.register_profile("frostline", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("frostline")


# A shell that starts the tests in the background, or beyond its own end, has signals ignored, in them and in the
# processes that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_configure(config: pytest.Config) -> None:
    """Let pass what older versions of other libraries do, and newer ones do not."""
    if int(version("datasets").partition(".")[0]) < 5:  # it leaves a file of separated values open
        for kind in ("pytest.PytestUnraisableExceptionWarning", "ResourceWarning"):
            config.addinivalue_line("filterwarnings", f"ignore::{kind}")
    config.addinivalue_line("filterwarnings", "ignore:.*torch.jit.script:DeprecationWarning")  # by some models
    config.addinivalue_line("filterwarnings", "ignore:mtime may not be reliable:UserWarning")  # of checkpoints


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def _libraries_are_no_garbage() -> None:
    """Each end of a training collects garbage; what is loaded by then is not looked through again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _nothing_is_written_outside(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test writes outside the temporary folder, but for golden texts that are to be rewritten."""
    outside.written.clear()
    yield
    if not request.config.getoption("--update-golden"):
        assert outside.written == []


# What `make quick` leaves out: models of every type, whole runs beside transformers.Trainer, commands in processes of
# their own.
_LONG = (
    *("zoo/", "dropin/", "evidence/checks/test_zoo", "evidence/probe/test_probe_zoo", "evidence/diff/test_diff"),
    *("training/test_resume", "training/test_engine_callback", "training/test_ranks", "training/test_first_step"),
    *("training/test_trainer", "training/test_store_session", "training/test_callback", "training/test_drop_in"),
    *("cli/test_train", "cli/test_app", "cli/test_width", "cli/test_escaping", "cli/test_demo", "cli/test_pipe"),
    *(
        "cli/test_verify",
        "checkpoints/test_hub",
        "runs/test_train.py",
        "runs/sweep/test_sweep",
        "anatomy/test_giant",
        "engine/test_engine",
    ),
    *("test_outside", "docs/test_python", "benchmarks/test_child", "training/test_delta_checkpoints"),
    *(
        "training/test_engine_report",
        "cli/test_predict",
        "store/test_damage",
        "training/test_phased",
        "training/test_lightning",
        "training/test_fast",
        "training/test_shared_pass",
        "runs/test_adapters",
        "engine/test_wanted",
        "cli/test_sweep",
        "cli/test_report",
        "cli/test_schedule",
    ),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes long."""
    root = Path(__file__).parent
    for item in items:
        if item.path.relative_to(root).as_posix().startswith(_LONG):
            item.add_marker(pytest.mark.long)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden texts from what the code prints")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with ``golden/NAME.txt`` beside the test; rewrites the file under --update-golden."""
    folder = Path(str(request.path)).parent / "golden"

    def _compare(name: str, text: str) -> None:
        file = folder / f"{name}.txt"
        if request.config.getoption("--update-golden"):
            folder.mkdir(exist_ok=True)
            file.write_text(f"{text}\n", encoding="utf-8")
        assert file.is_file(), f"{file.name} is missing: run pytest with --update-golden and read what it wrote"
        assert f"{text}\n" == file.read_text(encoding="utf-8")

    return _compare
