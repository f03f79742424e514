"""Whatever names, labels, configurations, texts and arguments hold: no command lets it steer the terminal."""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from frostline.base.sealing import Seal
from frostline.checkpoints.delta.delta import save_delta
from frostline.cli.app import app
from frostline.plan.phase import Phase
from frostline.plan.schedule import Schedule
from frostline.plan.schedule_file import schedule_text
from frostline.store.store import Store
from tests.store.building import STREAMS, key, put
from tests.training import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import typer

    from tests.cli.conftest import Done

EVIL = "a\x1b[2J\x1b]0;pwned\x07\x9b31m\u202eb\u2066\u2028c\u200fd"
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, trained: Path, quick_bert: Path) -> Path:
    """Hostile models, a delta, tables and stores; new folders may be put beside them."""
    place = tmp_path_factory.mktemp("hostile") / EVIL
    for name, model in (("base", quick_bert), ("run", trained)):
        folder = tiny.copy_of(model, place / name)
        weights = load_file(folder / "model.safetensors")
        save_file(weights | {f"{EVIL}\nweight": torch.ones(1)}, folder / "model.safetensors", metadata={"format": "pt"})
        edit(folder / "config.json", id2label={"0": f"bad{EVIL}", "1": f"good{EVIL}"}, label2id={}, evil=EVIL)
    edit(place / "run" / "plan.json", freeze=f"embeddings, {EVIL}")
    (place / "run" / f"left{EVIL}").touch()
    Seal.of(place / "run").write(place / "run")
    save_delta(place / "base", place / "run", place / "delta")
    odd = tiny.copy_of(place / "base", place / "odd")
    edit(odd / "config.json", model_type=f"bert{EVIL}")
    rows = [{EVIL: row["text"] + EVIL, "label": row["label"] + EVIL} for row in tiny.easy_rows(8)]
    tiny.write_csv(place / "rows.csv", rows)
    tiny.write_csv(place / "other.csv", [row | {"label": f"never seen{EVIL}"} for row in rows])
    plan = schedule_text(Schedule((Phase(EVIL, until="1 epoch", lr={EVIL: 1e-3}),)), EVIL)
    (place / "plan.toml").write_text(plan, encoding="utf-8")
    with Store.on_disk(place / "stores", key(), STREAMS, about={"model": EVIL}) as store:
        put(store, [1, 2, 3])
    return place


def edit(file: Path, **changes: Any) -> None:
    values = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(values | changes), encoding="utf-8")


