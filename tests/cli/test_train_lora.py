"""``frostline train --lora``, ``--dora``, ``--peft`` and ``--merge``, and the other commands on what they leave."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from frostline.compat import peft

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done

LEFT = {"adapter_config.json", "adapter_model.safetensors", "config.json", "tokenizer.json", "README.md"}
LEFT |= {"plan.json", "proof.json", "metrics.json", "files.json", "tokenizer_config.json", "tower.svg"}


def test_what_is_printed_and_left(train: Callable[..., Done], table: Path, tmp_path: Path) -> None:
    done = train("--eval", table, "--lora", "layers[-1:]", "--rank", 2, "--epochs", 2, "--store", "memory")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith("Partly frozen: fine-tuning updates ")
    assert lines[0].endswith(": adapters. Frozen: all, ~adapters.")
    said = "Adapters: LoRA of rank 2, alpha 4 in 2 modules of layer 1; beside them train 'classifier'."
    assert said in lines
    (engine,) = [line for line in lines if line.startswith("Engine: ")]
    assert engine.startswith("Engine: replay from layer 1, padding-free, last layer for the first token only")
    (proof,) = [line for line in lines if line.startswith("Proof: ")]
    assert "frozen tensors bit-identical; 6 of 6 others moved" in proof
    assert lines[-2].startswith(f"The adapters and the head are in {tmp_path / 'out'}; it carries plan, ")
    assert {file.name for file in (tmp_path / "out").iterdir()} == LEFT


def test_the_other_commands_take_the_folder(
    train: Callable[..., Done], frostline: Callable[..., Done], table: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    told = json.loads(train("--eval", table, "--dora", "layers[-1:]", "--targets", "query,value", "--json").out)
    assert told["settings"]["dora"] == "layers[-1:]"
    assert told["settings"]["targets"] == ["query", "value"]
    found = json.loads(frostline("evaluate", out, "--data", table, "--json").out)
    assert found["metrics"] == pytest.approx(told["eval"])
    assert frostline("predict", out, "a good film").status == 0
    verified = frostline("verify", out)
    assert (verified.status, verified.err) == (0, "")
    assert "frozen tensors bit-identical" in verified.out
    inspected = frostline("inspect", out)
    assert inspected.out.startswith("Partly frozen: ")
    assert "Adapter 'default' (LORA): active." in inspected.out
    assert frostline("check", out).status == 0
    assert frostline("probe", out, "--data", table).status == 0


def test_merge_leaves_a_plain_model(
    train: Callable[..., Done], frostline: Callable[..., Done], bert: Path, tmp_path: Path
) -> None:
    done = train("--lora", "layers[1]", "--merge")
    assert done.status == 0, done.err
    assert f"The model is in {tmp_path / 'out'}; " in done.out
    assert not (LEFT & {"adapter_config.json"} & {file.name for file in (tmp_path / "out").iterdir()})
    assert frostline("verify", tmp_path / "out").status == 0
    changed = json.loads(frostline("diff", bert, tmp_path / "out", "--json").out)
    assert changed["tensors"]
    again = train("--model", tmp_path / "out", "--out", tmp_path / "again", "--lora", "layers[0]")
    assert again.status == 0, again.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--freeze", "backbone"], "--lora 'layers[1]' and --freeze 'backbone' both say what trains."),
        (["--train-only", "head"], "--lora 'layers[1]' and --train-only 'head' both say what trains."),
        (["--dora", "layers[0]"], "--lora 'layers[1]' and --dora 'layers[0]' both say what trains."),
        (["--peft", "a.json"], "--lora 'layers[1]' and --peft 'a.json' both say what trains."),
        (["--targets", "nosuch"], "--targets names 'nosuch', which no linear layer in 'layers[1]' is called."),
        (["--targets", ","], "--targets names nothing."),
        (["--rank", "0"], "--rank is 0; it must be at least 1"),
        (["--alpha", "0"], "--alpha is 0.0; it must be above 0"),
    ],
)
def test_conflicts_are_refused(refused_train: Callable[..., str], words: Any, said: str) -> None:
    assert said in refused_train("--lora", "layers[1]", *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rank", "4"], "--rank 4 is about LoRA and DoRA.\nGive --lora SELECTORS, or --dora."),
        (["--targets", "query"], "--targets 'query' is about LoRA and DoRA."),
        (["--peft", "a.json", "--alpha", "4"], "--alpha 4.0 is about LoRA and DoRA.\n--peft FILE says it itself."),
        (["--merge"], "--merge has no adapters to merge."),
        (["--peft", "nosuch.json"], "The configuration of adapters 'nosuch.json' cannot be read: No such file"),
    ],
)
def test_settings_without_adapters_are_refused(refused_train: Callable[..., str], words: Any, said: str) -> None:
    assert said in refused_train(*words)


def test_without_peft_the_extra_is_named(refused_train: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peft, "find_spec", lambda _name: None)
    said = "--dora needs PEFT, which is not installed.\nInstall it with: pip install 'frostline[peft]'"
    assert said in refused_train("--dora", "layers[1]")


def test_adapters_need_their_base(
    train: Callable[..., Done], refused: Callable[..., str], bert: Path, tmp_path: Path
) -> None:
    assert train("--lora", "layers[1]").status == 0
    assert "holds adapters, which are nothing without a base" in refused("verify", tmp_path / "out", "--no-base")
    assert "holds adapters, not a whole model" in refused("diff", bert, tmp_path / "out")
