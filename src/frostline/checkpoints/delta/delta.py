"""Deltas: only what fine-tuning changed, and the way back to the whole checkpoint."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from frostline.base.dtypes import dtype_word
from frostline.base.files import atomic_folder
from frostline.base.sealing import SEAL_FILE, file_digest
from frostline.checkpoints.conversions import Places
from frostline.checkpoints.delta.compare import same_values
from frostline.checkpoints.delta.delta_result import RebuiltDelta, SavedDelta
from frostline.checkpoints.delta.manifest import (
    MANIFEST,
    TENSORS,
    Manifest,
    may_keep,
    read_tensors,
    require_digest,
    same_content,
)
from frostline.checkpoints.delta.pair import pair
from frostline.checkpoints.delta.write import dtype_of_name, write_safetensors
from frostline.checkpoints.headers import SAFE, is_delta, is_index, weight_files
from frostline.checkpoints.meter import Meter, Report, silent
from frostline.checkpoints.quiet_loading import quiet
from frostline.checkpoints.skeleton import load_config, skeleton
from frostline.checkpoints.source import Source, given_name, locate
from frostline.checkpoints.tensor_files import Checkpoint, StoredTensor, digests_of, read_safe_header, whole_digest
from frostline.compat.models import hub_file
from frostline.errors import ModelError, OutputError, as_given

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from transformers import PreTrainedModel


def save_delta(
    base: str | PathLike[str], tuned: str | PathLike[str], out: str | PathLike[str], *, report: Report = silent
) -> SavedDelta:
    """Keep of a fine-tuned classifier what its base does not have.

    Args:
        base: What training started from: a folder or a hub name. The delta can only be loaded with it.
        tuned: What it ended with, likewise.
        out: The folder to make; it appears complete or not at all.
        report: Is called with the number of bytes that were looked at so far, and that of all.

    Raises:
        ModelError: If a checkpoint cannot be read, or the tuned one is no classifier.
        OutputError: If `out` is in use or cannot be written.
    """
    target = _target(out)
    first, second = _open_whole(base), _open_whole(tuned)
    olds, news = first.own, second.own
    model = _skeleton(second.source.name, second.folder)
    old_places, new_places = Places(model, olds), Places(model, news)
    pairing = pair(olds, news, old_places.as_is, new_places.as_is)
    meter = Meter(sum(tensor.bytes for tensor in (*olds.values(), *news.values(), *news.values())), report)
    kept: dict[str, str] = {}
    for name, new in news.items():
        old = pairing.base_of.get(name)
        if old is not None and same_values(olds[old], new):
            kept[name] = old
        meter.add(new.bytes)
    stored, used = {name: tensor for name, tensor in news.items() if name not in kept}, set(kept.values())
    _require_fit(second.source.name, model, new_places, news, kept)
    weights = weight_files(second.folder, second.source.name)
    single = weights[0] if len(weights) == 1 and weights[0].suffix == ".safetensors" else None
    metadata = read_safe_header(weights[0])[0].get("__metadata__") if weights[0].suffix == ".safetensors" else None
    with atomic_folder(target) as folder:
        files, base_files, left_out = _copy_files(second, first, {file.name for file in weights}, folder)
        manifest = Manifest(
            base=first.source.lasting_name,
            base_fingerprint=whole_digest(first.digests(meter)),
            tuned_fingerprint=whole_digest(second.digests(meter)),
            tuned_file=file_digest(single) if single is not None else None,
            tensors_file=write_safetensors(folder / TENSORS, stored, {"format": "pt"}),
            added=pairing.added,
            removed=pairing.removed,
            casts={
                name: dtype_word(news[name].dtype) for name, old in kept.items() if news[name].dtype != olds[old].dtype
            },
            left_out=tuple(name for name in olds if name not in used),
            metadata=metadata or {"format": "pt"},
            files=files,
            base_files=base_files,
        )
        renamed = {name: old for name, old in kept.items() if manifest.expected(old) != name}
        replace(manifest, renamed=renamed).write(folder / MANIFEST)
        size = sum(file.stat().st_size for file in folder.iterdir())
    return SavedDelta(str(target), first.source.name, tuple(stored), len(kept), tuple(files), tuple(left_out), size)


def rebuild_delta(
    delta: str | PathLike[str],
    out: str | PathLike[str],
    base: str | PathLike[str] | None = None,
    *,
    report: Report = silent,
) -> RebuiltDelta:
    """Rebuild the folder that a delta was saved from.

    Args:
        delta: The delta's folder.
        out: The folder to make; it appears complete or not at all.
        base: The base; by default what the delta names.
        report: Is called with the number of bytes that were hashed so far, and that of all.

    Raises:
        ModelError: If the delta is damaged or hostile, or the base is another one.
        OutputError: If `out` is in use or cannot be written.
    """
    target = _target(out)
    opened = OpenedDelta(delta, base, report)
    with atomic_folder(target) as folder:
        for name, file in opened.files.items():
            shutil.copyfile(file, folder / name)
        digest = write_safetensors(folder / SAFE, opened.tensors, opened.manifest.metadata)
    wanted = opened.manifest.tuned_file
    return RebuiltDelta(
        str(target), opened.base.source.name, len(opened.tensors), None if wanted is None else wanted == digest
    )


def load_delta(delta: str | PathLike[str], base: str | PathLike[str] | None = None) -> PreTrainedModel:
    """Load the model that a delta was saved from, without writing it out.

    Args:
        delta: The delta's folder.
        base: The base; by default what the delta names.

    Returns:
        The model in eval mode on the CPU, as ``from_pretrained`` gives it from the whole folder. Its
        ``name_or_path`` is the delta's folder.

    Raises:
        ModelError: If the delta is damaged or hostile, or the base is another one.
    """
    opened = OpenedDelta(delta, base)
    model_class: Any = type(opened.model)
    with quiet():
        model = model_class.from_pretrained(None, config=opened.model.config, state_dict=opened.values(), dtype="auto")
    model.name_or_path = model.config.name_or_path = str(opened.folder)  # as from_pretrained sets both
    return cast("PreTrainedModel", model)


def delta_headers(delta: Path) -> dict[str, torch.Tensor]:
    """Read what the checkpoint that a delta was saved from holds, without looking whether the base is the right one.

    Returns:
        Per name, a tensor of its shape and dtype on the meta device.

    Raises:
        ModelError: If the delta is damaged or hostile, or its base is out of reach.
    """
    manifest = Manifest.read(delta)
    stored = read_tensors(delta, manifest.tensors_file)
    tensors = _rebuilt(manifest, _open_base(manifest.base).own, stored, delta)[0] | stored
    return {name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") for name, tensor in tensors.items()}


class OpenedDelta:
    """A delta and its base, looked through: nothing of it is used before all of it is found to fit.

    Args:
        delta: The delta's folder.
        base: The base; by default what the delta names.
        report: Is called with the number of bytes that were hashed so far, and that of all.

    Attributes:
        manifest: What the delta says of itself.
        base: The base.
        model: The classifier that the configuration makes, without values.
        tensors: Per name, every tensor of the tuned checkpoint.
        files: Per name, the file to copy beside the weights.

    Raises:
        ModelError: If it is damaged or hostile, or the base is another one by now or out of reach.
    """

    def __init__(
        self, delta: str | PathLike[str], base: str | PathLike[str] | None = None, report: Report = silent
    ) -> None:
        self.folder = folder = Path(given_name(delta)).expanduser()
        if not folder.is_dir():
            raise ModelError(f"There is no folder '{folder}'.\nGive the folder that 'frostline delta save' wrote.")
        self.manifest = manifest = Manifest.read(folder)
        stored = read_tensors(folder, manifest.tensors_file)
        for name, digest in manifest.files.items():
            require_digest(folder / name, digest)
        self.base = _open_base(manifest.base if base is None else base)
        olds = self.base.own
        meter = Meter(sum(tensor.bytes for tensor in (*olds.values(), *stored.values())), report)
        digests = digests_of(olds, meter)
        if whole_digest(digests) != manifest.base_fingerprint:
            raise ModelError(
                f"'{self.base.source.name}' is not the base of the delta '{folder}': its weights are other ones.\n"
                f"The delta was saved against '{manifest.base}'; name that very checkpoint as the base."
            )
        kept, old_names = _rebuilt(manifest, olds, stored, folder)
        self.tensors = kept | stored
        self.files = {name: folder / name for name in manifest.files} | {
            name: _base_file(self.base, name, digest) for name, digest in manifest.base_files.items()
        }
        if "config.json" not in self.files:
            raise ModelError(f"The delta '{folder}' has no config.json.\nCopy it anew.")
        self.model = _skeleton(str(folder), self.files["config.json"].parent)
        _require_fit(str(folder), self.model, Places(self.model, self.tensors), self.tensors, old_names)
        found = {name: digests[old] for name, old in old_names.items() if name not in manifest.casts}
        found |= digests_of({name: kept[name] for name in manifest.casts}) | digests_of(stored, meter)
        if whole_digest(found) != manifest.tuned_fingerprint:
            raise ModelError(
                f"The delta '{folder}' is damaged: it does not give the tensors that were saved.\nCopy it anew."
            )

    def values(self) -> dict[str, torch.Tensor]:
        """Every tensor of the tuned checkpoint, in memory."""
        return {name: tensor.load() for name, tensor in self.tensors.items()}

    @contextmanager
    def files_in_one_folder(self) -> Iterator[Path]:
        """Yield a folder that holds the files, and that is gone afterwards."""
        with tempfile.TemporaryDirectory() as name:
            for file in self.files:
                shutil.copyfile(self.files[file], Path(name) / file)
            yield Path(name)


def _rebuilt(
    manifest: Manifest, base: Mapping[str, StoredTensor], stored: Mapping[str, StoredTensor], folder: Path
) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Take from the base what a delta does not hold: per name in the tuned checkpoint, the tensor and its base name."""
    settled = {*manifest.renamed.values(), *manifest.left_out}
    strange = settled - base.keys()
    if strange:
        raise ModelError(f"The delta '{folder}' is refused: its base has no tensor {min(strange)[:80]!r}.")
    names = dict(manifest.renamed) | {manifest.expected(name): name for name in base if name not in settled}
    twice = names.keys() & stored.keys()
    if twice:
        raise ModelError(f"The delta '{folder}' is refused: it has {min(twice)[:80]!r} twice.")
    tensors = {name: base[old] for name, old in names.items()}
    for name, word in manifest.casts.items():
        dtype = dtype_of_name(word)
        if (
            name not in tensors
            or dtype is None
            or not (dtype.is_floating_point and tensors[name].dtype.is_floating_point)
        ):
            raise ModelError(f"The delta '{folder}' is refused: it cannot cast {name[:80]!r} to {word[:20]!r}.")
        tensors[name] = tensors[name].cast(dtype)
    return tensors, names


