"""What a check finds, and all that was found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from frostline.base.json import picked

Severity = Literal["error", "warning", "note"]

PAGE = "docs/checks.md"
_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault, or one thing worth knowing.

    Attributes:
        slug: Its short name, which is also its section in the docs.
        severity: ``error``: training fails, or does not do what the flags say. ``warning``: it very likely
            does not do what was meant. ``note``: it costs something or surprises, and may be meant.
        units: The units concerned, in depth order.
        names: The parameters or modules concerned.
        cause: One sentence on what is wrong.
        mend: One sentence on what to do.
    """

    slug: str
    severity: Severity
    units: tuple[str, ...]
    names: tuple[str, ...]
    cause: str
    mend: str

    @property
    def link(self) -> str:
        """Where the docs explain it."""
        return f"{PAGE}#{self.slug}"

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain values."""
        return picked(self, "slug", "severity", "units", "names", "cause", "mend", "link")

    def __str__(self) -> str:
        where = f" ({some(self.units)})" if self.units else ""
        return f"{self.severity}: {self.slug}{where}\n  {self.cause}\n  {self.mend}\n  See {self.link}"


@dataclass(frozen=True, slots=True)
class Findings:
    """All that the checks found.

    Attributes:
        rows: The findings, the gravest first.
    """

    rows: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, rows: Iterator[Finding]) -> Findings:
        """Put findings in order: errors, warnings, notes."""
        return cls(tuple(sorted(rows, key=lambda row: _SEVERITIES.index(row.severity))))

    @property
    def worst(self) -> Severity | None:
        """The gravest severity; None where nothing was found."""
        return self.rows[0].severity if self.rows else None

    @property
    def ok(self) -> bool:
        """Whether there is neither an error nor a warning."""
        return self.worst in {None, "note"}

    @property
    def slugs(self) -> tuple[str, ...]:
        """The slug of each row."""
        return tuple(row.slug for row in self.rows)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def verdict(self) -> str:
        """The numbers of errors, warnings and notes in one line."""
        if not self.rows:
            return "Nothing found."
        counts = {word: sum(row.severity == word for row in self.rows) for word in _SEVERITIES}
        said = [f"{count} {word}{'s' * (count != 1)}" for word, count in counts.items() if count]
        return f"Found {', '.join(said)}."

    def to_dict(self) -> dict[str, Any]:
        """The findings as plain values."""
        return picked(self, "ok", "worst") | {"findings": [row.to_dict() for row in self.rows]}

    def __str__(self) -> str:
        return "\n\n".join((self.verdict, *map(str, self.rows)))


def some(names: tuple[str, ...] | list[str]) -> str:
    """The first few of some names, and how many more there are."""
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
