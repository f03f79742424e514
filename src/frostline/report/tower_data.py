"""A tower as the page's script reads it: rows instead of objects, as models may have thousands of parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_COLUMNS = ("name", "shape", "dtype", "bytes", "trains", "origin", "kinds")


def packed(tower: Mapping[str, Any]) -> dict[str, Any]:
    """Make rows of a tower's parameters.

    Args:
        tower: What ``Tower.to_dict()`` gives.
    """
    return {**tower, "units": [{**unit, "parameters": list(map(_row, unit["parameters"]))} for unit in tower["units"]]}


def _row(parameter: Mapping[str, Any]) -> list[Any]:
    row = [parameter[name] for name in _COLUMNS]
    return row if parameter["term"] == parameter["name"] else [*row, parameter["term"]]
