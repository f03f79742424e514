"""Whole weights of a hub name: fetched once, then read from the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import frostline as fl
from tests.checkpoints.folders import tensors_of, write
from tests.checkpoints.test_hub import frostline, model, served
from tests.training import tiny

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["model", "served"]


def test_diff_and_deltas_of_a_hub_name(
    served: tuple[str, list[tuple[str, int]]],
    model: Path,
    tmp_path: Path,
) -> None:
    endpoint, sent = served
    home = tmp_path / "home"
    home.mkdir()
    local = tiny.copy_of(model, tmp_path / "local")
    tensors = tensors_of(model)
    tensors["pooler.dense.bias"] += 1
    write(local, tensors, model)
    write(tmp_path / "form", tensors_of(model), model, "sharded")
    (model / "model.safetensors").unlink()
    for file in (tmp_path / "form").iterdir():
        (model / file.name).write_bytes(file.read_bytes())

    done = frostline(endpoint, home, "diff", "org/tiny", str(local))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("39 tensors: 38 identical, 1 changed.")
    fetched = sum(count for name, count in sent if name.endswith((".safetensors", ".bin")))
    sent.clear()

    done = frostline(endpoint, home, "delta", "save", "org/tiny", str(local), str(tmp_path / "delta"))
    assert (done.returncode, done.stderr) == (0, "")
    assert not any(name.endswith((".safetensors", ".bin")) for name, _ in sent)  # they are in the cache
    done = frostline(endpoint, home, "delta", "load", str(tmp_path / "delta"), "--out", str(tmp_path / "again"))
    assert (done.returncode, done.stderr) == (0, "")
    assert fl.fingerprint(tmp_path / "again") == fl.fingerprint(local)
    assert fetched >= sum(tensor.nbytes for tensor in tensors.values())
