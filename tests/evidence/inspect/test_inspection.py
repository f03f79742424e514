"""Inspection: what people read, and that its figures are right."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel

import frostline as fl
from frostline.evidence.inspect.inspection import COLUMNS, Inspection, row_cells
from tests.models import Plain, names_of, tiny, tiny_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PARAMETERS = 109_483_778  # of BERT's base size with two labels


@pytest.fixture(scope="module")
def base_size() -> Inspection:
    with torch.device("meta"):
        return fl.inspect(BertForSequenceClassification(BertConfig()))


def _untouched() -> nn.Module:
    return tiny("bert")


def _frozen_by_frostline() -> nn.Module:
    model = tiny("bert", num_hidden_layers=4)
    fl.freeze(model, "embeddings, layers[:3], layers[3], ~bert.encoder.layer.3.output")
    return model


def _frozen_by_hand() -> nn.Module:
    model = tiny("bert", num_hidden_layers=4)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(("bert.embeddings", "bert.encoder.layer.1.", "bert.pooler")))
    return model


def _two_stacks() -> nn.Module:
    model = tiny("t5")
    fl.freeze(model, "embeddings, encoder.layers", frozen_mode="train")
    return model


def _plain() -> nn.Module:
    model = Plain()
    fl.freeze(model, "layers[:2]")
    return model


def _biases_only() -> nn.Module:
    model = tiny("bert")
    fl.train_only(model, "bias")
    return model


def _everything() -> nn.Module:
    model = tiny("llama")
    fl.freeze(model, "all")
    return model


def _no_stack() -> nn.Module:
    return nn.Sequential(nn.Bilinear(2, 2, 2), nn.BatchNorm1d(2))


class TestGoldenTexts:
    @pytest.mark.parametrize(
        "make",
        [
            _untouched,
            _frozen_by_frostline,
            _frozen_by_hand,
            _two_stacks,
            _plain,
            _biases_only,
            _everything,
            _no_stack,
        ],
    )
    def test_as_text(self, make: Callable[[], nn.Module], golden: Callable[[str, str], None]) -> None:
        golden(make.__name__.strip("_"), str(fl.inspect(make())))

    def test_the_base_size(self, base_size: Inspection, golden: Callable[[str, str], None]) -> None:
        golden("base_size", str(base_size))

    @pytest.mark.parametrize("kind", ["backbone", "language_model", "other_labels"])
    def test_from_a_checkpoint(
        self,
        kind: str,
        golden: Callable[[str, str], None],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        config = tiny_config("bert")
        made: Any = {"backbone": BertModel, "language_model": BertForMaskedLM}.get(kind, BertForSequenceClassification)
        made(config).save_pretrained(tmp_path / "checkpoint")
        if kind == "other_labels":
            file = tmp_path / "checkpoint" / "config.json"
            file.write_text(BertConfig.from_pretrained(file.parent, num_labels=5).to_json_string(), encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        golden(f"checkpoint_{kind}", str(fl.inspect("checkpoint")))


class TestBaseSize:
    def test_the_verdict(self, base_size: Inspection) -> None:
        assert base_size.verdict == "Nothing is frozen: fine-tuning updates all 109,483,778 parameters."
        assert (base_size.parameters, base_size.trainable_parameters) == (PARAMETERS, PARAMETERS)

    def test_the_names(self, base_size: Inspection) -> None:
        with torch.device("meta"):
            model = BertForSequenceClassification(BertConfig())
        assert len(base_size.names) == 201
        assert base_size.names[0] == ("bert.embeddings.word_embeddings.weight", True)
        assert base_size.names[-1] == ("classifier.bias", True)
        assert list(base_size.names) == [(name, p.requires_grad) for name, p in model.named_parameters()]

    def test_equal_layers_are_folded(self, base_size: Inspection) -> None:
        assert [(row.name, row.units) for row in base_size.rows] == [
            ("head", 1),
            ("pooler", 1),
            ("layers 0-11", 12),
            ("embeddings", 1),
        ]


MODELS = [
    _untouched,
    _frozen_by_frostline,
    _frozen_by_hand,
    _two_stacks,
    _plain,
    _biases_only,
    _everything,
    _no_stack,
    lambda: tiny("xlm"),
    lambda: tiny("funnel"),
    lambda: tiny("gpt2"),
    lambda: tiny("bert").bfloat16(),
    lambda: nn.ParameterList([torch.zeros(3), torch.zeros(())]),
    nn.ReLU,
]


@pytest.mark.parametrize("make", MODELS)
class TestFigures:
    def test_columns_add_up_to_totals(self, make: Callable[[], nn.Module]) -> None:
        model = make()
        inspection = fl.inspect(model)
        rows = inspection.rows
        parameters, buffers = list(model.parameters()), list(model.buffers())
        assert inspection.parameters == sum(p.numel() for p in parameters)
        assert inspection.trainable_parameters == sum(p.numel() for p in parameters if p.requires_grad)
        assert sum(row.units * row.parameters for row in rows) == inspection.parameters
        assert sum(row.units * row.trainable_parameters for row in rows) == inspection.trainable_parameters
        assert sum(row.units * row.buffers for row in rows) == len(buffers)
        assert sum(row.units * row.buffer_elements for row in rows) == sum(b.numel() for b in buffers)
        size = sum(t.numel() * t.element_size() for t in (*parameters, *buffers))
        assert sum(row.units * row.bytes for row in rows) == size

    def test_rows_are_the_units_from_head_to_embeddings(self, make: Callable[[], nn.Module]) -> None:
        model = make()
        rows, units = fl.inspect(model).rows, fl.ModelMap.of(model).units
        assert sum(row.units for row in rows) == len(units)
        assert [row.name for row in rows if row.units == 1] == [
            unit.name for unit in reversed(units) if unit.name in {row.name for row in rows}
        ]

    def test_names_and_values(self, make: Callable[[], nn.Module]) -> None:
        model = make()
        inspection = fl.inspect(model)
        assert dict(inspection.names) == {name: p.requires_grad for name, p in model.named_parameters()}
        values = inspection.to_dict()
        assert values["names"] == dict(inspection.names)
        assert values["parameters"] == inspection.parameters
        assert [row["name"] for row in values["rows"]] == [row.name for row in inspection.rows]

    def test_no_line_ends_in_a_blank(self, make: Callable[[], nn.Module]) -> None:
        lines = str(fl.inspect(make())).splitlines()
        assert lines == [line.rstrip() for line in lines]
        assert lines[2].split()[0] == COLUMNS[0]


def test_layers_that_differ_are_not_folded() -> None:
    names = {row.name: row.trainable for row in fl.inspect(_frozen_by_hand()).rows}
    assert names == {
        "head": "yes",
        "pooler": "no",
        "layers 2-3": "yes",
        "layer 1": "no",
        "layer 0": "yes",
        "embeddings": "no",
    }


def test_a_unit_that_trains_in_part() -> None:
    rows = {row.name: row for row in fl.inspect(_biases_only()).rows}
    assert {row.trainable for row in rows.values()} == {"partly"}
    assert rows["head"].trainable_parameters == 2
    assert rows["head"].parameters == 34


@pytest.mark.parametrize(
    ("make", "verdict"),
    [
        (_untouched, "Nothing is frozen: fine-tuning updates all 6,258 parameters."),
        (_everything, "Everything is frozen: fine-tuning would update none of the "),
        (
            _frozen_by_hand,
            "6,706 of 10,706 parameters (63 %): layers[0], layers[2:], head. Frozen: embeddings, layers[1], pooler.",
        ),
        (_plain, "Partly frozen: fine-tuning updates 86 of 142 parameters (61 %): "),
        (nn.ReLU, "Nothing is frozen: fine-tuning updates all 0 parameters."),
    ],
)
def test_the_verdict(make: Callable[[], nn.Module], verdict: str) -> None:
    assert verdict in fl.inspect(make()).verdict


@pytest.mark.parametrize(
    ("sizes", "percent"),
    [
        ((1, 1), "(50 %)"),
        ((21, 79), "(21 %)"),
        ((7, 93), "(7 %)"),
        ((14, 986), "(1.4 %)"),
        ((1, 999), "(0.1 %)"),
        ((14, 999_986), "(0.0014 %)"),
        ((9_951, 49), "(99.51 %)"),
    ],
)
def test_percentages(sizes: tuple[int, int], percent: str) -> None:
    trains, frozen = sizes
    model = nn.ParameterList([torch.zeros(trains), torch.zeros(frozen)])
    model[1].requires_grad_(False)
    assert percent in fl.inspect(model).verdict


def test_many_terms_are_cut() -> None:
    model = tiny("bert")
    for place, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(place % 3 == 0)
    trains, _, frozen = fl.inspect(model).verdict.partition(". Frozen: ")
    for part in (trains, frozen):
        assert part.count(", ") == 4  # five terms
        assert re.search(r" and \d+ more\.?$", part)


class TestFrozenMode:
    def test_per_unit(self) -> None:
        model = tiny("bert", num_hidden_layers=3)
        fl.freeze(model, "embeddings, layers[0]")
        model.get_submodule("bert.pooler").requires_grad_(False)  # by hand: it follows train()
        modes = {row.name: row.frozen_mode for row in fl.inspect(model).rows}
        assert modes == {"head": "-", "pooler": "train", "layers 1-2": "-", "layer 0": "eval", "embeddings": "eval"}

    def test_with_train(self) -> None:
        rows = {row.name: row.frozen_mode for row in fl.inspect(_two_stacks()).rows}
        assert rows["embeddings"] == rows["encoder layer 0"] == "train"
        assert rows["head"] == "-"

    def test_mixed(self) -> None:
        model = tiny("bert")
        fl.freeze(model, "bert.encoder.layer.0.attention")
        model.get_submodule("bert.encoder.layer.0.intermediate").requires_grad_(False)
        assert {row.name: row.frozen_mode for row in fl.inspect(model).rows}["layer 0"] == "mixed"

    def test_only_single_parameters_are_frozen(self) -> None:
        model = tiny("bert")
        fl.freeze(model, "bias")
        assert {row.frozen_mode for row in fl.inspect(model).rows} == {"-"}


class TestTiedWeights:
    def test_they_count_once(self) -> None:
        model = tiny("t5")
        inspection = fl.inspect(model)
        rows = {row.name: row for row in inspection.rows}
        assert rows["embeddings"].parameters == 50 * 16
        assert rows["embeddings"].shared
        assert "embeddings (shared)" in str(inspection)
        (group,) = inspection.tied
        assert f"One tensor with 3 names: {', '.join(group)}" in inspection.notes
        assert inspection.to_dict()["tied"] == [list(group)]

    def test_a_head_tied_to_the_embeddings(self) -> None:
        model = BertForMaskedLM(tiny_config("bert"))
        inspection = fl.inspect(model)
        assert inspection.parameters == sum(p.numel() for p in model.parameters())
        rows = {row.name: row for row in inspection.rows}
        assert rows["head"].parameters == 16 * 16 + 16 + 2 * 16 + 50
        assert [name for name, row in rows.items() if row.shared] == ["head", "embeddings"]


def test_figures_of_folded_layers_are_those_of_one() -> None:
    row = next(row for row in fl.inspect(_plain()).rows if row.name == "layers 0-1")
    assert row_cells(row) == ("layers 0-1", "2 × 28", "no", "unknown", "eval", "2 × 152 B", "2 × 3 (9 values)")


def test_buffers_are_shown() -> None:
    row = next(row for row in fl.inspect(_plain()).rows if row.name == "layer 2")
    assert (row.buffers, row.buffer_elements) == (3, 9)
    assert row_cells(row)[-1] == "3 (9 values)"
    assert row.bytes == (4 * 4 + 3 * 4) * 4 + 8 * 4 + 8


def test_frozen_by_hand_is_understood() -> None:
    model = tiny("bert")
    for parameter in model.get_submodule("bert").parameters():
        parameter.requires_grad = False
    inspection = fl.inspect(model)
    assert "head. Frozen: backbone." in inspection.verdict
    assert {name for name, trains in inspection.names if trains} == names_of(model, "classifier.")
    assert {row.frozen_mode for row in inspection.rows} == {"-", "train"}


def test_the_model_is_left_as_it_is() -> None:
    model = _frozen_by_hand().train()
    before = fl.fingerprint(model), [(p.requires_grad, id(p)) for p in model.parameters()]
    fl.inspect(model)
    assert (fl.fingerprint(model), [(p.requires_grad, id(p)) for p in model.parameters()]) == before
    assert all(module.training for module in model.modules())
