"""Every error that Frostline raises on purpose.

The tree::

    FrostlineError                 unusable input or arguments (exit status 2)
    ├── SelectorError              a selector that cannot be read, matches nothing or contradicts itself
    ├── PlanError                  a plan that cannot be read, or does not fit the model
    ├── ModelError                 a model that cannot be found, read or built
    ├── DataError                  a table of texts and labels that cannot be used
    ├── SettingsError              a setting out of its range, or one that this machine cannot serve
    ├── OutputError                a place that cannot be written
    ├── StoreError                 a store of activations that cannot be used, or a row that it does not hold
    ├── ClusterError               a run on a Ray cluster that failed
    ├── MissingExtraError          an optional part of Frostline is not installed
    ├── DivergedError              training ended with numbers that are not finite (exit status 1)
    └── DriftError                 a frozen tensor moved (exit status 1)

An error quotes what the user gave and says the mend, in one or two lines.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar


class FrostlineError(Exception):
    """Base of all errors raised on purpose; ``str(error)`` is fit for the user's eyes."""

    exit_status: ClassVar[int] = 2


class SelectorError(FrostlineError, ValueError):
    """A selector that cannot be read, matches nothing or contradicts itself."""


class PlanError(FrostlineError, ValueError):
    """A plan that cannot be read, or does not fit the model."""


class ModelError(FrostlineError):
    """A model that cannot be found, read or built."""


class DataError(FrostlineError, ValueError):
    """A table of texts and labels that cannot be used."""


class SettingsError(FrostlineError, ValueError):
    """A setting out of its range, or one that this machine cannot serve."""


class OutputError(FrostlineError):
    """A place that cannot be written.

    Attributes:
        full: The file or folder that finds no room; None where that is not the reason.
    """

    full: Path | None = None


class StoreError(FrostlineError, LookupError):
    """A store of activations that cannot be used, or a row that it does not hold."""


class ClusterError(FrostlineError):
    """A run on a Ray cluster that failed."""


class MissingExtraError(FrostlineError, ImportError):
    """An optional part of Frostline is not installed."""


class DivergedError(FrostlineError, ArithmeticError):
    """Training ended with numbers that are not finite."""

    exit_status: ClassVar[int] = 1


class DriftError(FrostlineError):
    """A frozen tensor moved.

    Attributes:
        proof: The comparison that found the drift, a `frostline.evidence.proof.proof.Proof`.
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, proof: Any) -> None:
        super().__init__(message)
        self.proof = proof


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, then what led to it, down to the first cause."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def as_given(value: Any) -> str:
    """What the user gave, cut to a part of a line, and its type: ``'bert', a str``."""
    return f"{' '.join(reprlib.repr(value).split())}, a {type(value).__name__}"
