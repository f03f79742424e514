"""What a checkpoint holds: names, shapes and dtypes of its tensors, without reading their values."""

from __future__ import annotations

import pickle
from itertools import chain
from pathlib import Path

import torch

from frostline.base.hub import hub_in_reach
from frostline.base.json import read_json
from frostline.checkpoints.source import Source
from frostline.compat.models import dtype_in_header, hub_file, without_values
from frostline.errors import ModelError

DELTA_MANIFEST = "delta.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # as PEFT names them
SAFE, _PICKLED = "model.safetensors", "pytorch_model.bin"
# Files of weights, or of their index, in the order in which transformers looks for them.
WEIGHTS = tuple((single, f"{single}.index.json") for single in (SAFE, _PICKLED))


def weight_headers(source: Source) -> dict[str, torch.Tensor]:
    """Read what a checkpoint's files of weights hold.

    Args:
        source: A folder, or a hub name: its cached files if it is in the cache, else only the headers of its
            safetensors files are fetched.

    Returns:
        Per name in the checkpoint, a tensor of its shape and dtype on the meta device.

    Raises:
        ModelError: If there are no weights, or they are damaged, unsafe or out of reach.
    """
    folder = source.folder or _cached_folder(source.name)
    if folder is None:
        return _hub_headers(source.name)
    headers: dict[str, torch.Tensor] = {}
    for file in weight_files(folder, source.name):
        headers |= file_headers(file)
    return headers


def is_delta(folder: Path) -> bool:
    """Whether a folder holds a delta in the place of weights."""
    return (folder / DELTA_MANIFEST).is_file()


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds adapters of PEFT in the place of weights; what lies beside weights is no part of them."""
    return (folder / ADAPTER_CONFIG).is_file() and not any(
        (folder / file).is_file() for files in WEIGHTS for file in files
    )


def weight_files(folder: Path, name: str) -> list[Path]:
    """List the files that hold the weights of a folder, in the order in which transformers looks for them.

    Raises:
        ModelError: If there are none, or one that the index names is missing.
    """
    for single, index in WEIGHTS:
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            return _shards(folder / index)
    if is_adapter(folder):
        raise ModelError(
            f"The folder '{name}' holds adapters, not a whole model.\nExport one with them merged in: "
            "frostline train --merge."
        )
    raise ModelError(
        f"The folder '{name}' has a config.json but no weights ({SAFE} or {_PICKLED}).\n"
        "Copy the weights beside it; 'frostline inspect --from-config' looks at the configuration alone."
    )


def is_index(name: str) -> bool:
    """Whether a file has the name of an index of weights."""
    return name.endswith((".safetensors.index.json", ".bin.index.json"))


def shard_names(index: Path) -> list[str]:
    """Read the names of the files that hold the weights from their index.

    Raises:
        ModelError: If it cannot be read, or names none.
    """
    try:
        names = sorted({Path(name).name for name in read_json(index)["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"The index '{index}' cannot be read ({error}).\nCopy it anew from its source.") from None
    if not names:
        raise ModelError(f"The index '{index}' names no files.\nCopy it anew from its source.")
    return names


def _shards(index: Path) -> list[Path]:
    shards = [index.parent / name for name in shard_names(index)]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise ModelError(
            f"'{index}' names {len(shards)} files, of which {len(missing)} are missing: {', '.join(missing[:3])}.\n"
            "Copy them beside the index."
        )
    return shards


def file_headers(file: Path) -> dict[str, torch.Tensor]:
    """Read what one file of weights holds.

    Returns:
        Per name, a tensor of its shape and dtype on the meta device.

    Raises:
        ModelError: If it is damaged or unsafe.
    """
    from safetensors import SafetensorError

    try:
        file.open("rb").close()  # safetensors says of a file that may not be read that there is none
        headers = without_values(file)
    except SafetensorError as error:
        raise ModelError(
            f"The weights '{file}' are damaged ({error}; {file.stat().st_size:,} bytes).\n"
            "Copy the file anew from its source."
        ) from None
    except pickle.UnpicklingError as error:
        # So says torch where the bytes are no pickle, and where they are one of a kind that it never writes.
        what = "damaged, or " if "Unsupported operand" in str(error) else ""
        raise ModelError(
            f"The weights '{file}' are {what}a pickle with more than tensors in it; loading it could run foreign "
            "code.\n"
            "Ask for the model as safetensors, or convert it where you trust it."
        ) from None
    except (RuntimeError, EOFError, ValueError) as error:
        reason = (str(error).splitlines() or ["it ends too soon"])[0][:120]
        raise ModelError(
            f"The weights '{file}' cannot be read ({reason}).\nCopy the file anew from its source."
        ) from None
    except OSError as error:
        mend = "Change its permissions" if isinstance(error, PermissionError) else "Copy the file anew from its source"
        raise ModelError(f"The weights '{file}' cannot be read: {error.strerror or error}.\n{mend}.") from None
    if not isinstance(headers, dict) or not all(isinstance(value, torch.Tensor) for value in headers.values()):
        raise ModelError(
            f"The weights '{file}' are no table of names and tensors.\n"
            "Save them anew with save_pretrained, or torch.save(model.state_dict(), FILE)."
        )
    return headers


def _cached_folder(name: str) -> Path | None:
    """The hub's cache folder of a model, if its weights are in it."""
    for file in chain(*WEIGHTS):
        found = hub_file(name, file, cached_only=True)
        if found is not None:
            return found.parent
    return None


def _hub_headers(name: str) -> dict[str, torch.Tensor]:
    from huggingface_hub import get_safetensors_metadata
    from huggingface_hub.errors import NotASafetensorsRepoError

    if not hub_in_reach():
        raise unreachable(name)
    try:
        metadata = get_safetensors_metadata(name)
    except NotASafetensorsRepoError:
        # Names inside a pickle cannot be had without the file.
        file = hub_file(name, _PICKLED)
        if file is None:
            raise ModelError(f"The hub gave no weights of '{name}' ({SAFE} or {_PICKLED}).\nCheck the name.") from None
        return file_headers(file)
    except OSError as error:
        raise ModelError(f"The hub did not give the weights of '{name}': {str(error).splitlines()[0]}") from None
    return {
        tensor: torch.empty(info.shape, dtype=dtype_in_header(info.dtype), device="meta")
        for file in metadata.files_metadata.values()
        for tensor, info in file.tensors.items()
    }


def unreachable(name: str) -> ModelError:
    """The error for a hub name that is not in the cache while the hub is out of reach."""
    return ModelError(
        f"'{name}' is no folder here, is not in the hub's cache, and the hub cannot be reached.\n"
        "Give a folder, or run this once with a network."
    )
