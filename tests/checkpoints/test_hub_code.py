"""Model code in a checkpoint: never run to inspect it, unless that is asked for by name."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from frostline.errors import ModelError
from frostline.evidence.inspect.inspection import open_skeleton
from tests.models import tiny
from tests.processes import python
from tests.thinning import slow

if TYPE_CHECKING:
    from pathlib import Path

_CODE = """
from pathlib import Path
Path({marker!r}).touch()
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

class OwnConfig(BertConfig):
    model_type = "own"

class OwnModel(BertForSequenceClassification):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.extra = nn.Linear(3, 3)
"""


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that the model's code makes as soon as it runs."""
    return tmp_path / "marker"


@pytest.fixture
def model(tmp_path: Path, marker: Path) -> Path:
    """A model of a type that transformers does not know."""
    folder = tmp_path / "model"
    tiny("bert").save_pretrained(folder)
    (folder / "own.py").write_text(_CODE.format(marker=str(marker)), encoding="utf-8")
    configure(folder, model_type="own")
    return folder


def configure(folder: Path, **changes: str) -> None:
    file = folder / "config.json"
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.OwnModel"}
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"auto_map": own} | changes))


def inspected(model: Path, home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "frostline", "inspect", model, *options, env=os.environ | {"HF_HOME": str(home)})


@pytest.mark.parametrize("options", [(), *slow((("--from-config",),)), *slow((("--names", "--freeze", "backbone"),))])
def test_it_is_refused_and_the_option_named(
    model: Path, marker: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = inspected(model, tmp_path / "home", *options)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "brings model code of its own, which is never run unasked" in done.stderr
    assert "--trust-remote-code" in done.stderr
    assert not marker.exists()


def test_a_known_type_is_read_without_the_code_beside_it(model: Path, marker: Path) -> None:
    configure(model, model_type="bert")
    skeleton, origin = open_skeleton(str(model))
    assert type(skeleton).__name__ == "BertForSequenceClassification"
    assert origin.new == frozenset()
    assert not marker.exists()


def test_weights_do_not_bring_code_either(model: Path, marker: Path) -> None:
    configure(model, model_type="nosuch")
    with pytest.raises(ModelError, match="never run unasked"):
        open_skeleton(str(model))
    assert not marker.exists()


def test_asked_for_by_name_it_is_run_and_read(model: Path, marker: Path, tmp_path: Path) -> None:
    done = inspected(model, tmp_path / "home", "--trust-remote-code", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert marker.exists()
    values = json.loads(done.stdout)
    assert values["model_class"] == "OwnModel"
    assert values["new"] == ["extra.bias", "extra.weight"]
    assert [row["name"] for row in values["rows"]] == ["head", "pooler", "layers 0-1", "embeddings"]
