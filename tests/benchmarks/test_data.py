from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.data import Split, load_data
from frostline.demo.corpus import Corpus, Row

if TYPE_CHECKING:
    from pathlib import Path

SPLIT = Split(("a b", "c", "d e", "f"), (0, 1, 0, 1))


def test_reviews_are_read_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text('text,label\n"well , fine",positive\nbad,negative\n', encoding="utf-8")
    (tmp_path / "test.csv").write_text("text,label\ngood,positive\n", encoding="utf-8")
    data = load_data(tmp_path)
    assert data.source == "MR movie reviews"
    assert (data.train, data.test) == (Split(("well , fine", "bad"), (1, 0)), Split(("good",), (1,)))
    assert data.classes == 2


def test_without_them_the_demo_has_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tuple(Row(f"text {at}", "files" if at < 50 else "numbers", "") for at in range(100))
    corpus = Corpus(rows, rows[:60], ("files", "numbers"), "3.11.7", "")
    monkeypatch.setattr("benchmarks.data.build_corpus", lambda: corpus)
    data = load_data(tmp_path)
    assert data.source == "the demo's texts (Python 3.11.7)"
    assert set(data.train.first(20).labels) == {0, 1}, "the order is mixed"
    assert data.test.labels == (0,) * 50 + (1,) * 10
    assert data == load_data(tmp_path), "and always the same"


def test_the_first_rows_and_one_of_each_label() -> None:
    assert SPLIT.first(3) == Split(("a b", "c", "d e"), (0, 1, 0))
    chosen = SPLIT.one_of_each()
    assert set(zip(chosen.texts, chosen.labels, strict=True)) == {("a b", 0), ("c", 1)}


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        (1, SPLIT),
        (2, Split(("a b", "d e", "c f"), (0, 0, 1))),
        (3, Split(("a b d e",), (0,))),
        (5, Split((), ())),
    ],
)
def test_texts_of_one_label_are_joined(words: int, joined: Split) -> None:
    assert SPLIT.joined(words) == joined
