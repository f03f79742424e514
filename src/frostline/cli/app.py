"""The command as a whole: its subcommands, and how an error becomes a message and an exit status."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from frostline.base.logging import get_logger
from frostline.cli.check import check
from frostline.cli.delta import delta
from frostline.cli.demo import demo
from frostline.cli.diff import diff
from frostline.cli.estimate import estimate
from frostline.cli.evaluate import evaluate
from frostline.cli.inspect import inspect
from frostline.cli.predict import predict
from frostline.cli.probe import probe
from frostline.cli.render import print_error, print_text
from frostline.cli.report import report
from frostline.cli.schedule import schedule
from frostline.cli.sigint import INTERRUPTED
from frostline.cli.store import store
from frostline.cli.sweep import sweep
from frostline.cli.train import train
from frostline.cli.verify import verify
from frostline.errors import FrostlineError

app = typer.Typer(
    name="frostline",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="See, control and prove which parts of a pretrained model train when you fine-tune it.",
)
# What all complaints about arguments are, whatever typer or click calls it: the class beneath Exception.
_COMPLAINT: Any = typer.BadParameter.__mro__[-4]
for command in (
    inspect, estimate, schedule, train, sweep, predict, evaluate, check, diff, verify, probe, report, demo,
):  # fmt: skip
    app.command()(command)
app.add_typer(delta)
app.add_typer(store)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Entry of all subcommands."""
    if show_version:
        print_text(f"frostline {version('frostline')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print_text(context.get_help())
        raise typer.Exit


def run(arguments: Sequence[str]) -> int:
    """Run the command.

    Args:
        arguments: The command line without the program's name.

    Returns:
        The exit status: 0 fine, 1 a drift or a diverged training, 2 unusable input or arguments,
        130 interrupted.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # notices of the libraries beneath are not addressed to the user
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # somebody closed it
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - until the process ends
    get_logger().setLevel("WARNING")  # what the library would tell, the command prints itself
    try:
        status = app(list(arguments), prog_name="frostline", standalone_mode=False)
        sys.stdout.flush()
    except FrostlineError as error:
        return _say(str(error), error.exit_status)
    except _COMPLAINT as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "frostline"
        said = error.format_message().replace("Value error, ", "")  # a word of pydantic's, in which typer checks values
        return _say(f"{said}{_given(error, arguments)}\nSee: {path} --help", 2)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # typer exits where more is printed than a pipe's reader takes
        # The reader of our output is gone; Python must not complain at exit that it cannot flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        from frostline.base.files import is_no_room

        if is_no_room(error):
            return _say(f"There is no room left on the disk: {error}\nMake room and run this again.", 2)
        raise
    return int(status or 0)


def _given(error: Any, arguments: Sequence[str]) -> str:
    """What was given for the option that an error is about, where the error does not say it."""
    for option in getattr(getattr(error, "param", None), "opts", ()):
        for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
            value = following if word == option else word.removeprefix(f"{option}=")
            if word.startswith(option) and value != word and repr(value) not in error.format_message():
                return f"; given was {value!r}"
    return ""


def _say(message: str, status: int) -> int:
    print_error(f"frostline: {message}")
    return status
