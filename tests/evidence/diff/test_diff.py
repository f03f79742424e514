"""Diff: what became of each tensor, in every form of checkpoint."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch

import frostline as fl
from frostline.checkpoints import tensor_files as stored
from frostline.checkpoints.delta import compare as comparing
from frostline.errors import ModelError, SelectorError
from tests.checkpoints.folders import FORMS, Tensors, altered, save_classifier, tensors_of, write
from tests.thinning import slow
from tests.zoo.build import build

if TYPE_CHECKING:
    from pathlib import Path

    from frostline.evidence.diff.diff import Diff
    from frostline.evidence.diff.tensor_diff import TensorDiff

WORDS = "bert.embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("diff") / "base")


@pytest.fixture
def tensors(base: Path) -> Tensors:
    return tensors_of(base)


def head_moved(tensors: Tensors) -> Tensors:
    return altered(tensors, lambda name, tensor: tensor + 0.5 if name.startswith("classifier.") else tensor)


def row(found: Diff, name: str) -> TensorDiff:
    (only,) = (tensor for tensor in found.tensors if tensor.name == name)
    return only


def verdicts(found: Diff) -> dict[str, str]:
    return {unit.name: unit.verdict for unit in found.units}


def test_a_checkpoint_and_itself(base: Path) -> None:
    found = fl.diff(base, base)
    assert found.verdict == "41 tensors: all 41 identical."
    assert verdicts(found) == dict.fromkeys(("embeddings", "layer 0", "layer 1", "pooler", "head"), "identical")
    assert found.model_class == "BertForSequenceClassification"
    assert {tensor.change for tensor in found.tensors if tensor.change != comparing.Change()} == set()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("base_form", ["single", "sharded", "pickle"])
def test_the_form_does_not_matter(base: Path, tensors: Tensors, tmp_path: Path, form: str, base_form: str) -> None:
    first = write(tmp_path / "first", tensors, base, base_form)
    second = write(tmp_path / "second", head_moved(tensors), base, form)
    found = fl.diff(first, second)
    assert found.verdict == "41 tensors: 39 identical, 2 changed."
    assert verdicts(found)["head"] == "changed"
    assert row(found, "classifier.bias").change == row(fl.diff(base, second), "classifier.bias").change


@pytest.mark.parametrize("piece", [1 << 20, 7])
def test_figures_of_a_change(
    base: Path, tensors: Tensors, tmp_path: Path, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "PIECE", piece)
    monkeypatch.setattr(comparing, "PIECE", piece)
    generator = torch.Generator().manual_seed(1)
    moved = altered(tensors, lambda name, tensor: tensor + 0.1 * torch.randn(tensor.shape, generator=generator))
    found = fl.diff(base, write(tmp_path / "tuned", moved, base))
    one, other = tensors[WORDS].double().flatten(), moved[WORDS].double().flatten()
    change = row(found, WORDS).change
    assert change is not None
    assert change.max_abs == float((other - one).abs().max())
    assert change.relative_l2 == pytest.approx(float((other - one).norm() / one.norm()), rel=1e-12)
    assert change.cosine == pytest.approx(float(torch.cosine_similarity(one, other, dim=0)), rel=1e-12)
    values = row(found, WORDS).to_dict()
    assert (values["max_abs"], values["cosine"]) == (change.max_abs, change.cosine)


def test_one_bit(base: Path, tensors: Tensors, tmp_path: Path) -> None:
    tensors[WORDS].view(torch.int32)[-1, -1] ^= 1
    found = fl.diff(base, write(tmp_path / "tuned", tensors, base))
    assert [tensor.name for tensor in found.tensors if tensor.verdict != "identical"] == [WORDS]
    assert verdicts(found)["embeddings"] == "partly changed"


def test_figures_that_are_none_and_no_numbers(base: Path, tensors: Tensors, tmp_path: Path) -> None:
    name = "classifier.bias"
    zeros = write(tmp_path / "zeros", tensors | {name: torch.zeros(2)}, base)
    minus = row(fl.diff(zeros, write(tmp_path / "minus", tensors | {name: -torch.zeros(2)}, base)), name)
    assert minus.verdict == "changed"  # the bits differ, the numbers do not
    assert minus.change is not None
    assert (minus.change.max_abs, minus.change.relative_l2, minus.change.cosine) == (0.0, None, None)
    lost = row(fl.diff(base, write(tmp_path / "nan", tensors | {name: torch.full((2,), math.nan)}, base)), name)
    assert lost.change is not None
    assert math.isnan(lost.change.max_abs)
    again = fl.diff(tmp_path / "nan", tmp_path / "nan")
    assert row(again, name).verdict == "identical"


class TestCast:
    def test_narrower(self, base: Path, tensors: Tensors, tmp_path: Path) -> None:
        half = write(tmp_path / "half", altered(tensors, lambda _, tensor: tensor.bfloat16()), base)
        found = fl.diff(base, half)
        assert {tensor.verdict for tensor in found.tensors} == {"cast"}
        assert row(found, WORDS).note == "float32 to bfloat16"
        change = row(found, WORDS).change
        assert change is not None
        assert 0 < change.max_abs < 1e-3

    def test_wider(self, base: Path, tensors: Tensors, tmp_path: Path) -> None:
        half = write(tmp_path / "half", altered(tensors, lambda _, tensor: tensor.bfloat16()), base)
        wide = write(tmp_path / "wide", altered(tensors, lambda _, tensor: tensor.bfloat16().float()), base)
        found = fl.diff(half, wide)
        assert {tensor.verdict for tensor in found.tensors} == {"cast"}
        assert {tensor.change.max_abs for tensor in found.tensors if tensor.change} == {0.0}

    def test_the_direction_matters(self, base: Path, tensors: Tensors, tmp_path: Path) -> None:
        half = write(tmp_path / "half", altered(tensors, lambda _, tensor: tensor.bfloat16()), base)
        back = fl.diff(half, base)  # casting what was rounded does not bring back what was lost
        assert row(back, WORDS).verdict == "changed"

    def test_a_cast_and_a_change(self, base: Path, tensors: Tensors, tmp_path: Path) -> None:
        moved = altered(head_moved(tensors), lambda _, tensor: tensor.half())
        found = fl.diff(base, write(tmp_path / "moved", moved, base))
        assert (verdicts(found)["head"], verdicts(found)["pooler"]) == ("changed", "cast")


class TestReshaped:
    def test_more_embeddings(self, base: Path, tensors: Tensors, tmp_path: Path) -> None:
        longer = torch.cat([tensors[WORDS], torch.ones(3, 16)])
        found = row(fl.diff(base, write(tmp_path / "tuned", tensors | {WORDS: longer}, base)), WORDS)
        assert (found.verdict, found.rows, found.common) == ("reshaped", 50, "identical")
        assert found.note == "[50, 16] to [53, 16], the 50 common rows identical"

    def test_fewer_embeddings_that_moved(self, base: Path, tensors: Tensors, tmp_path: Path) -> None:
        shorter = tensors[WORDS][:40] + 1
        found = row(fl.diff(base, write(tmp_path / "tuned", tensors | {WORDS: shorter}, base)), WORDS)
        assert (found.verdict, found.rows, found.common) == ("reshaped", 40, "changed")
        assert found.change is not None
        assert found.change.max_abs == pytest.approx(1)

    def test_nothing_to_compare(self, base: Path, tensors: Tensors, tmp_path: Path) -> None:
        other = tensors | {WORDS: torch.ones(50, 8), "classifier.bias": torch.ones(())}
        found = fl.diff(base, write(tmp_path / "tuned", other, base))
        for name in (WORDS, "classifier.bias"):
            assert (row(found, name).verdict, row(found, name).rows, row(found, name).change) == (
                "reshaped",
                None,
                None,
            )


class TestNames:
    def backbone(self, tensors: Tensors) -> Tensors:
        return {name.removeprefix("bert."): tensor for name, tensor in tensors.items() if name.startswith("bert.")}

    def test_a_base_without_head_and_prefix(self, base: Path, tensors: Tensors, tmp_path: Path) -> None:
        found = fl.diff(write(tmp_path / "base", self.backbone(tensors), base), base)
        assert found.verdict == "41 tensors: 39 identical, 2 extra; names have gained 'bert.'."
        assert row(found, WORDS).renamed
        assert row(found, WORDS).base_name == WORDS.removeprefix("bert.")
        assert verdicts(found) == dict.fromkeys(("embeddings", "layer 0", "layer 1", "pooler"), "identical") | {
            "head": "extra"
        }

    def test_the_other_way_round(self, base: Path, tensors: Tensors, tmp_path: Path) -> None:
        found = fl.diff(base, write(tmp_path / "tuned", self.backbone(tensors), base))
        assert found.verdict == "41 tensors: 39 identical, 2 missing; names have lost 'bert.'."
        assert verdicts(found)["layer 1"] == "identical"
        assert row(found, "classifier.bias").base_name == "classifier.bias"

    def test_old_names(self, base: Path, tensors: Tensors, tmp_path: Path) -> None:
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in tensors.items()
        }
        found = fl.diff(write(tmp_path / "old", old, base), base)
        assert found.verdict == "41 tensors: all 41 identical."
        assert sum(tensor.renamed for tensor in found.tensors) == 10

    def test_what_the_model_has_no_place_for(self, base: Path, tensors: Tensors, tmp_path: Path) -> None:
        first = write(tmp_path / "base", tensors | {"cls.predictions.bias": torch.ones(50)}, base)
        found = fl.diff(first, base)
        assert row(found, "cls.predictions.bias").verdict == "missing"
        assert found.units[-1].name == "unplaced"
        assert found.units[-1].verdict == "missing"

    def test_further_names_of_a_tensor(self, base: Path, tensors: Tensors, tmp_path: Path) -> None:
        tied = tensors | {"twin": tensors[WORDS]}
        one = write(tmp_path / "tied", tied, base, "pickle")
        assert fl.diff(base, one).verdict == "41 tensors: all 41 identical."
        assert fl.diff(one, base).verdict == "41 tensors: all 41 identical."
        assert fl.diff(one, one).verdict == "41 tensors: all 41 identical."

    def test_no_classifier(self, base: Path, tmp_path: Path) -> None:
        other = write(tmp_path / "other", {"w": torch.ones(2)}, base)
        config = json.loads((other / "config.json").read_text(encoding="utf-8"))
        (other / "config.json").write_text(json.dumps({"model_type": "vit"}), encoding="utf-8")
        found = fl.diff(other, other)
        assert (found.model_class, verdicts(found)) == (None, {"unplaced": "identical"})
        assert "has no sequence classifier" in found.note
        assert config["model_type"] == "bert"
        with pytest.raises(ModelError, match="no sequence classifier"):
            fl.diff(other, other, expect_frozen="backbone")


class TestExpectations:
    def test_all_is_as_expected(self, base: Path, tensors: Tensors, tmp_path: Path) -> None:
        tuned = write(tmp_path / "tuned", head_moved(tensors), base)
        found = fl.diff(base, tuned, expect_frozen="backbone", expect_moved="head")
        assert found.ok
        assert found.violations == ()

    def test_each_violation_is_named(self, base: Path, tensors: Tensors, tmp_path: Path) -> None:
        tuned = write(tmp_path / "tuned", head_moved(tensors), base)
        found = fl.diff(base, tuned, expect_frozen="classifier.bias, embeddings", expect_moved="pooler, ~bias")
        assert [str(violation) for violation in found.violations] == [
            "classifier.bias was expected frozen: changed",
            "bert.pooler.dense.weight was expected to move: identical",
        ]
        assert "Violation: classifier.bias was expected frozen" in str(found)

    def test_a_head_that_the_base_does_not_have(self, base: Path, tensors: Tensors, tmp_path: Path) -> None:
        headless = {name: tensor for name, tensor in tensors.items() if name.startswith("bert.")}
        first = write(tmp_path / "base", headless, base)
        assert fl.diff(first, base, expect_moved="head").ok
        assert [v.found for v in fl.diff(first, base, expect_frozen="head").violations] == ["extra", "extra"]

    def test_neither_has_it(self, base: Path, tensors: Tensors, tmp_path: Path) -> None:
        headless = {name: tensor for name, tensor in tensors.items() if name.startswith("bert.")}
        first = write(tmp_path / "base", headless, base)
        found = fl.diff(first, first, expect_moved="head", expect_frozen="classifier.bias")
        assert [violation.found for violation in found.violations] == ["absent"] * 3

    def test_a_cast(self, base: Path, tensors: Tensors, tmp_path: Path) -> None:
        half = write(tmp_path / "half", altered(tensors, lambda _, tensor: tensor.half()), base)
        assert len(fl.diff(base, half, expect_frozen="head").violations) == 2
        assert fl.diff(base, half, expect_frozen="head", allow_cast=True).ok
        assert len(fl.diff(base, half, expect_moved="head").violations) == 2

    def test_a_selector_is_read_before_the_weights(self, base: Path, tensors: Tensors, tmp_path: Path) -> None:
        broken = write(tmp_path / "broken", tensors, base)
        (broken / "model.safetensors").write_bytes(b"")
        with pytest.raises(SelectorError, match="matches nothing"):
            fl.diff(base, broken, expect_frozen="layers[7]")


def test_as_values_and_text(base: Path, tensors: Tensors, tmp_path: Path) -> None:
    found = fl.diff(base, write(tmp_path / "tuned", head_moved(tensors), base), expect_frozen="classifier.bias")
    values = json.loads(json.dumps(found.to_dict()))
    assert (values["ok"], values["verdict"]) == (False, found.verdict)
    assert values["violations"] == [{"name": "classifier.bias", "expected": "frozen", "found": "changed"}]
    assert values["units"][-1]["counts"] == {"changed": 2}
    assert values["tensors"][-1]["unit"] == "head"
    assert str(found).splitlines()[:2] == ["41 tensors: 39 identical, 2 changed.", "head        changed (2)"]


_MEASURE = r"""
import re, sys
import torch, transformers.modeling_utils
import frostline as fl
def peak():  # of this process; getrusage would count the memory of the one that started it
    return int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
