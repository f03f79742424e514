from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from transformers import AutoModelForSequenceClassification

from frostline.demo import corpus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from tests.cli.conftest import Done


def test_the_four_steps(frostline: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo as it is, on the real model, with a small part of its text."""
    whole = corpus.build_corpus()
    one = {row.label: row for row in whole.train}.values()  # every label is trained
    other = {row.label: row for row in whole.test}.values()
    part = replace(whole, train=(*whole.train[:10], *one), test=tuple(other))
    monkeypatch.setattr(corpus, "build_corpus", lambda: part)
    done = frostline("demo", "--out", tmp_path / "demo")
    assert done.status == 0, done
    steps = ["== 1. See ==", "== 2. Control ==", "== 3. Train ==", "== 4. Prove =="]
    assert sorted(steps, key=done.out.index) == steps
    see, control, train, prove = done.out.split("== 1. See ==")[1].split("\n== ")
    assert "Nothing is frozen: fine-tuning updates all 22," in see
    assert "»encoder.layer.1« matches nothing" in " ".join(control.replace("'", "").split())
    assert f"{len(part.train):,} rows" in train
    assert "Proof: 71 frozen tensors bit-identical; 36 of 36 others moved" in prove
    *_, last, _, _, page = (line.split() for line in done.out.splitlines())
    assert page == [str(tmp_path / "demo" / "page.html")]
    assert "71 frozen tensors bit-identical" in (tmp_path / "demo" / "page.html").read_text(encoding="utf-8")
    assert last[1:] == ["train", "--data", "train.csv", "--eval", "test.csv", *last[6:]]
    assert last[-2:] == ["--out", "my-model"]
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "demo" / "model")
    assert list(loaded.config.id2label.values()) == sorted(whole.labels)


def test_what_is_no_demo_is_not_touched(refused: Callable[..., str], tmp_path: Path) -> None:
    """Neither a folder with something else in it, nor one that happens to look like a demo's data."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("mine", encoding="utf-8")
    assert "holds something else than an earlier demo.\nName a new folder with --out." in refused(
        "demo", "--out", tmp_path
    )
    (tmp_path / "model").mkdir()
    assert "holds something else" in refused("demo", "--out", tmp_path)
    assert "holds something else" in refused("demo", "--out", tmp_path / "data" / "train.csv")
