"""The weights of a run and of its base against the digests of a proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frostline.anatomy.kinds import kinds_of
from frostline.anatomy.origin import origin_of
from frostline.base.escaping import printable
from frostline.checkpoints.conversions import Places
from frostline.checkpoints.reading import open_checkpoint
from frostline.checkpoints.tensor_files import digests_of
from frostline.errors import ModelError
from frostline.evidence.proof.fingerprint import fingerprint
from frostline.evidence.proof.run_result import Disagreement

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from frostline.anatomy.modelmap import ModelMap
    from frostline.checkpoints.tensor_files import Checkpoint, StoredTensor
    from frostline.evidence.proof.proof import Proof


class StoredWeights:
    """Compares digests of stored tensors with those of a proof, and keeps count."""

    def __init__(self, model: PreTrainedModel, anatomy: ModelMap, proof: Proof) -> None:
        self._model = model
        self._firsts = {name: group[0] for group in anatomy.tied for name in group}
        self._parameters = {self._firsts.get(name, name) for name, _ in model.named_parameters()}
        self._proof = proof
        self._dtypes: dict[str, torch.dtype] = {}
        self.hashed = 0
        self.from_base = 0
        self.unverified: dict[str, str] = {}
        self.base: str | None = None

    def compare(self, folder: Path, base: str | None) -> Iterator[Disagreement]:
        """Where the proof is not borne out by the folder of the run, or by the base, if there is one.

        Raises:
            ModelError: If one of them cannot be read.
        """
        yield from self.after(open_checkpoint(folder))
        if base is None:
            return
        try:
            origin = open_checkpoint(base)
        except ModelError as error:
            raise ModelError(f"{str(error).splitlines()[0]}\nName the base of this run with --base.") from None
        self.base = origin.source.name
        yield from self.before(origin)

    def after(self, run: Checkpoint) -> Iterator[Disagreement]:
        """Where the folder's weights are not those that the proof saw at the end."""
        places = Places(self._model, run.tensors)
        for name in run.tensors:
            if not places(name):
                yield Disagreement(
                    "weights", name, f"the weights hold {printable(name)}, which the model does not have"
                )
        digests = self._digests(places, self._dtypes)
        for tensor in self._proof.tensors:
            digest = digests.get(tensor.name)
            if digest is not None and digest == tensor.after:
                self.hashed += 1
            elif digest is not None:
                yield Disagreement("weights", tensor.name, f"the weights of {tensor.name} are not those of the proof")
            elif tensor.name in self._parameters:
                yield Disagreement("weights", tensor.name, f"the weights do not hold {tensor.name}")
            elif tensor.after is not None:
                self.unverified[tensor.name] = "not saved with the weights"

    def before(self, base: Checkpoint) -> Iterator[Disagreement]:
        """Where the proof did not begin with the base's weights."""
        places = Places(self._model, base.tensors)
        reshaped = {
            self._firsts.get(name, name)
            for part in places.parts
            for name, shape in part.shapes.items()
            if shape != places.shapes[name]
        }
        digests = self._digests(places, dict(self._dtypes), leave=reshaped)
        step = self._proof.from_step
        for tensor in self._proof.tensors:
            if tensor.name in reshaped:
                if tensor.frozen:
                    yield Disagreement(
                        "base", tensor.name, f"{tensor.name} is frozen, but has another shape than in the base"
                    )
                else:
                    self.unverified.setdefault(tensor.name, "in another shape in the base")
            elif tensor.name not in digests:
                self.unverified.setdefault(tensor.name, "not in the base, so the state before training is not known")
            elif digests[tensor.name] == tensor.before:
                self.from_base += 1
            elif step and not tensor.frozen:
                self.unverified.setdefault(tensor.name, f"the proof begins at step {step}, not with the base")
            else:
                word = "frozen, but its" if tensor.frozen else "free, and its"
                yield Disagreement(
                    "base", tensor.name, f"{tensor.name} is {word} state before training is not that of the base"
                )

    def _digests(self, places: Places, dtypes: dict[str, torch.dtype], leave: Collection[str] = ()) -> dict[str, str]:
        """SHA-256 of what the loader makes of a checkpoint: per parameter or buffer, under its first name.

        Args:
            places: What its tensors are for.
            dtypes: Per name, the dtype to give the tensor before; names that it lacks are added.
            leave: Names to leave out.
        """
        digests: dict[str, str] = {}
        as_is: dict[str, StoredTensor] = {}
        for part in places.parts:
            names = {name: self._firsts.get(name, name) for name in part.shapes}
            if set(leave).issuperset(names.values()) or None in part.shapes.values():
                continue
            made = {names[name]: tensor for name, tensor in part.load().items()}
            made = {name: tensor.cast(dtypes.setdefault(name, tensor.dtype)) for name, tensor in made.items()}
            if part.conversion is None:
                as_is |= {name: tensor for name, tensor in made.items() if name not in as_is}
            else:  # in memory, so one at a time
                digests |= {name: tensor.digest() for name, tensor in made.items()}
        return digests | digests_of(as_is)


class AdaptedWeights:
    """Compares a model that was put together from a run's adapters and their base with a proof, and keeps count.

    Args:
        model: The model as PEFT loads it, the base's weights included.
        proof: The proof.
    """

    def __init__(self, model: nn.Module, proof: Proof) -> None:
        origin = origin_of(model)
        self.base = origin.source
        self._digests = fingerprint(model).digests
        self._adapters = kinds_of(model)["adapters"]
        self._drawn = origin.new - self._adapters
        self._proof = proof
        self.hashed = 0
        self.from_base = 0
        self.unverified: dict[str, str] = {}

    def compare(self, _folder: Path, _base: str | None) -> Iterator[Disagreement]:
        """Where the adapters are not those that the proof saw at the end, or the base is not the one of the run."""
        for tensor in self._proof.tensors:
            digest = self._digests.get(tensor.name)
            if tensor.name in self._drawn:
                self.unverified[tensor.name] = "not run: what is saved with the adapters stands in its place"
                continue
            self.hashed += digest == tensor.after
            if tensor.name in self._adapters or not tensor.frozen:  # or a bias, which PEFT trains where it is
                self.unverified[tensor.name] = "not in the base, so the state before training is not known"
                if digest != tensor.after:
                    yield Disagreement(
                        "weights", tensor.name, f"the weights of {tensor.name} are not those of the proof"
                    )
            elif digest == tensor.before:
                self.from_base += 1
            else:
                yield Disagreement(
                    "base",
                    tensor.name,
                    f"{tensor.name} is frozen, but its state before training is not that of the base",
                )