fl.diff(sys.argv[1], sys.argv[1])
before = peak()
found = fl.diff(sys.argv[2], sys.argv[3])
fl.fingerprint(sys.argv[3])
assert [tensor.verdict for tensor in found.tensors] == ["changed"], found
print((peak() - before) // 1024)
"""


@pytest.mark.parametrize("form", ["single", *slow("pickle")])
def test_memory_does_not_grow_with_the_tensors(base: Path, tmp_path: Path, form: str) -> None:
    one = write(tmp_path / "one", {"w": torch.zeros(48, 1 << 20)}, base, form)
    other = write(tmp_path / "other", {"w": torch.ones(48, 1 << 20)}, base, form)
    command: list[Any] = [sys.executable, "-c", _MEASURE, base, one, other]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 120, done.stdout  # MB, where each tensor has 201


class TestBuffersOfFrozenModules:
    """What routes tokens to experts is balanced by a buffer, which moves in training mode, frozen or not."""

    BIAS = "model.layers.1.mlp.gate.e_score_correction_bias"

    @pytest.fixture
    def both(self, tmp_path: Path) -> tuple[Path, Path]:
        model = build("deepseek_v3").model
        model.save_pretrained(tmp_path / "base")
        model.get_buffer(self.BIAS).add_(1)
        model.save_pretrained(tmp_path / "tuned")
        return tmp_path / "base", tmp_path / "tuned"

    @pytest.mark.parametrize("selector", ["backbone", "layers[1]", "model.layers.1.mlp.gate.weight"])
    def test_they_have_to_stay(self, both: tuple[Path, Path], selector: str) -> None:
        found = fl.diff(*both, expect_frozen=selector)
        assert [(each.name, each.found) for each in found.violations] == [(self.BIAS, "changed")]

    def test_where_the_module_is_free_in_part_they_may_move(self, both: tuple[Path, Path]) -> None:
        assert fl.diff(*both, expect_frozen="embeddings, layers[1], ~model.layers.1.mlp.gate.weight").ok

    def test_a_buffer_that_one_of_them_does_not_save(self, both: tuple[Path, Path], tmp_path: Path) -> None:
        tensors = {name: tensor for name, tensor in tensors_of(both[0]).items() if name != self.BIAS}
        assert fl.diff(both[0], write(tmp_path / "without", tensors, both[0]), expect_frozen="backbone").ok


def test_a_frozen_expert_that_is_missing(tmp_path: Path) -> None:
    build("mixtral").model.save_pretrained(tmp_path / "base")
    tensors = tensors_of(tmp_path / "base")
    name = next(name for name in tensors if name.endswith("layers.0.block_sparse_moe.experts.3.w2.weight"))
    del tensors[name]
    found = fl.diff(tmp_path / "base", write(tmp_path / "less", tensors, tmp_path / "base"), expect_frozen="backbone")
    assert [(each.name, each.found) for each in found.violations] == [
        ("model.layers.0.mlp.experts.down_proj", "missing")
    ]
    assert not fl.diff(tmp_path / "base", tmp_path / "less", expect_moved="model.layers.0.mlp.experts.down_proj").ok


def test_how_far_it_came(base: Path) -> None:
    seen: list[tuple[int, int]] = []
    fl.diff(base, base, report=lambda done, total: seen.append((done, total)))
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(base).values())
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_values_of_a_pickle_stay_as_they_are_read(base: Path, tensors: Tensors, tmp_path: Path) -> None:
    """A tensor in fp64 that is not stored row by row is held in memory; comparing must not write into it."""
    turned = {
        name: tensor.double().t().contiguous().t() if tensor.ndim > 1 else tensor for name, tensor in tensors.items()
    }
    second = write(tmp_path / "turned", turned, base, "pickle")
    tensor = stored.Checkpoint.open(second).tensors[WORDS]
    before = tensor.digest()
    one = stored.Checkpoint.open(base).tensors[WORDS]
    assert comparing.liken(one, tensor, one.elements)[0] == "cast"
    assert tensor.digest() == before
