"""The proof of one phase of a run: what was frozen in it stayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frostline.evidence.proof.fingerprint import Fingerprint


@dataclass(frozen=True, slots=True)
class PhaseProof:
    """What became of a model in one phase of a run.

    Attributes:
        number: The phase's number, from 1.
        train: The selector of what trained; all else was frozen.
        from_step: Optimizer steps that were taken when it began.
        to_step: Those that were when it ended.
        frozen: Number of tensors that had to stay.
        moved: Number of the parameters that may train and moved.
        others: Number of those that may train.
        drifted: Names of the tensors that moved although they were frozen.
    """

    number: int
    train: str
    from_step: int
    to_step: int
    frozen: int
    moved: int
    others: int
    drifted: tuple[str, ...]

    @classmethod
    def of(
        cls,
        before: Fingerprint,
        after: Fingerprint,
        frozen: frozenset[str],
        trained: frozenset[str],
        *,
        number: int,
        train: str,
        from_step: int,
        to_step: int,
    ) -> PhaseProof:
        """Compare the state in which a phase began with that in which it ended.

        Args:
            before: The first.
            after: The second.
            frozen: Names of the tensors that had to stay.
            trained: Names of the parameters that may train.
            number: As the attribute.
            train: As the attribute.
            from_step: As the attribute.
            to_step: As the attribute.
        """
        moved = {name for name, digest in before.digests.items() if after.digests.get(name) != digest}
        stay = frozen & before.digests.keys()
        return cls(
            number,
            train,
            from_step,
            to_step,
            len(stay),
            len(moved & trained),
            len(trained),
            tuple(sorted(moved & stay)),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PhaseProof:
        """Build it from what `to_dict` gives.

        Raises:
            TypeError: If it is anything else.
        """
        proof = cls(**{**values, "drifted": tuple(map(str, values["drifted"]))})
        counts = (proof.number, proof.from_step, proof.to_step, proof.frozen, proof.moved, proof.others)
        if not isinstance(proof.train, str) or not all(type(count) is int and count >= 0 for count in counts):
            raise TypeError("what a phase has")
        return proof

    def to_dict(self) -> dict[str, Any]:
        """The proof as plain values."""
        return asdict(self) | {"drifted": list(self.drifted)}

    def __str__(self) -> str:
        steps = f"phase {self.number} (steps {self.from_step + 1} to {self.to_step})"
        if self.drifted:
            named = ", ".join(self.drifted[:3]) + (" …" if len(self.drifted) > 3 else "")
            return f"{steps}: {len(self.drifted)} of {self.frozen} frozen tensors moved: {named}"
        return f"{steps}: {self.frozen} frozen tensors bit-identical, {self.moved} of {self.others} others moved"