def _skeleton(name: str, folder: Path) -> PreTrainedModel:
    return skeleton(load_config(Source(str(folder), folder)), name)


def _require_fit(
    name: str, model: PreTrainedModel, places: Places, tensors: Iterable[str], base_of: Mapping[str, str]
) -> None:
    """Refuse tensors that a model has no place for, but those that the base has under that very name."""
    for tensor in tensors:
        if not places(tensor) and base_of.get(tensor) != tensor:
            raise ModelError(
                f"'{name}' holds a tensor {tensor[:80]!r}, which {type(model).__name__} has no place for.\n"
                "A delta holds the tensors of a sequence classifier."
            )
    for part in places.parts:
        for parameter, shape in part.shapes.items():
            if shape != places.shapes[parameter]:
                said = "of shapes that do not fit together" if shape is None else f"of the shape {list(shape)}"
                raise ModelError(
                    f"'{name}' holds {next(iter(part.sources))[:80]} {said}, but its configuration makes "
                    f"{parameter[:80]} {list(places.shapes[parameter])}."
                )


def _copy_files(
    tuned: Checkpoint, base: Checkpoint, weights: set[str], folder: Path
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Copy what lies beside the weights; what the base has too stays there, however its JSON is laid out.

    The files of a run come back byte by byte, as the list of their digests wants it.
    """
    is_run = (tuned.folder / SEAL_FILE).is_file()
    files: dict[str, str] = {}
    base_files: dict[str, str] = {}
    left_out: list[str] = []
    for file in _beside(tuned.folder, weights):
        if not may_keep(file.name):
            left_out.append(file.name)
            continue
        digest = file_digest(file)
        twin = base.folder / file.name
        is_twin = file.name != "config.json" and twin.is_file()
        if is_twin and (file_digest(twin) == digest or (not is_run and same_content(file, twin))):
            base_files[file.name] = file_digest(twin)
        else:
            shutil.copyfile(file, folder / file.name)
            files[file.name] = digest
    return files, base_files, left_out


def _beside(folder: Path, weights: set[str]) -> Iterator[Path]:
    for file in sorted(folder.iterdir()):
        if file.name not in weights and not is_index(file.name):
            yield file


def _target(out: Any) -> Path:
    """The folder to make.

    Raises:
        OutputError: If what was given is no path.
    """
    if not isinstance(out, str | PathLike):
        raise OutputError(f"What was given for the folder to make is {as_given(out)}.\nGive a path.")
    return Path(out).expanduser()


def _open_base(base: str | PathLike[str]) -> Checkpoint:
    try:
        return _open_whole(base)
    except ModelError as error:
        raise ModelError(
            f"{str(error).splitlines()[0]}\nName the base of the delta with --base (base=) of 'frostline delta load'."
        ) from None


def _open_whole(name: str | PathLike[str]) -> Checkpoint:
    """Open a checkpoint, but no delta: its base might be one too, or the delta itself."""
    folder = locate(name).folder
    if folder is not None and is_delta(folder):
        raise ModelError(f"'{folder}' is a delta itself.\nRebuild it first: frostline delta load.")
    return Checkpoint.open(name)


def _base_file(base: Checkpoint, name: str, digest: str) -> Path:
    file = base.folder / name
    if not file.is_file() and base.source.folder is None:
        file = hub_file(base.source.name, name) or file
    if not file.is_file() or file_digest(file) != digest:
        raise ModelError(
            f"The delta needs '{name}' of its base '{base.source.name}', which is missing or another one there.\n"
            "Name the very checkpoint that the delta was saved against."
        )
    return file