SWEPT = [
    "--data",
    "{}/rows.csv",
    "--eval",
    "{}/rows.csv",
    "--depths",
    "0",
    "--lr",
    "1e-3",
    "--seeds",
    "1",
    "--epochs",
    "1",
]
# Per command: words, in which {} stands for the folder, and the exit status.
WORDS: dict[str, list[tuple[list[str], int]]] = {
    "inspect": [
        (["{}/base"], 0),
        (["{}/base", "--json"], 0),
        (["{}/base", "--names"], 0),
        (["{}/base", "--freeze", EVIL], 2),
        (["{}/base", "--train-only", f"re:{EVIL}("], 2),
        (["{}/odd"], 2),
        (["{}/" + EVIL], 2),
        ([EVIL], 2),
        (["{}/base", f"--{EVIL}"], 2),
        (["{}/base", "--frozen-mode", EVIL], 2),
    ],
    "train": [
        (["--model", "{}/base", "--data", "{}/rows.csv", "--text-column", EVIL, "--out", "{}/out"], 0),
        (["--model", "{}/base", "--data", "{}/rows.csv", "--text-column", EVIL, "--out", "{}/json", "--json"], 0),
        (["--model", "{}/base", "--data", "{}/rows.csv", "--out", "{}/x"], 2),
        (["--model", "{}/base", "--data", EVIL, "--out", "{}/x"], 2),
        (["--model", "{}/base", "--data", "{}/rows.csv", "--text-column", EVIL, "--out", "{}/base"], 2),
        (["--model", "{}/base", "--data", "{}/rows.csv", "--text-column", EVIL, "--freeze", EVIL, "--out", "{}/x"], 2),
        (
            ["--model", "{}/base", "--data", "{}/rows.csv", "--text-column", EVIL, "--schedule", EVIL, "--out", "{}/x"],
            2,
        ),
        (
            [
                "--model",
                "{}/base",
                "--data",
                "{}/rows.csv",
                "--schedule",
                "{}/plan.toml",
                "--text-column",
                EVIL,
                "--out",
                "{}/x",
            ],
            2,
        ),
    ],
    "schedule": [
        (["{}/base", "--preset", "gradual-unfreezing"], 0),
        (["{}/base", "--preset", "lisa", "--json"], 0),
        (["{}/base", "--preset", EVIL], 2),
    ],
    "estimate": [
        (["{}/base", "--rows", "100", "--mean-tokens", "9", "--flops", "1e12", "--bandwidth", "1e11"], 0),
        (["{}/base", "--data", "{}/rows.csv", "--text-column", EVIL, "--device", "t4", "--json"], 0),
        (["{}/base", "--rows", "100", "--mean-tokens", "9", "--device", EVIL], 2),
        (["{}/base", "--data", "{}/rows.csv", "--device", "t4"], 2),
        (["{}/base", "--freeze", EVIL, "--rows", "100", "--mean-tokens", "9", "--device", "t4"], 2),
    ],
    "sweep": [
        (["--model", "{}/base", *SWEPT, "--text-column", EVIL, "--out", "{}/swept"], 0),
        (["--model", "{}/base", *SWEPT, "--text-column", EVIL, "--presets", EVIL, "--out", "{}/x"], 2),
        (["--model", "{}/base", *SWEPT, "--text-column", EVIL, "--pick", EVIL, "--out", "{}/x"], 2),
        (["--model", "{}/base", *SWEPT, "--out", "{}/x"], 2),
    ],
    "predict": [
        (["{}/run", f"good film {EVIL}"], 0),
        (["{}/run", f"good film {EVIL}", "--json"], 0),
        (["{}/run", "--data", "{}/rows.csv", "--text-column", EVIL], 0),
        (["{}/run", "--data", "{}/rows.csv", "--text-column", EVIL, "--out", "{}/out.csv"], 0),
        (["{}/run", "--data", "{}/rows.csv"], 2),
        (["{}/odd", "good film"], 2),
    ],
    "evaluate": [
        (["{}/run", "--data", "{}/rows.csv", "--text-column", EVIL], 0),
        (["{}/run", "--data", "{}/other.csv", "--text-column", EVIL], 2),
    ],
    "check": [
        (["{}/base", "--freeze", "backbone", "--data", "{}/rows.csv", "--text-column", EVIL], 0),
        (["{}/base", "--json"], 0),
        (["--explain", EVIL], 2),
        (["--explain", f"{EVIL} element 0 of tensors does not require grad and does not have a grad_fn"], 0),
    ],
    "diff": [
        (["{}/base", "{}/run"], 0),
        (["{}/base", "{}/run", "--tensors"], 0),
        (["{}/base", "{}/run", "--json"], 0),
        (["{}/base", "{}/run", "--expect-frozen", EVIL], 2),
    ],
    "verify": [
        (["{}/run", "--base", "{}/base"], 1),
        (["{}/run", "--base", "{}/base", "--json"], 1),
        (["{}/run", "--base", "{}/" + EVIL], 2),
        (["{}/base"], 2),
    ],
    "probe": [
        (["{}/base", "--data", "{}/rows.csv", "--text-column", EVIL], 0),
        (["{}/base", "--data", "{}/rows.csv", "--text-column", EVIL, "--parameters"], 0),
        (["{}/base", "--data", "{}/rows.csv"], 2),
    ],
    "delta save": [(["{}/base", "{}/run", "{}/saved"], 0), (["{}/base", "{}/base", "{}/delta"], 2)],
    "delta load": [
        (["{}/delta", "--out", "{}/whole"], 0),
        (["{}/base", "--out", "{}/x"], 2),
        (["{}/" + EVIL, "--out", "{}/x"], 2),
    ],
    "store list": [(["--store-dir", "{}/stores"], 0), (["--store-dir", "{}/stores", "--json"], 0)],
    "store verify": [(["--store-dir", "{}/stores"], 0), (["--store-dir", "{}/stores", EVIL], 2)],
    "store clear": [(["--store-dir", "{}/stores", EVIL], 2), (["--store-dir", "{}/nothing", "--all"], 0)],
    "report": [(["{}/run", "--out", "{}/page.html"], 0), (["{}/base", "--out", "{}/x"], 2)],
    "demo": [(["--out", "{}/base"], 2)],
    EVIL: [([], 2)],
}


def commands(of: typer.Typer) -> set[str]:
    own = {one.name or str(getattr(one.callback, "__name__", "")) for one in of.registered_commands}
    groups = [group.typer_instance for group in of.registered_groups]
    inner = {f"{group.info.name} {name}" for group in groups if group is not None for name in commands(group)}
    return own | inner


def test_every_command_is_tried() -> None:
    assert commands(app) == WORDS.keys() - {EVIL}


@pytest.mark.parametrize(
    ("command", "words", "status"),
    [(command, words, status) for command, tries in WORDS.items() for words, status in tries],
)
def test_what_is_printed(
    frostline: Callable[..., Done], place: Path, command: str, words: list[str], status: int
) -> None:
    own = [command] if command == EVIL else command.split()
    done = frostline(*own, *(word.replace("{}", str(place)) for word in words))
    assert done.status == status, done
    text = done.out + done.err
    assert text
    steering = {sign for sign in text if unicodedata.category(sign) in HIDDEN and sign != "\n"}
    assert not steering, [line for line in text.splitlines() if steering & set(line)]
    if status == 2:
        assert 1 <= len(done.err.splitlines()) <= 2, done.err
    if "--json" in words and done.out:
        json.loads(done.out)
