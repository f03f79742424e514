from __future__ import annotations

import torch

from frostline.engine.fast_paths import FastPaths
from frostline.engine.selfcheck.result import PathCheck, SelfCheck

CHECK = SelfCheck(
    checks=(
        PathCheck("padding-free", admitted=True, how="its layers run packed", outputs=3e-7, gradients=2e-6),
        PathCheck("store dtype", admitted=True, how="activations are stored as bfloat16", outputs=4e-3),
        PathCheck("replay", admitted=False, how="no frozen layer lies beneath all that trains"),
    ),
    boundary="layer 2",
    seconds=0.5,
    paths=FastPaths(),
    per_token=frozenset({"hidden"}),
    dtype=torch.float32,
)


def test_each_path_has_a_line_with_what_was_measured() -> None:
    assert str(CHECK).splitlines() == [
        "padding-free: yes, its layers run packed (largest difference of outputs 3.0e-07, of gradients 2.0e-06)",
        "store dtype: yes, activations are stored as bfloat16 (largest difference of outputs 4.0e-03)",
        "replay: no, no frozen layer lies beneath all that trains",
    ]


def test_it_is_told_as_plain_values() -> None:
    told = CHECK.to_dict()
    assert (told["boundary"], told["seconds"]) == ("layer 2", 0.5)
    assert told["checks"][2] == {
        "path": "replay",
        "admitted": False,
        "how": "no frozen layer lies beneath all that trains",
        "outputs": None,
        "gradients": None,
    }
