"""Deltas: the way there and back bit by bit, their bases and the folders they go to."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification

import frostline as fl
from frostline.base.sealing import file_digest
from frostline.checkpoints.delta.delta import rebuild_delta
from frostline.checkpoints.delta.delta_result import RebuiltDelta, SavedDelta
from frostline.errors import ModelError, OutputError
from tests.checkpoints.deltas import edit, refusal
from tests.checkpoints.folders import FORMS, tensors_of, write
from tests.training import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class TestThereAndBack:
    def test_only_what_changed_is_kept(self, base: Path, tuned: Path, tmp_path: Path) -> None:
        saved = fl.save_delta(base, tuned, tmp_path / "delta")
        assert saved.stored == ("classifier.bias", "classifier.weight")
        assert (saved.from_base, saved.files, saved.left_out) == (39, ("config.json",), ())
        names = {file.name for file in (tmp_path / "delta").iterdir()}
        assert names == {"delta.json", "delta.safetensors", "config.json"}
        assert saved.bytes == sum(file.stat().st_size for file in (tmp_path / "delta").iterdir()) < 3000
        assert str(saved).startswith("2 of 41 tensors and 1 files in ")
        assert saved.to_dict()["from_base"] == 39

    def test_the_folder_comes_back(self, delta: Path, tuned: Path, tmp_path: Path) -> None:
        rebuilt = rebuild_delta(delta, tmp_path / "again")
        assert rebuilt.same_file is True
        assert {file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()} == {
            file.name: file.read_bytes() for file in tuned.iterdir()
        }
        assert "bit-identical" in str(rebuilt)
        assert rebuilt.to_dict()["tensors"] == 41

    def test_the_model_knows_where_it_is_from(self, delta: Path) -> None:
        model = fl.load_delta(delta)
        assert model.name_or_path == model.config._name_or_path == str(delta)
        origins = {row.name: row.origin for row in fl.inspect(model).rows}
        assert set(origins.values()) == {"pretrained"}
        assert {row.origin for row in fl.inspect(delta).rows} == {"pretrained"}

    def test_how_far_it_came(self, base: Path, tuned: Path, tmp_path: Path) -> None:
        seen: list[tuple[int, int]] = []
        fl.save_delta(base, tuned, tmp_path / "delta", report=lambda done, total: seen.append((done, total)))
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(base).values())
        assert seen[-1] == (3 * size, 3 * size)
        seen.clear()
        rebuild_delta(tmp_path / "delta", tmp_path / "again", report=lambda done, total: seen.append((done, total)))
        assert seen[-1][0] == seen[-1][1] > size

    def test_the_model_at_once(self, delta: Path, tuned: Path) -> None:
        model = fl.load_delta(delta)
        expected = AutoModelForSequenceClassification.from_pretrained(tuned)
        assert type(model) is type(expected)
        assert not model.training
        assert fl.fingerprint(model) == fl.fingerprint(expected)
        assert model.config.to_dict().keys() == expected.config.to_dict().keys()

    @pytest.mark.parametrize("form", FORMS)
    def test_every_form(self, base: Path, tuned: Path, tmp_path: Path, form: str) -> None:
        first = write(tmp_path / "first", tensors_of(base), base, form)
        second = write(tmp_path / "second", tensors_of(tuned), tuned, form)
        fl.save_delta(first, second, tmp_path / "delta")
        rebuilt = rebuild_delta(tmp_path / "delta", tmp_path / "again")
        assert rebuilt.same_file is (True if form == "single" else None)
        assert fl.fingerprint(tmp_path / "again").digests == fl.fingerprint(tuned).digests

    def test_a_base_without_prefix_and_head_and_with_old_names(self, base: Path, tuned: Path, tmp_path: Path) -> None:
        bare = {
            name.removeprefix("bert.").replace("LayerNorm.weight", "LayerNorm.gamma"): tensor
            for name, tensor in tensors_of(base).items()
            if name.startswith("bert.")
        }
        first = write(tmp_path / "bare", bare | {"cls.bias": torch.ones(2)}, base)
        saved = fl.save_delta(first, tuned, tmp_path / "delta")
        assert set(saved.stored) == {"classifier.weight", "classifier.bias"}
        rebuild_delta(tmp_path / "delta", tmp_path / "again")
        assert tiny.same_weights(tmp_path / "again", tuned)

    def test_other_dtypes_and_shapes(self, base: Path, tuned: Path, tmp_path: Path) -> None:
        words = "bert.embeddings.word_embeddings.weight"
        tensors = {name: tensor.bfloat16() for name, tensor in tensors_of(tuned).items()}
        tensors[words] = torch.cat([tensors[words], torch.ones(2, 16, dtype=torch.bfloat16)])
        second = write(tmp_path / "second", tensors, tuned)
        config = json.loads((second / "config.json").read_text(encoding="utf-8"))
        (second / "config.json").write_text(json.dumps(config | {"vocab_size": 52, "dtype": "bfloat16"}))
        assert fl.save_delta(base, second, tmp_path / "delta").from_base == 38
        rebuild_delta(tmp_path / "delta", tmp_path / "again")
        assert tiny.same_weights(tmp_path / "again", second)
        assert fl.load_delta(tmp_path / "delta").dtype == torch.bfloat16

    @pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
    def test_a_base_of_half_precision(self, base: Path, tuned: Path, tmp_path: Path, narrow: torch.dtype) -> None:
        halves = {name: tensor.to(narrow) for name, tensor in tensors_of(base).items()}
        first = write(tmp_path / "first", halves, base)
        wide = {name: tensor.float() for name, tensor in halves.items()}
        head = {name: tensor for name, tensor in tensors_of(tuned).items() if name.startswith("classifier.")}
        second = write(tmp_path / "second", wide | head, tuned)
        saved = fl.save_delta(first, second, tmp_path / "delta")
        assert set(saved.stored) == head.keys()
        assert saved.bytes < 6000
        rebuilt = rebuild_delta(tmp_path / "delta", tmp_path / "again")
        assert rebuilt.same_file is True
        assert tiny.same_weights(tmp_path / "again", second)
        model = fl.load_delta(tmp_path / "delta")
        assert model.dtype == torch.float32
        assert fl.fingerprint(model).digests.items() >= fl.fingerprint(second).digests.items()

    def test_weights_that_a_cast_does_not_give(self, base: Path, tuned: Path, tmp_path: Path) -> None:
        halves = {name: tensor.bfloat16() for name, tensor in tensors_of(base).items()}
        saved = fl.save_delta(write(tmp_path / "first", halves, base), tuned, tmp_path / "delta")
        zeros_and_ones = {name for name, tensor in tensors_of(tuned).items() if torch.equal(tensor, tensor.round())}
        assert set(saved.stored) == tensors_of(tuned).keys() - zeros_and_ones
        rebuild_delta(tmp_path / "delta", tmp_path / "again")
        assert tiny.same_weights(tmp_path / "again", tuned)

    def test_a_tokenizer_that_another_release_wrote(self, base: Path, tuned: Path, tmp_path: Path) -> None:
        first = tmp_path / "first"
        shutil.copytree(base, first)
        values = json.loads((first / "tokenizer.json").read_text(encoding="utf-8"))
        values["truncation"] = {"max_length": 20, "strategy": "LongestFirst", "stride": 0}
        (first / "tokenizer.json").write_text(json.dumps(values), encoding="utf-8")
        values["truncation"]["direction"] = "Right"  # what it means, by default
        (tuned / "tokenizer.json").write_text(json.dumps(values, indent=3), encoding="utf-8")
        (tuned / "tokenizer_config.json").write_text(
            json.dumps(json.loads((tuned / "tokenizer_config.json").read_text(encoding="utf-8"))), encoding="utf-8"
        )
        assert fl.save_delta(first, tuned, tmp_path / "delta").files == ("config.json",)
        rebuild_delta(tmp_path / "delta", tmp_path / "again")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            assert (tmp_path / "again" / name).read_bytes() == (first / name).read_bytes()
        (first / "tokenizer.json").write_text(json.dumps(values), encoding="utf-8")
        assert "needs 'tokenizer.json' of its base" in refusal(tmp_path / "delta", tmp_path)

    @pytest.mark.parametrize("change", [{"max_length": 21}, {"direction": "Left"}])
    def test_a_tokenizer_that_says_something_else(
        self, base: Path, tuned: Path, tmp_path: Path, change: dict[str, Any]
    ) -> None:
        values = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
        values["truncation"] = {"direction": "Right", "max_length": 20, "strategy": "LongestFirst", "stride": 0}
        first = tmp_path / "first"
        shutil.copytree(base, first)
        (first / "tokenizer.json").write_text(json.dumps(values), encoding="utf-8")
        values["truncation"] |= change
        (tuned / "tokenizer.json").write_text(json.dumps(values), encoding="utf-8")
        assert fl.save_delta(first, tuned, tmp_path / "delta").files == ("config.json", "tokenizer.json")

    def test_true_is_not_1(self, base: Path, tuned: Path, tmp_path: Path) -> None:
        first = tmp_path / "first"
        shutil.copytree(base, first)
        (first / "extra.json").write_text('{"a": true}', encoding="utf-8")
        (tuned / "extra.json").write_text('{"a": 1}', encoding="utf-8")
        assert "extra.json" in fl.save_delta(first, tuned, tmp_path / "delta").files

    def test_nothing_changed(self, base: Path, tmp_path: Path) -> None:
        assert fl.save_delta(base, base, tmp_path / "delta").stored == ()
        assert rebuild_delta(tmp_path / "delta", tmp_path / "again").same_file

    def test_code_and_pickles_are_left_out(self, base: Path, tuned: Path, tmp_path: Path) -> None:
        for name in ("modeling_mine.py", "training_args.bin", ".hidden.json"):
            (tuned / name).write_bytes(b"x")
        (tuned / "runs").mkdir()
        (tuned / "notes.txt").write_text("kept", encoding="utf-8")
        saved = fl.save_delta(base, tuned, tmp_path / "delta")
        assert saved.left_out == (".hidden.json", "modeling_mine.py", "runs", "training_args.bin")
        assert saved.files == ("config.json", "notes.txt")
        assert "Left out: .hidden.json, " in str(saved)

    def test_the_results_are_values(self) -> None:
        assert SavedDelta.__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert str(RebuiltDelta("f", "b", 3, None)).endswith("; in one file.")
        assert str(RebuiltDelta("f", "b", 3, False)).endswith("; the weights file is laid out anew.")


class TestTheBase:
    def test_it_may_have_moved(self, base: Path, delta: Path, tuned: Path, tmp_path: Path) -> None:
        moved = tiny.copy_of(base, tmp_path / "moved")
        edit(delta, base=str(tmp_path / "gone"))
        assert "Name the base of the delta with --base" in refusal(delta, tmp_path)
        rebuild_delta(delta, tmp_path / "again", moved)
        assert tiny.same_weights(tmp_path / "again", tuned)
        rebuilt, whole = fl.fingerprint(fl.load_delta(delta, moved)).digests, fl.fingerprint(tuned).digests
        assert set(rebuilt.values()) >= set(whole.values())  # transformers 5.0 saves some by names of old

    def test_another_one(self, base: Path, delta: Path, tmp_path: Path) -> None:
        other = tiny.copy_of(base, tmp_path / "other")
        tensors = tensors_of(other)
        tensors["bert.pooler.dense.bias"].view(torch.int32)[0] ^= 1
        save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
        text = refusal(delta, tmp_path, base=other)
        assert f"'{other}' is not the base of the delta" in text
        assert str(base) in text

    def test_a_file_of_it_that_changed(self, base: Path, delta: Path, tmp_path: Path) -> None:
        other = tiny.copy_of(base, tmp_path / "other")
        (other / "tokenizer.json").write_text("{}", encoding="utf-8")
        assert "needs 'tokenizer.json' of its base" in refusal(delta, tmp_path, base=other)


class TestWhereItGoes:
    def test_a_place_that_is_no_path(self, base: Path, tuned: Path) -> None:
        for make in (lambda: fl.save_delta(base, tuned, None), lambda: rebuild_delta(base, None)):  # type: ignore[arg-type]
            with pytest.raises(OutputError, match=r"folder to make is None, a NoneType\.\nGive a path"):
                make()

    def test_a_folder_in_use(self, base: Path, tuned: Path, delta: Path, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="is in use"):
            fl.save_delta(base, tuned, delta)
        with pytest.raises(OutputError, match="is in use"):
            rebuild_delta(delta, tuned)

    def test_a_file_or_a_link(self, base: Path, tuned: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("", encoding="utf-8")
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        for name in ("file", "link"):
            with pytest.raises(OutputError, match="is not a folder"):
                fl.save_delta(base, tuned, tmp_path / name)

    def test_an_empty_folder_is_taken(self, base: Path, tuned: Path, tmp_path: Path) -> None:
        (tmp_path / "new").mkdir()
        fl.save_delta(base, tuned, tmp_path / "new")
        assert (tmp_path / "new" / "delta.json").is_file()

    def test_nothing_is_left_of_what_failed(
        self, base: Path, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any, **__: Any) -> str:
            raise KeyboardInterrupt

        monkeypatch.setattr("frostline.checkpoints.delta.delta.write_safetensors", fail)
        before = sorted(tmp_path.iterdir())
        with pytest.raises(KeyboardInterrupt):
            fl.save_delta(base, tuned, tmp_path / "delta")
        assert sorted(tmp_path.iterdir()) == before

    def test_no_delta(self, base: Path, tmp_path: Path) -> None:
        assert "holds no delta.json, so it is no delta.\nGive a folder" in refusal(base, tmp_path)
        assert "There is no folder" in refusal(tmp_path / "nowhere", tmp_path)

    def test_tensors_that_no_classifier_has(self, base: Path, tuned: Path, tmp_path: Path) -> None:
        odd = write(tmp_path / "odd", tensors_of(tuned) | {"cls.bias": torch.ones(2)}, tuned)
        with pytest.raises(ModelError, match="has no place for"):
            fl.save_delta(base, odd, tmp_path / "delta")


def _is_written(tensor: torch.Tensor) -> bool:
    """Whether safetensors writes such a tensor; before 0.6 it writes no unsigned numbers of several bytes."""
    from safetensors.torch import save

    try:
        save({"w": tensor})
    except KeyError:
        return False
    return True


def test_the_writer_is_that_of_safetensors(base: Path, tmp_path: Path) -> None:
    from frostline.checkpoints.delta.write import write_safetensors
    from frostline.checkpoints.tensor_files import Checkpoint

    words = "uint64 int64 float64 float32 uint32 int32 bfloat16 float16 uint16 int16 float8_e4m3fn float8_e5m2"
    make: Callable[[str, int], torch.Tensor] = lambda word, n: torch.arange(n).to(getattr(torch, word))  # noqa: E731
    known = [word for word in f"{words} int8 uint8 bool".split() if _is_written(make(word, 1))]
    assert len(known) >= 12
    tensors = {f"{n}é{word}": make(word, n) for word in known for n in (1, 0, 7)}
    folder = write(tmp_path / "all", tensors, base)
    digest = write_safetensors(tmp_path / "written", Checkpoint.open(folder).tensors, {"format": "pt"})
    assert (tmp_path / "written").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert digest == file_digest(tmp_path / "written")
    odd = write(tmp_path / "odd", {"w": torch.ones(1, dtype=torch.complex64)}, base, "pickle")
    with pytest.raises(ModelError, match="complex64, which safetensors files do not hold"):
        write_safetensors(tmp_path / "more", Checkpoint.open(odd).tensors, {})
