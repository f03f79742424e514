"""What every command that prints a table shows on terminals of 60, 80 and 120 columns."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

import frostline as fl
from frostline.cli import demo
from frostline.cli.render import print_proof
from frostline.demo.model import find_demo_model
from frostline.store.store import Store
from tests.checkpoints.folders import save_classifier, tensors_of, write
from tests.processes import Started, python
from tests.store.building import STREAMS, key, put

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Done

FREEZE = "embeddings, layers[:4]"
WIDTHS = (60, 80, 120)


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", str(request.param))
    return int(request.param)


@pytest.fixture
def shows(golden: Callable[[str, str], None], width: int) -> Callable[[str, str], None]:
    """Compares with the golden text of this width; what is printed must fit, apart from paths."""

    def _shows(name: str, text: str) -> None:
        text = text.strip("\n")
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width
        golden(f"{name}_{width}", text)

    return _shows


def test_inspect(frostline: Callable[..., Done], shows: Callable[[str, str], None]) -> None:
    shows("inspect", frostline("inspect", find_demo_model(), "--freeze", FREEZE).out)


def test_probe(frostline: Callable[..., Done], table: Path, shows: Callable[[str, str], None]) -> None:
    done = frostline("probe", find_demo_model(), "--data", table, "--freeze", FREEZE, "--batch-size", 2)
    assert done.status == 0, done.err
    measured = re.sub(r"\d\.\de[-+]\d\d", "0.0e-00", done.out)
    shows("probe", re.sub(r"loss \d\.\d{4}", "loss 0.0000", measured))


def test_probe_of_parameters(frostline: Callable[..., Done], bert: Path, table: Path, width: int) -> None:
    done = frostline("probe", bert, "--data", table, "--train-only", "head", "--parameters", "--batch-size", 2)
    names = [name for name, _ in BertForSequenceClassification.from_pretrained(bert).named_parameters()]
    printed = [line.split()[0] for line in done.out.splitlines() if line.startswith(("bert.", "classifier."))]
    assert printed == names
    assert done.out.count("moved: yes" if width == 60 else " from 0\n" if width == 120 else " yes\n") >= 1


def test_check(frostline: Callable[..., Done], shows: Callable[[str, str], None]) -> None:
    shows("check", frostline("check", find_demo_model(), "--freeze", "all").out)


@pytest.mark.parametrize("what", ["units", "tensors"])
def test_diff(frostline: Callable[..., Done], tmp_path: Path, shows: Callable[[str, str], None], what: str) -> None:
    base = save_classifier(tmp_path / "base")
    tensors = tensors_of(base) | {"classifier.bias": torch.full((2,), 0.25)}
    del tensors["bert.encoder.layer.1.attention.output.LayerNorm.weight"]
    tuned = write(tmp_path / "tuned", tensors, base)
    text = frostline("diff", base, tuned, *(["--tensors"] if what == "tensors" else [])).out
    of_layers = re.compile(r"^bert\.encoder\.layer.*?(?=^bert\.pooler)", re.DOTALL | re.MULTILINE)
    shows(f"diff_{what}", of_layers.sub("", text))


def test_store_list(
    frostline: Callable[..., Done],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shows: Callable[[str, str], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("stores")
    with Store.on_disk(folder, key(), STREAMS, about={"model": "dbmdz/bert-base-german-cased"}) as store:
        put(store, [1, 2, 3])
        store.complete()
    text = frostline("store", "list", "--store-dir", folder).out
    text = text.replace(key().digest()[:12], "0123456789ab")
    shows("store_list", re.sub(r"\d+ seconds", "0 seconds", text))


def test_train(
    frostline: Callable[..., Done], bert: Path, table: Path, tmp_path: Path, shows: Callable[[str, str], None]
) -> None:
    words = ("--model", bert, "--data", table, "--eval", table, "--out", tmp_path / "out", "--epochs", 1)
    done = frostline("train", *words, "--freeze", "embeddings, layers[0]")
    assert done.status == 0, done.err
    shows("train", done.out[: done.out.index("Estimate: ")])  # what follows is measured


def test_the_demo(capsys: pytest.CaptureFixture[str], shows: Callable[[str, str], None]) -> None:
    torch.manual_seed(0)
    sizes: Any = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
    model = BertForSequenceClassification(BertConfig(**sizes, num_hidden_layers=6))
    fl.freeze(model, FREEZE)
    before = fl.fingerprint(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1 if parameter.requires_grad else 0)
    demo._see(find_demo_model())
    demo._control(find_demo_model())
    print_proof(fl.verify(before, model))
    text = capsys.readouterr().out
    shows("demo", text[: text.rindex("\nProof: ")])  # that line names seconds


def test_predict(frostline: Callable[..., Done], trained: Path, width: int) -> None:
    text = "good film " * 20
    lines = frostline("predict", trained, text, text).out.splitlines()
    assert len(lines) > 2
    assert max(map(len, lines)) <= width
    assert [line[:12].count(" 0.") for line in lines] == [int(not line.startswith("    ")) for line in lines]
    assert " ".join(" ".join(lines).split()).count(text.strip()) == 2


def test_the_width_is_that_of_the_terminal(bert: Path) -> None:
    """A real terminal of 50 columns; in a pipe there is no width."""
    words = ("-m", "frostline", "inspect", bert, "--freeze", "embeddings")
    clean = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = python(*words, env=clean)
    assert done.returncode == 0
    piped = done.stdout
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 50, 0, 0))
    running = Started(*words, env=clean, streams={1: theirs})
    os.close(theirs)
    drawn = _all(ours)
    assert running.done().returncode == 0
    assert "head\n  parameters: 34; trains: yes; origin: new\n" in drawn
    assert max(map(len, drawn.splitlines())) <= 50
    assert "frozen mode" in piped.splitlines()[2]
    assert len(piped.splitlines()[0]) > 80


def _all(terminal: Any) -> str:
    """All that is written to a terminal until it closes."""
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # how Linux says that the other end is closed
            part = b""
        if not part:
            os.close(terminal)
            return b"".join(parts).decode().replace("\r\n", "\n")
        parts.append(part)
