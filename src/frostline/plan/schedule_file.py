"""Schedules in TOML files."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from frostline.base.escaping import printable
from frostline.base.files import open_regular
from frostline.errors import PlanError
from frostline.plan.schedule import Schedule

SCHEDULE_FILE = "schedule.toml"
_LARGEST = 1 << 20  # bytes
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def read_schedule(source: Path | str) -> Schedule:
    """Read a schedule from a TOML file.

    Raises:
        PlanError: If there is none, or it is no schedule.
    """
    file = Path(source).expanduser()
    try:
        with open_regular(file) as stream:
            content = stream.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise PlanError(f"The schedule '{source}' is larger than {_LARGEST:,} bytes.")
        values = tomllib.loads(content.decode())
    except FileNotFoundError:
        raise PlanError(
            f"There is no schedule at '{source}'.\n'frostline schedule MODEL --preset NAME' prints one to edit."
        ) from None
    except (OSError, ValueError, RecursionError) as error:  # what TOML has to say is a ValueError
        raise PlanError(f"The schedule '{source}' cannot be read: {' '.join(str(error).split())[:200]}.") from None
    return Schedule.from_dict(values, str(source))


def schedule_text(schedule: Schedule, *comments: str) -> str:
    """Write a schedule as TOML that `read_schedule` reads.

    Args:
        schedule: The schedule.
        *comments: Lines to begin with.
    """
    values = schedule.to_dict()
    lines = [f"# {printable(' '.join(comment.split()))}" for comment in comments] + [""] * bool(comments)
    lines.append(
        f"optimizer_state = {_value(values['optimizer_state'])}  # of what freezes and thaws again: kept, or reset"
    )
    for phase in values["phase"]:
        lines += ["", "[[phase]]", *_pairs(phase)]
    return "\n".join(lines) + "\n"


def _pairs(values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        yield f"{key if _BARE.fullmatch(key) else _value(key)} = {_value(value)}"


def _value(value: Any) -> str:
    """A text, a number, or texts and numbers by name, as TOML has them."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(_pairs(value))} }}"
    if isinstance(value, str):  # JSON escapes all that TOML does, but for one control character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
