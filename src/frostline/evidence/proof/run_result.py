"""What checking a run's files found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from frostline.base.escaping import printable
from frostline.base.json import picked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frostline.evidence.proof.proof import Proof


PROOF_FILE, METRICS_FILE = "proof.json", "metrics.json"  # that a run leaves


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two files that do not agree.

    Attributes:
        file: What disagrees with the proof: ``weights``, ``base``, ``plan.json``, ``metrics.json``; ``proof.json`` with
            itself; or a file of the run that is not as the run wrote it.
        name: The tensor; None where it is about the file as a whole.
        text: What is wrong, in one sentence.
    """

    file: str
    name: str | None
    text: str

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """The disagreement as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RunProof:
    """The proof of a run, and whether the files bear it out.

    Attributes:
        folder: The run's folder.
        base: The checkpoint that it started from; None where none is known.
        proof: The proof, drawn up anew from the digests in ``proof.json``.
        disagreements: Where the files contradict it.
        hashed: Number of tensors of the folder whose digest is the one of the proof.
        from_base: Number of tensors whose digest before training is that of the base.
        unverified: Per tensor that the files tell nothing of, why.
        files: Number of files that the run left and listed in ``files.json``; 0 where there is no such list.
        digest: One digest for all of them, in hex digits; None where there is no such list.
        beside: Names of what lies in the folder and was not left by the run.
    """

    folder: str
    base: str | None
    proof: Proof
    disagreements: tuple[Disagreement, ...]
    hashed: int
    from_base: int
    unverified: dict[str, str]
    files: int = 0
    digest: str | None = None
    beside: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no frozen tensor moved, and all files agree."""
        return self.proof.ok and not self.disagreements

    def __str__(self) -> str:
        lines = [f"Proof: {self.proof}."]
        lines += [f"Disagreement: {disagreement}." for disagreement in self.disagreements]
        if self.digest is not None:
            as_they_were = "" if self.disagreements else ", as the run wrote them"
            lines.append(f"{self.files} files{as_they_were}; digest {self.digest}.")
        if self.beside:
            lines.append(f"Not left by the run: {_some(self.beside)}.")
        base = f"{self.from_base} began as they are in {self.base}" if self.base else "no base is known to compare with"
        lines.append(f"{self.hashed} tensors are as the proof says; {base}.")
        reasons: dict[str, list[str]] = {}
        for name, reason in self.unverified.items():
            reasons.setdefault(reason, []).append(name)
        lines += [
            f"Not verifiable: {len(names)} tensors ({reason}): {_some(names)}." for reason, names in reasons.items()
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values."""
        counts = ("hashed", "from_base", "unverified", "files", "digest", "beside")
        return (
            picked(self, "folder", "base", "ok") | {"verdict": str(self.proof)} | picked(self, "disagreements", *counts)
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:4])) + (" …" if len(names) > 4 else "")
