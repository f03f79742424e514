"""Estimates of whole plans, from a configuration and a table."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import frostline as fl
from frostline.anatomy.origin import origin_of
from frostline.checkpoints.classifier import load_classifier
from frostline.errors import FrostlineError, PlanError, SettingsError
from frostline.runs.adapters import adapt
from frostline.runs.calibration import measured_speeds
from frostline.runs.row_lengths import batches_of, drawn_lengths, typical_batch
from frostline.runs.thin_model import NotMeasurable
from frostline.runs.train_settings import TrainSettings
from tests.models import Plain, tiny
from tests.training import tiny as folders

FIGURES: dict[str, Any] = {"rows": 1000, "tokens": 20, "flops": 1e12, "bandwidth": 1e11}
LLAMA_70B = {
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


def test_a_model_that_does_not_fit_takes_seconds(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_70B))
    began = time.perf_counter()
    found = fl.estimate(
        tmp_path, train_only="layers[-2:], norm, head", rows=10_000, tokens=300, epochs=3, dtype="bf16", device="h100"
    )
    assert time.perf_counter() - began < 60
    assert found.plan.memory.weights == pytest.approx(4 * 69.5e9, rel=0.001)  # in fp32, as train loads it
    assert found.everything.times.total > 5 * found.seconds
    assert found.plan.choice is not None
    assert found.plan.choice.break_even == pytest.approx(1, abs=0.1)
    assert any(
        remark.startswith("It does not fit: ") and remark.endswith("h100 has 80 GB.") for remark in found.remarks
    )


def test_a_frozen_top_is_said_to_save_little() -> None:
    found = fl.estimate(tiny("bert"), train_only="embeddings, layers[0]", epochs=3, **FIGURES)
    said = " ".join(found.remarks)
    assert "Freezing layer 1 to head above embeddings, which trains, makes nothing that the store could keep" in said
    assert "the backward pass still crosses what is frozen there" in said
    assert "so there is nothing to store." in said
    beneath = fl.estimate(tiny("bert"), train_only="layers[1], pooler, head", epochs=3, **FIGURES)
    assert "crosses" not in " ".join(beneath.remarks)
    assert beneath.seconds < found.seconds


def test_nothing_frozen_saves_nothing() -> None:
    found = fl.estimate(tiny("bert"), epochs=3, **FIGURES)
    assert found.plan == found.everything
    assert found.remarks[0] == "Nothing is frozen, so nothing is saved."


def test_a_model_is_taken_as_it_is_and_left_as_it_was() -> None:
    model = tiny("bert")
    model.get_submodule("bert.embeddings").requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    found = fl.estimate(model, epochs=3, **FIGURES)
    assert found.freezes == "embeddings"
    fl.estimate(model, fl.Plan(freeze="backbone"), epochs=3, **FIGURES)
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert "train" not in vars(model.get_submodule("bert"))


def test_frozen_modules_that_follow_train_are_not_stored() -> None:
    found = fl.estimate(tiny("bert"), freeze="backbone", frozen_mode="train", epochs=3, **FIGURES)
    assert found.plan.choice is None
    assert any("cannot be stored" in remark for remark in found.remarks)


def test_a_store_that_is_switched_off_has_no_break_even() -> None:
    found = fl.estimate(tiny("bert"), freeze="backbone", store="off", epochs=3, **FIGURES)
    assert "Activations are not kept: switched off." in found.remarks
    assert found.to_dict()["plan"]["break_even"] is None


def test_rows_of_a_table_are_counted(tmp_path: Path) -> None:
    model = folders.save_bert(tmp_path / "model")
    table = folders.rows(24)
    folders.write_csv(tmp_path / "train.csv", table)
    found = fl.estimate(model, train_only="head", data=str(tmp_path / "train.csv"), flops=1e12, bandwidth=1e11)
    tokenizer = folders.wordpiece()
    lengths = [len(tokenizer(row["text"])["input_ids"]) for row in table]
    assert (found.rows.rows, found.rows.tokens) == (24, sum(lengths))
    assert found.rows.squares == sum(length**2 for length in lengths)
    assert found.epochs == 20  # as train chooses for so few rows
    assert found.assumptions[0].startswith("training reaches")


def test_layers_are_measured_on_this_machine(tmp_path: Path) -> None:
    model = folders.save_bert(tmp_path / "model")
    before = torch.get_rng_state()
    found = fl.estimate(model, train_only="layers[-1:], pooler, head", rows=64, tokens=9, epochs=2)
    assert torch.equal(torch.get_rng_state(), before)
    speeds = found.speeds
    assert speeds.source == "measured"
    assert "3 layers of its width, measured on this machine" in str(found)
    assert min(speeds.overhead, speeds.head, speeds.fill_layer, speeds.parameter, speeds.padded_layer) > 0
    assert speeds.padded_layer > speeds.padded_forward
    assert speeds.one_position
    assert (speeds.head_row_bytes, speeds.head_token_bytes, speeds.token_bytes) == (64, 0, 64)
    assert found.plan.times.total < 60


def test_lora_is_estimated_as_it_is_trained(tmp_path: Path) -> None:
    model = folders.save_bert(tmp_path / "model")
    found = fl.estimate(model, lora="layers[-1:]", rank=4, epochs=3, **FIGURES)
    loaded, _ = load_classifier(str(model))
    settings = TrainSettings(model=str(model), data="", lora="layers[-1:]", rank=4)
    adapted, _ = adapt(loaded, origin_of(loaded), settings)
    given = fl.estimate(adapted, epochs=3, **FIGURES)
    assert (found.trains, found.units, found.plan) == (given.trains, given.units, given.plan)
    with pytest.raises(SettingsError, match=r"--rank 4 is about LoRA and DoRA\."):
        fl.estimate(model, rank=4, epochs=3, **FIGURES)
    with pytest.raises(SettingsError, match="counts with the adapters that it has"):
        fl.estimate(adapted, lora="layers", epochs=3, **FIGURES)


def test_what_cannot_be_run_is_reckoned_from_matrix_products() -> None:
    with pytest.raises(NotMeasurable):
        measured_speeds(type(tiny("bart")), tiny("bart").config, middle=5, typical=[5, 6])
    found = fl.estimate(Plain(), rows=10, tokens=5, epochs=1)
    assert found.speeds.source == "products"
    assert "no layer of it was run here, as it is no model of transformers" in found.assumptions


def test_the_result_as_plain_values() -> None:
    found = fl.estimate(tiny("bert"), freeze="backbone", epochs=3, **FIGURES)
    values = json.loads(json.dumps(found.to_dict()))
    assert values["plan"]["bytes"]["peak"] == found.peak_bytes
    assert values["plan"]["seconds"]["total"] == found.seconds
    assert [unit["name"] for unit in values["units"]] == ["embeddings", "layer 0", "layer 1", "pooler", "head"]
    assert {"flops", "bytes", "saved", "width", "trained_share"} <= values["units"][1].keys()
    assert values["speeds"]["layer"] == found.speeds.layer
    text = str(found)
    assert text.splitlines()[0].startswith("BertForSequenceClassification: ")
    assert found.line().startswith("Estimate: ")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": 10}, "How much it trains on is not said.\nGive --data FILE, or --rows N --mean-tokens T."),
        ({"rows": 0, "tokens": 5}, "--rows is 0; it must be at least 1"),
        ({"rows": 5, "tokens": 0.5}, "--mean-tokens is 0.5; it must be at least 1"),
        ({"rows": 5, "tokens": 5, "data": "x.csv"}, "--data says how many rows and tokens there are."),
        ({"rows": 5, "tokens": 5, "flops": 1e12}, "--flops and --bandwidth go together."),
        ({"rows": 5, "tokens": 5, "flops": -1.0, "bandwidth": 1.0}, "--flops is -1.0; it must be above 0"),
        ({"rows": 5, "tokens": 5, "device": "h100", "flops": 1e12, "bandwidth": 1e9}, "--device h100 and --flops 1e"),
        ({"rows": 5, "tokens": 5, "device": "abacus"}, "device is 'abacus', of which no figures are known"),
        ({"rows": 5, "tokens": 5, "dtype": "fp16"}, "dtype is 'fp16'; an estimate is for 'fp32' or 'bf16'."),
        ({"rows": 5, "tokens": 5, "epochs": 0}, "--epochs is 0; it must be above 0"),
        ({"rows": 5, "tokens": 5, "store": "tape"}, "store='tape' is none of"),
        ({"data": "x.csv"}, "data needs a model by its name"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        fl.estimate(tiny("bert"), **settings)
    assert message in str(refused.value)


def test_a_plan_that_trains_nothing_or_contradicts_itself_is_refused() -> None:
    with pytest.raises(PlanError, match="Everything is frozen"):
        fl.estimate(tiny("bert"), freeze="all", **FIGURES)
    with pytest.raises(FrostlineError):
        fl.estimate(tiny("bert"), freeze="head", train_only="head", **FIGURES)


def test_drawn_lengths_keep_their_mean_and_their_limit() -> None:
    lengths = drawn_lengths(5000, 30, 128)
    assert lengths.mean() == pytest.approx(30, rel=0.02)
    assert 1 <= lengths.min() < 20
    assert 60 < lengths.max() <= 128
    assert drawn_lengths(10, 900, 128).tolist() == [128] * 10


def test_batches_are_counted_exactly() -> None:
    rows = batches_of(np.array([3, 3, 3, 3, 3]), 2)
    assert (rows.steps, rows.tokens, rows.padded, rows.largest, rows.squares) == (3, 15, 15, 6, 45)
    varied = batches_of(np.array([1, 9, 5, 2, 7, 7]), 6)
    assert (varied.steps, varied.padded, varied.largest, varied.counts) == (1, 54, 31, 1)


def test_a_typical_batch_is_near_the_mean() -> None:
    lengths = drawn_lengths(1000, 40, None)
    assert sum(typical_batch(lengths, 16)) == pytest.approx(16 * lengths.mean(), rel=0.05)
    assert len(typical_batch(np.array([4, 5]), 16)) == 2
