"""Options that several subcommands share."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from frostline.errors import OutputError, SettingsError


class DeviceOption(StrEnum):
    """Where a model runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class DtypeOption(StrEnum):
    """Precision of the computation; the weights are saved in fp32."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class ProblemOption(StrEnum):
    """The problem types of transformers."""

    auto = "auto"
    single = "single_label_classification"
    multi = "multi_label_classification"
    regression = "regression"

    @property
    def asked(self) -> str | None:
        """The type that was asked for; None to tell it from the labels."""
        return None if self is ProblemOption.auto else self.value


class FrozenModeOption(StrEnum):
    """How frozen modules behave."""

    eval = "eval"
    train = "train"


class StoreOption(StrEnum):
    """Where the frozen part's activations are kept."""

    auto = "auto"
    off = "off"
    memory = "memory"
    disk = "disk"


ModelArgument = Annotated[str | None, typer.Argument(metavar="MODEL", help="A folder, or a hub name.")]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="The same, as 'train' takes it; by default the small BERT of the extra 'demo'."),
]
Freeze = Annotated[
    str | None,
    typer.Option(
        metavar="SELECTORS",
        help="What is frozen: 'embeddings, layers[:8]', 'backbone', a name or glob.",
    ),
]
TrainOnly = Annotated[
    str | None,
    typer.Option(metavar="SELECTORS", help="What trains; all else is frozen. Not together with --freeze."),
]
Lora = Annotated[
    str | None,
    typer.Option(metavar="SELECTORS", help="Where LoRA goes, 'layers[-4:]'; all else but the head is frozen."),
]
Rank = Annotated[int | None, typer.Option(help="Rank of LoRA or DoRA; by default 8.")]
FrozenModeChoice = Annotated[
    FrozenModeOption,
    typer.Option(help="eval: frozen modules keep dropout off. train: they follow model.train()."),
]
TextColumn = Annotated[str, typer.Option(metavar="NAME[,NAME]", help="Column of texts; two for pairs.")]
LabelColumn = Annotated[
    str,
    typer.Option(metavar="NAME[,NAME…]", help="Column of labels; several for multi-label or several values."),
]
ProblemType = Annotated[ProblemOption, typer.Option(help="By default told from the labels.")]
Html = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write a page to look at: one file, no network.")
]
Svg = Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Write a picture of the tower.")]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run model code that comes with the checkpoint.")
]
Device = Annotated[DeviceOption, typer.Option(help="Where to run; auto takes an accelerator where there is one.")]
ClassifierFolder = Annotated[str, typer.Argument(metavar="DIR", help="The folder of a run, or any trained classifier.")]
RowsPerStep = Annotated[int, typer.Option(min=1, help="Rows per step.")]
MaxLength = Annotated[int | None, typer.Option(help="Tokens per row at most; by default what the model takes.")]


def group(name: str, said: str) -> typer.Typer:
    """Make a command that has commands of its own."""
    return typer.Typer(
        name=name, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, help=said
    )


def model_of(argument: str | None, option: str | None) -> str:
    """The model that is meant; the demo's where none is named, which is said on standard error.

    Raises:
        SettingsError: If it is named twice.
        MissingExtraError: If none is named, and the demo's is not installed.
    """
    if argument is not None and option is not None:
        raise SettingsError(f"Two models are named: {argument!r}, and {option!r} with --model.\nName one.")
    named = option if argument is None else argument
    if named is not None:
        return named
    from frostline.demo.model import find_demo_model

    folder = str(find_demo_model())
    print(f"No model is named: taken is the demo's, '{folder}'.", file=sys.stderr)
    return folder


def columns(text: str) -> tuple[str, ...]:
    """Split the names of columns at commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def place(path: Path) -> Path:
    """Take a leading ``~`` for the home folder that it means.

    Raises:
        OutputError: If it means none.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise OutputError(f"'{path}' cannot be written: there is no such home folder.\nWrite the path out.") from None
