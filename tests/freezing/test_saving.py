"""The plan beside the weights: written by ``save_pretrained``, applied again by ``freeze(model)``."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import frostline as fl
from frostline.checkpoints.quiet_loading import quiet
from frostline.errors import PlanError
from frostline.freezing.mode import is_pinned
from frostline.plan.plan import PLAN_FILE
from tests.models import Plain, flags, names_of, tiny, trainable

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel


def load(folder: Path) -> PreTrainedModel:
    with quiet():
        return cast("PreTrainedModel", AutoModelForSequenceClassification.from_pretrained(folder))


@pytest.mark.parametrize("frozen_mode", ["eval", "train"])
def test_it_comes_back(tmp_path: Path, frozen_mode: str) -> None:
    model = tiny("bert")
    fl.freeze(model, fl.Plan(train_only="layers[1], head, ~bias", frozen_mode=frozen_mode))  # type: ignore[arg-type]
    model.save_pretrained(tmp_path)

    loaded = load(tmp_path)
    assert trainable(loaded) == names_of(loaded, "")  # the ecosystem knows nothing of plans
    handle = fl.freeze(loaded)

    assert flags(loaded) == flags(model)
    assert handle.plan.frozen_mode == frozen_mode
    assert is_pinned(loaded.get_submodule("bert.embeddings")) is (frozen_mode == "eval")


def test_what_is_written_is_what_is_frozen(tmp_path: Path) -> None:
    model = tiny("bert")
    fl.freeze(model, "embeddings")
    model.get_submodule("bert.encoder.layer.0").requires_grad_(False)  # by hand, later
    model.save_pretrained(tmp_path)
    assert fl.Plan.load(tmp_path).freeze == "embeddings, layers[0]"


def test_saving_again_after_all_is_thawed(tmp_path: Path) -> None:
    model = tiny("bert")
    fl.freeze(model, "backbone")
    model.save_pretrained(tmp_path)
    assert (tmp_path / PLAN_FILE).is_file()
    fl.train_only(model, "all")
    model.save_pretrained(tmp_path)
    assert not (tmp_path / PLAN_FILE).exists()


def test_not_after_restore(tmp_path: Path) -> None:
    model = tiny("bert")
    model.get_submodule("bert.pooler").requires_grad_(False)
    with fl.freeze(model, "backbone"):
        model.save_pretrained(tmp_path / "within")
    model.save_pretrained(tmp_path / "after")
    assert (tmp_path / "within" / PLAN_FILE).is_file()
    assert (tmp_path / "after" / "config.json").is_file()
    assert not (tmp_path / "after" / PLAN_FILE).exists()
    assert "save_pretrained" not in vars(model)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_until_the_last_of_several_is_restored(tmp_path: Path, order: tuple[int, int]) -> None:
    model = tiny("bert")
    handles = [fl.freeze(model, "embeddings"), fl.freeze(model, "layers[0]")]
    handles[order[0]].restore()
    model.save_pretrained(tmp_path)
    assert fl.Plan.load(tmp_path).freeze == ("layers[0]", "embeddings")[order[0]]
    handles[order[1]].restore()
    assert "save_pretrained" not in vars(model)


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    model = tiny("bert")
    fl.freeze(model, "backbone")
    model.save_pretrained(tmp_path, is_main_process=False)
    assert not (tmp_path / PLAN_FILE).exists()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_saves_itself(tmp_path: Path, copied: Any) -> None:
    model = tiny("bert")
    fl.freeze(model, "backbone")
    other = copied(model)
    fl.train_only(model, "all")
    with torch.no_grad():
        other.classifier.bias.fill_(7)
    other.save_pretrained(tmp_path)
    assert fl.Plan.load(tmp_path).freeze == "backbone"
    assert load(tmp_path).get_parameter("classifier.bias").tolist() == [7, 7]


def test_the_weights_are_saved_as_ever(tmp_path: Path) -> None:
    model = tiny("bert")
    model.save_pretrained(tmp_path / "plain")
    fl.freeze(model, "backbone")
    model.save_pretrained(tmp_path / "frozen")
    for file in (tmp_path / "plain").iterdir():
        assert (tmp_path / "frozen" / file.name).read_bytes() == file.read_bytes()
    assert {file.name for file in (tmp_path / "frozen").iterdir()} == {
        PLAN_FILE,
        *(file.name for file in (tmp_path / "plain").iterdir()),
    }


def test_a_folder_without_a_plan(tmp_path: Path) -> None:
    tiny("bert").save_pretrained(tmp_path)
    with pytest.raises(PlanError, match=r"There is no plan at .*plan\.json"):
        fl.freeze(load(tmp_path))


@pytest.mark.parametrize("model", [Plain(), tiny("bert")])
def test_a_model_from_nowhere(model: Any) -> None:
    with pytest.raises(PlanError, match=r"names nothing to freeze.*\n.*freeze\(model, 'backbone'\)"):
        fl.freeze(model)


def test_a_model_of_plain_torch_has_nothing_to_save() -> None:
    model = Plain()
    fl.freeze(model, "embeddings").restore()
    assert not hasattr(model, "save_pretrained")
