from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done

MACHINE = ("--flops", "1e12", "--bandwidth", "1e11")


def test_what_is_printed(frostline: Callable[..., Done], bert: Path) -> None:
    done = frostline(
        *("estimate", bert, "--train-only", "layers[1], pooler, head", "--rows", 100, "--mean-tokens", 10),
        *("--epochs", 3, "--store", "memory", *MACHINE),
    )
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].endswith("parameters train: layers[1], pooler, head. Frozen: embeddings, layers[0].")
    assert lines[2] == "Machine: one with the figures given; 1 TFLOP/s at its peak, 100 GB/s of memory."
    names = [line.split("  ")[0] for line in lines[4:] if line and not line.startswith(" ")]
    for name in ("time", "transformers.Trainer", "peak memory", "disk"):
        assert name in names
    assert "Activations are kept in memory: as asked for. Storing breaks even after " in done.out


def test_as_json(frostline: Callable[..., Done], bert: Path, table: Path) -> None:
    done = frostline("estimate", bert, "--freeze", "backbone", "--data", table, "--json", *MACHINE)
    assert done.status == 0
    values = json.loads(done.out)
    assert values["trains"] == "head"
    assert values["rows"] > 0
    assert values["plan"]["bytes"]["gradients"] < values["everything"]["bytes"]["gradients"]


def test_what_is_refused(refused: Callable[..., str], bert: Path) -> None:
    assert "--data FILE, or --rows N --mean-tokens T" in refused("estimate", bert)
    said = refused("estimate", bert, "--rows", 5, "--mean-tokens", 5, "--device", "abacus")
    assert "device is 'abacus'" in said
    said = refused("estimate", bert, "--rows", 5, "--mean-tokens", 5, "--device", "cuda")
    assert "device is 'cuda', of which no figures are known; known are cpu, which is this machine's, and t4, " in said
    assert "Name one of them, or give its own: --flops 312e12 --bandwidth 2e12." in said
    said = refused("estimate", bert, "--rows", 5, "--mean-tokens", 5, "--lora", "layers", "--freeze", "head", *MACHINE)
    assert "--lora 'layers' and --freeze 'head' both say what trains." in said
    assert "layers[9]" in refused("estimate", bert, "--freeze", "layers[9]", "--rows", 5, "--mean-tokens", 5, *MACHINE)
