"""Types whose loader renames, merges or splits weights: diff, deltas and proofs know their stored tensors."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification
from transformers.conversion_mapping import get_model_conversion_mapping

import frostline as fl
from frostline.anatomy.origin import match
from frostline.checkpoints.conversions import Places
from frostline.checkpoints.delta.delta import rebuild_delta
from frostline.checkpoints.reading import read_headers
from frostline.checkpoints.source import Source
from frostline.checkpoints.tensor_files import Checkpoint
from tests.thinning import one_in
from tests.zoo.build import CANNOT_BUILD, build, model_types

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

# Types with a conversion mapping of their own; the test below says where this list is no longer right.
CONVERTED = (
    *("axk1", "axk2", "deepseek_v2", "deepseek_v3", "esm", "gemma3", "gte", "hunyuan_v1_moe", "jamba"),
    *("jina_embeddings_v3", "minimax", "mixtral", "modernvbert", "nomic_bert", "phimoe", "qwen2_moe", "qwen3_5"),
    *("qwen3_5_text", "qwen3_moe", "qwen3_next", "t5gemma2", "ultrabert", "ultravbert"),
)


def save(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def flip(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[name].view(torch.uint8).view(-1)[0] ^= 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def load(folder: Path) -> PreTrainedModel:
    return cast("PreTrainedModel", cast("Any", AutoModelForSequenceClassification).from_pretrained(folder))


def a_backbone_tensor(folder: Path, model: PreTrainedModel) -> tuple[str, str]:
    """A stored tensor of a frozen layer, converted where there is one; and the parameter that it is for."""
    stored = Checkpoint.open(folder)
    places, anatomy = Places(model, stored.tensors), fl.ModelMap.of(model)
    parameters = {name for name, _ in model.named_parameters()}
    parts = [part for part in places.parts if part.shapes.keys() & parameters]
    parts = [
        part for part in parts if all(anatomy.unit_of[name].name.startswith("layer ") for name in part.shapes)
    ] or [part for part in parts if all(anatomy.unit_of[name].name != "head" for name in part.shapes)]
    part = next((part for part in parts if part.conversion is not None), parts[0])
    return list(part.sources)[-1], next(iter(part.shapes))


def test_those_with_conversions_are_named() -> None:
    types = [model_type for model_type in model_types() if model_type not in CANNOT_BUILD]
    models = {model_type: build(model_type).model for model_type in types}
    assert {name for name in types if get_model_conversion_mapping(models[name], add_legacy=False)} == set(CONVERTED)


@pytest.mark.parametrize("model_type", one_in(5, (name for name in model_types() if name not in CANNOT_BUILD)))
def test_places_are_those_of_the_loader(model_type: str, tmp_path: Path) -> None:
    model = build(model_type).model
    folder = save(model, tmp_path)
    stored = Checkpoint.open(folder)
    places = Places(model, stored.tensors)
    origin = match(model, read_headers(Source(str(folder), folder)), str(folder))
    assert {name for name in stored.tensors if places.part(name) is None} == set(origin.unused) == set()
    made = {name: shape for part in places.parts for name, shape in part.shapes.items()}
    firsts = {name: group[0] for group in fl.ModelMap.of(model).tied for name in group}
    expected = {name for name, _ in model.named_parameters()} - origin.new
    assert {firsts.get(name, name) for name in made} - {name for name, _ in model.named_buffers()} == expected
    assert made == {name: places.shapes[name] for name in made}


@pytest.mark.parametrize("model_type", one_in(5, (name for name in CONVERTED if name in model_types())))
def test_from_the_base_to_the_proof(model_type: str, tmp_path: Path) -> None:
    base = save(build(model_type).model, tmp_path / "base")
    model = load(base)
    frozen = fl.freeze(model, "backbone")
    before = fl.fingerprint(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.5)
    proof = fl.verify(before, model)
    tuned = save(model, tmp_path / "tuned")
    assert frozen.plan is not None
    (tuned / "proof.json").write_text(json.dumps(proof.to_dict()), encoding="utf-8")

    found = fl.diff(base, tuned, expect_frozen="backbone", expect_moved="head")
    assert found.violations == ()
    assert {row.unit for row in found.tensors if row.verdict != "identical"} == {"head"}
    assert not [row for row in found.tensors if row.unit == "unplaced"]

    saved = fl.save_delta(base, tuned, tmp_path / "delta")
    assert set(saved.stored) == {row.name for row in found.tensors if row.unit == "head"}
    assert fl.fingerprint(fl.load_delta(tmp_path / "delta")) == fl.fingerprint(load(tuned))
    rebuild_delta(tmp_path / "delta", tmp_path / "again")
    assert fl.fingerprint(tmp_path / "again") == fl.fingerprint(tuned)

    checked = fl.verify_run(tuned, base)
    assert checked.ok, checked.disagreements
    parameters = {name for name, _ in model.named_parameters()}
    assert not parameters & checked.unverified.keys()
    assert checked.from_base >= len(parameters)

    stored, moved = a_backbone_tensor(base, model)
    tampered = shutil.copytree(base, tmp_path / "tampered")
    flip(tampered, stored)
    assert [(each.file, each.name) for each in fl.verify_run(tuned, tampered).disagreements] == [("base", moved)]
    assert [(each.name, each.found) for each in fl.diff(tampered, tuned, expect_frozen="backbone").violations] == [
        (moved, "changed")
    ]
    assert fl.diff(tampered, tuned, expect_moved=moved).ok


@pytest.mark.parametrize("model_type", one_in(5, (name for name in CONVERTED if name in model_types())))
def test_two_forms_of_one_checkpoint(model_type: str, tmp_path: Path) -> None:
    """One is stored under the names of the model in memory, the other as save_pretrained stores it."""
    model = build(model_type).model
    stored = save(model, tmp_path / "stored")
    own = tmp_path / "own"
    own.mkdir()
    (own / "config.json").write_bytes((stored / "config.json").read_bytes())
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(tensors, own / "model.safetensors", {"format": "pt"})
    assert fl.fingerprint(load(own)).digests == fl.fingerprint(load(stored)).digests
    for base, tuned in ((own, stored), (stored, own)):
        found = fl.diff(base, tuned, expect_frozen="all")
        assert found.violations == ()
        tied = {name for group in fl.ModelMap.of(model).tied for name in group}
        assert {row.verdict for row in found.tensors if row.parameter not in tied} == {"identical"}
        fl.save_delta(base, tuned, tmp_path / f"delta of {tuned.name}")
        rebuild_delta(tmp_path / f"delta of {tuned.name}", tmp_path / f"again {tuned.name}")
        assert fl.fingerprint(tmp_path / f"again {tuned.name}") == fl.fingerprint(tuned)
    name, parameter = a_backbone_tensor(stored, model)
    flip(stored, name)
    assert [each.name for each in fl.diff(own, stored, expect_frozen="all").violations] == [parameter]
