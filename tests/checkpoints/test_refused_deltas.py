"""Deltas that are damaged or hostile: each is refused, by both ways to load it."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest
import torch

import frostline as fl
from frostline.base.sealing import file_digest
from frostline.errors import ModelError
from tests.checkpoints.deltas import edit, refusal, restore
from tests.checkpoints.folders import tensors_of

if TYPE_CHECKING:
    from pathlib import Path


class TestDamaged:
    @pytest.mark.parametrize("file", ["delta.safetensors", "config.json", "delta.json"])
    def test_a_byte_or_a_file(self, delta: Path, tmp_path: Path, file: str) -> None:
        content = (delta / file).read_bytes()
        (delta / file).write_bytes(content[:-2])
        assert "is damaged" in refusal(delta, tmp_path)
        (delta / file).unlink()
        assert "is no delta" in refusal(delta, tmp_path) or file != "delta.json"

    def test_a_tensor_changed_by_one_who_knows_the_format(self, delta: Path, tuned: Path, tmp_path: Path) -> None:
        tensors = {name: tensors_of(tuned)[name] for name in ("classifier.weight", "classifier.bias")}
        tensors["classifier.bias"][0] += 1
        restore(delta, tensors)
        assert "does not give the tensors that were saved" in refusal(delta, tmp_path)

    @pytest.mark.parametrize(
        "values",
        [
            {"version": 1},
            {"more": 1},
            {"base": 3},
            {"base_fingerprint": "../../x"},
            {"renamed": ["a"]},
            {"metadata": {"format": 1}},
            {"left_out": {}},
            {"files": {"config.json": "short"}},
            {"tensors_file": None},
        ],
        ids=lambda values: next(iter(values)),
    )
    def test_a_manifest_of_another_make(self, delta: Path, tmp_path: Path, values: dict[str, Any]) -> None:
        edit(delta, **values)
        text = refusal(delta, tmp_path)
        assert "is damaged" in text or "no delta of version" in text

    @pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\x00"])
    def test_a_manifest_that_is_none(self, delta: Path, tmp_path: Path, text: str) -> None:
        (delta / "delta.json").write_text(text, encoding="utf-8")
        refusal(delta, tmp_path)

    def test_no_configuration(self, delta: Path, tmp_path: Path) -> None:
        edit(delta, files={})
        assert "has no config.json" in refusal(delta, tmp_path)


class TestHostile:
    @pytest.mark.parametrize(
        "name",
        [
            "../evil.json",
            "/tmp/evil.json",  # noqa: S108 - never written
            "a/b.json",
            "..\\evil.json",
            "C:evil.json",
            "",
            ".",
            "..",
            ".ssh.json",
            "evil\x00.json",
            "evil.json\n",
            "evil.py",
            "evil.bin",
            "model.safetensors",
            "model.safetensors.index.json",
            "pytorch_model.bin.index.json",
            "delta.json",
            "x" * 300 + ".json",
        ],
    )
    @pytest.mark.parametrize("table", ["files", "base_files"])
    def test_names_of_files(self, delta: Path, tmp_path: Path, name: str, table: str) -> None:
        manifest = json.loads((delta / "delta.json").read_text(encoding="utf-8"))
        edit(delta, **{table: manifest[table] | {name: "0" * 64}})
        assert "is no name of a file that a delta may bring" in refusal(delta, tmp_path)

    @pytest.mark.parametrize("file", ["config.json", "delta.safetensors", "delta.json"])
    def test_links(self, delta: Path, tmp_path: Path, file: str) -> None:
        (delta / file).rename(tmp_path / "elsewhere")
        (delta / file).symlink_to(tmp_path / "elsewhere")
        assert "it is a link" in refusal(delta, tmp_path)

    def test_a_folder_for_a_file(self, delta: Path, tmp_path: Path) -> None:
        (delta / "config.json").unlink()
        (delta / "config.json").mkdir()
        assert "it is no file" in refusal(delta, tmp_path)

    @pytest.mark.parametrize("name", ["other.weight", "../../x", "classifier.weight.more"])
    def test_names_outside_the_model(self, delta: Path, tmp_path: Path, name: str) -> None:
        restore(delta, {"classifier.weight": torch.ones(2, 16), name: torch.ones(2)})
        assert "has no place for" in refusal(delta, tmp_path)

    @pytest.mark.parametrize(
        ("name", "word"),
        [
            ("bert.pooler.dense.bias", "complex64"),
            ("bert.pooler.dense.bias", "int64"),
            ("bert.pooler.dense.bias", "float33"),
            ("bert.pooler.dense.bias", "__class__"),
            ("classifier.bias", "bfloat16"),
            ("nowhere", "bfloat16"),
        ],
    )
    def test_casts_that_cannot_be(self, delta: Path, tmp_path: Path, name: str, word: str) -> None:
        edit(delta, casts={name: word})
        assert f"is refused: it cannot cast {name!r} to {word!r}" in refusal(delta, tmp_path)

    def test_a_cast_that_was_not_saved(self, delta: Path, tmp_path: Path) -> None:
        edit(delta, casts={"bert.pooler.dense.bias": "bfloat16"})
        assert "does not give the tensors that were saved" in refusal(delta, tmp_path)

    def test_half_a_character(self, delta: Path, tmp_path: Path) -> None:
        edit(delta, metadata={"format": "\ud800"})
        assert "it holds half a character" in refusal(delta, tmp_path)

    def test_shapes_that_do_not_fit(self, delta: Path, tmp_path: Path) -> None:
        restore(delta, {"classifier.weight": torch.ones(3, 16), "classifier.bias": torch.ones(2)})
        assert "of the shape [3, 16], but its configuration makes classifier.weight [2, 16]" in refusal(delta, tmp_path)

    def test_a_tensor_twice(self, delta: Path, tmp_path: Path) -> None:
        edit(delta, left_out=[])
        assert "twice" in refusal(delta, tmp_path)

    def test_tensors_that_the_base_does_not_have(self, delta: Path, tmp_path: Path) -> None:
        edit(delta, renamed={"classifier.weight": "nothing"})
        assert "its base has no tensor 'nothing'" in refusal(delta, tmp_path)

    def test_one_tensor_for_another(self, delta: Path, tmp_path: Path) -> None:
        query, key = (f"bert.encoder.layer.0.attention.self.{word}.weight" for word in ("query", "key"))
        edit(delta, renamed={query: key, key: query})
        assert "does not give the tensors that were saved" in refusal(delta, tmp_path)
        edit(delta, renamed={"../../x": key})
        assert "has no place for" in refusal(delta, tmp_path)

    @pytest.mark.parametrize("length", [2**62, 2**26, 10_000])
    def test_an_endless_header(self, delta: Path, tmp_path: Path, length: int) -> None:
        (delta / "delta.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
        edit(delta, tensors_file=file_digest(delta / "delta.safetensors"))
        assert f"its header would have {length:,} bytes" in refusal(delta, tmp_path)

    @pytest.mark.parametrize("content", [b"", b"{}", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 8) + b'{"a":{}}'])
    def test_no_tensors_at_all(self, delta: Path, tmp_path: Path, content: bytes) -> None:
        (delta / "delta.safetensors").write_bytes(content)
        edit(delta, tensors_file=file_digest(delta / "delta.safetensors"))
        assert "is damaged" in refusal(delta, tmp_path)

    def test_a_manifest_without_end(self, delta: Path, tmp_path: Path) -> None:
        with (delta / "delta.json").open("r+b") as file:
            file.truncate(1 << 25)
        assert "is larger than" in refusal(delta, tmp_path)


def test_a_delta_of_a_delta(delta: Path, tuned: Path, tmp_path: Path) -> None:
    for checkpoints in ((delta, tuned), (tuned, delta)):
        with pytest.raises(ModelError, match=r"is a delta itself\.\nRebuild it first"):
            fl.save_delta(*checkpoints, tmp_path / "again")
    edit(delta, base=str(delta))
    assert "is a delta itself.\nName the base of the delta with --base" in refusal(delta, tmp_path)
    with pytest.raises(ModelError, match="is a delta itself"):
        fl.inspect(delta)
