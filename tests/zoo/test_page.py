"""The page of architectures in docs/ says what the zoo says today."""

from __future__ import annotations

import pytest

from tests.zoo import page as command
from tests.zoo.build import CANNOT_BUILD, model_types


def test_the_page_is_as_the_zoo_makes_it_today() -> None:
    # The part on the engine is compared row by row in test_engine.py, which makes it anyway.
    written, made = command.parts(command.PAGE.read_text(encoding="utf-8"))[0], command.page()
    stale = [name for name, row in command.rows_of(made).items() if command.rows_of(written).get(name) != row]
    assert stale == [], "run make architectures, and read what changed"
    assert made == written


def test_there_is_a_row_for_every_type() -> None:
    rows, engine, _ = map(command.rows_of, command.parts(command.PAGE.read_text(encoding="utf-8")))
    assert set(engine) == set(model_types()) - set(CANNOT_BUILD)
    assert all(row.count("|") == 5 for row in engine.values())
    assert set(rows) == set(model_types())
    assert all(row.count("|") == 7 for row in rows.values())
    for model_type, reason in CANNOT_BUILD.items():
        assert rows[model_type].startswith(f"| `{model_type}` | not built |")
        assert reason in rows[model_type]


@pytest.mark.parametrize(
    ("model_type", "pooled"),
    [
        ("bert", "first token"),
        ("llama", "last real token"),
        ("bart", "token that ends the text (eos), of the decoder"),
        ("t5", "token that ends the text (eos), of the decoder"),
        ("eurobert", "mean of the real tokens"),
        ("xlnet", "last position, padding or not"),
        ("funnel", "first token, of 3 that the text is shortened to"),
        ("perceiver", "all 8 latents"),
        ("t5gemma", "the position behind the last real token, of the decoder"),
    ],
)
def test_what_is_pooled_is_told_apart(model_type: str, pooled: str) -> None:
    row = command.rows_of(command.parts(command.PAGE.read_text(encoding="utf-8"))[0])[model_type]
    assert row.split(" | ")[4] == pooled


def test_a_stale_page_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["page", "--check"])
    anatomy, engine, tasks = command.parts(command.PAGE.read_text(encoding="utf-8"))
    monkeypatch.setattr(command, "page", lambda: anatomy)
    monkeypatch.setattr(command, "engine_part", lambda: engine)
    monkeypatch.setattr(command, "task_part", lambda: tasks)
    assert command.main() == 0
    monkeypatch.setattr(command, "engine_part", lambda: "another part\n")
    assert command.main() == 1
    assert "make architectures" in capsys.readouterr().err
