"""Tensors where they lie: the same names, values and digests in every form of checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file, save_model

import frostline as fl
from frostline.checkpoints import tensor_files as stored
from frostline.checkpoints.tensor_files import Checkpoint
from frostline.errors import ModelError
from frostline.evidence.proof.fingerprint import tensor_digest
from tests.checkpoints.folders import FORMS, Tensors, save_classifier, tensors_of, write
from tests.models import tiny

if TYPE_CHECKING:
    from pathlib import Path

DTYPES = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.float8_e4m3fn,
    torch.int8,
    torch.int64,
    torch.uint8,
    torch.bool,
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_classifier(tmp_path / "base")


@pytest.fixture
def many() -> Tensors:
    generator = torch.Generator().manual_seed(0)
    made = {str(dtype): torch.randint(0, 2, (3, 5), generator=generator).to(dtype) for dtype in DTYPES}
    return made | {"none": torch.zeros(0, 4), "scalar": torch.tensor(1.5)}


@pytest.mark.parametrize("form", FORMS)
def test_digests_are_those_of_the_loaded_tensors(base: Path, many: Tensors, tmp_path: Path, form: str) -> None:
    if form == "old pickle":
        del many["torch.float8_e4m3fn"]  # which that format does not have
    folder = write(tmp_path / "other", many, base, form)
    assert fl.fingerprint(folder).digests == {name: tensor_digest(tensor) for name, tensor in many.items()}
    assert fl.fingerprint(str(folder)).whole == fl.fingerprint(folder).whole


@pytest.mark.parametrize("form", FORMS)
def test_values_come_in_pieces(
    base: Path, many: Tensors, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "PIECE", 4)
    if form == "old pickle":
        del many["torch.float8_e4m3fn"]
    checkpoint = Checkpoint.open(write(tmp_path / "other", many, base, form))
    for name, tensor in many.items():
        pieces = list(checkpoint.tensors[name].pieces())
        assert all(len(piece) <= 4 for piece in pieces)
        read = torch.cat(pieces) if pieces else torch.empty(0)
        assert read.tolist() == tensor.reshape(-1).tolist()


def test_the_digests_of_the_folder_are_those_of_the_model(base: Path) -> None:
    model = tiny("bert")
    taken, loaded = fl.fingerprint(base), fl.fingerprint(model)
    assert taken.digests.items() <= loaded.digests.items()
    assert set(taken.digests) == {name for name, _ in model.named_parameters()}


def test_a_cast_before_the_digest(base: Path) -> None:
    tensor = Checkpoint.open(base).tensors["classifier.weight"]
    values = tensors_of(base)["classifier.weight"]
    assert tensor.cast(torch.bfloat16).digest() == tensor_digest(values.bfloat16())
    assert tensor.cast(torch.float32).digest() == tensor.digest() == tensor_digest(values)


def test_views_in_a_pickle(base: Path, tmp_path: Path) -> None:
    weight = torch.arange(12.0).reshape(3, 4)
    views = {"first": weight, "again": weight, "turned": weight.t(), "tail": weight[1:], "copy": weight.clone()}
    folder = write(tmp_path / "views", {}, base)
    (folder / "model.safetensors").unlink()
    for new in (True, False):
        torch.save(views, folder / "pytorch_model.bin", _use_new_zipfile_serialization=new)
        taken = fl.fingerprint(folder)
        assert taken.aliases == {"again": "first"}
        assert taken.digests == {name: tensor_digest(view) for name, view in views.items() if name != "again"}


def test_complex_numbers(base: Path, tmp_path: Path) -> None:
    tensor = torch.tensor([1 + 2j, 3 - 4j])
    folder = write(tmp_path / "complex", {"w": tensor.conj()}, base, "pickle")
    assert fl.fingerprint(folder).digests == {"w": tensor_digest(tensor.conj())}


def test_equal_values_alone_are_no_alias(base: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "twins", {"a": torch.ones(3), "b": torch.ones(3)}, base, "pickle")
    assert fl.fingerprint(folder).aliases == {}


def test_names_that_safetensors_notes(base: Path, tmp_path: Path) -> None:
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    folder = write(tmp_path / "tied", {}, base)
    save_model(model, str(folder / "model.safetensors"))
    taken = fl.fingerprint(folder)
    assert taken == fl.fingerprint(model)
    assert taken.aliases == {"b.weight": "a.weight"}


def test_notes_of_another_kind_are_no_names(base: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "noted", {}, base)
    save_file({"a": torch.ones(1)}, folder / "model.safetensors", metadata={"format": "pt", "author": "me", "b": "c"})
    assert set(Checkpoint.open(folder).tensors) == {"a"}


def test_a_file_that_shrinks_meanwhile(base: Path) -> None:
    checkpoint = Checkpoint.open(base)
    file = base / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="became shorter"):
        checkpoint.digests()


def test_a_damaged_file_is_refused_as_everywhere(base: Path) -> None:
    file = base / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="are damaged"):
        fl.fingerprint(base)


def test_a_name_that_leads_nowhere() -> None:
    with pytest.raises(ModelError, match="no folder here"):
        fl.fingerprint("nobody/nothing-of-this-name")
