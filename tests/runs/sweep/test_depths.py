from __future__ import annotations

import pytest

import frostline as fl
from frostline.anatomy.origin import Origin
from frostline.errors import SettingsError
from frostline.runs.sweep.depths import depths_of
from tests.models import Plain, tiny

NEW_HEAD = Origin("somewhere", new=frozenset({"classifier.weight", "classifier.bias"}))


def freezes(kind: str, origin: Origin = NEW_HEAD, asked: list[int] | None = None, *, bands: bool = False) -> list[str]:
    found = depths_of(fl.ModelMap.of(tiny(kind, num_hidden_layers=3)), origin, asked, bands=bands)
    return [depth.freeze for depth in found]


def test_from_nothing_to_the_head_alone() -> None:
    assert freezes("bert") == ["", "embeddings", "embeddings, layers[0]", "embeddings, layers[:2]", "backbone"]


def test_those_asked_for_beside_nothing() -> None:
    assert freezes("bert", asked=[2, 0]) == ["", "embeddings", "embeddings, layers[:2]"]


def test_what_is_new_trains_at_every_depth() -> None:
    new = Origin("somewhere", new=NEW_HEAD.new | {"bert.pooler.dense.weight", "bert.pooler.dense.bias"})
    assert freezes("bert", new)[-1] == "embeddings, layers[:]"


def test_bands_train_alone_with_the_head() -> None:
    model = tiny("bert", num_hidden_layers=3)
    found = depths_of(fl.ModelMap.of(model), NEW_HEAD, [], bands=True)
    assert [depth.layers for depth in found] == [3, 1, 1, 1]
    for depth, layer in zip(found[1:], range(3), strict=True):
        frozen = set(fl.select(model, depth.freeze).names)
        trains = {name for name, _ in model.named_parameters() if name not in frozen}
        assert {name for name in trains if not name.startswith("classifier")} == {
            name for name, _ in model.named_parameters() if f"layer.{layer}." in name
        }


def test_more_layers_than_there_are() -> None:
    with pytest.raises(SettingsError, match=r"--depths names 4; BertForSequenceClassification has 3 layers"):
        freezes("bert", asked=[4])


def test_no_layers() -> None:
    plain = Plain(layers=0)
    with pytest.raises(SettingsError, match="No layers were found in Plain"):
        depths_of(fl.ModelMap.of(plain), NEW_HEAD)
