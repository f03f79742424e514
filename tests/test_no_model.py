"""What is given for a model or a checkpoint and is none: each public function says so in two lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import frostline as fl
from frostline.errors import ModelError, OutputError
from tests.models import batch, tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CUT = "element 0 of tensors does not require grad and does not have a grad_fn"

MODEL: dict[str, Callable[[Any], Any]] = {
    "Trainer": lambda given: fl.Trainer(given, freeze="embeddings"),
    "ModelMap.of": fl.ModelMap.of,
    "check": fl.check,
    "explain": lambda given: fl.explain(CUT, given),
    "freeze": lambda given: fl.freeze(given, "head"),
    "freeze by the plan beside it": fl.freeze,
    "probe": lambda given: fl.probe(given, {"input_ids": batch()}),
    "select": lambda given: fl.select(given, "head"),
    "selfcheck": lambda given: fl.selfcheck(given, {"input_ids": batch()}),
    "train_only": lambda given: fl.train_only(given, "head"),
    "verify": lambda given: fl.verify(fl.fingerprint(torch.nn.Linear(1, 1)), given),
}

CHECKPOINT: dict[str, Callable[[Any], Any]] = {
    "diff": lambda given: fl.diff(given, given),
    "load_delta": fl.load_delta,
    "save_delta": lambda given: fl.save_delta(given, given, "out"),
    "verify_run": fl.verify_run,
}


@pytest.mark.parametrize("name", MODEL)
def test_a_name_for_a_model(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^The model is 'bert', a str\.\nLoad it first, by from_pretrained\.$"):
        MODEL[name]("bert")
    with pytest.raises(ModelError, match=r"a PosixPath\.\nLoad it first"):
        MODEL[name](tmp_path)


@pytest.mark.parametrize("name", [*MODEL, "fingerprint", "inspect"])
def test_something_else_for_a_model(name: str) -> None:
    function = MODEL.get(name) or getattr(fl, name)
    with pytest.raises(ModelError, match=r"^The model is \{'a': 1\}, a dict\.\nGive a torch\.nn\.Module\.$"):
        function({"a": 1})


@pytest.mark.parametrize("name", CHECKPOINT)
def test_something_else_for_a_checkpoint(name: str) -> None:
    for given in (tiny("bert"), 3, None):
        with pytest.raises(ModelError, match=r"^What was given for a checkpoint is .*\.\nGive a folder, or a hub name"):
            CHECKPOINT[name](given)
    with pytest.raises(ModelError, match=r"^'a\\x00b' is no name: it holds a zero byte\."):
        CHECKPOINT[name]("a\0b")


def test_a_folder_to_write_with_a_zero_byte(tmp_path: Path) -> None:
    tiny("bert").save_pretrained(tmp_path / "base")
    with pytest.raises(OutputError, match=r"a\\x00b' cannot be written: it holds a zero byte\.\nName another place"):
        fl.save_delta(tmp_path / "base", tmp_path / "base", f"{tmp_path}/a\0b")
