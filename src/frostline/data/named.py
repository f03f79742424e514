"""Reading data sets by name: from the Hugging Face hub, or from a folder.

A name may carry a split, ``NAME:SPLIT``, and a configuration, ``NAME:CONFIG:SPLIT``. A split may be
a slice, as ``datasets`` writes it: ``imdb:train[:1000]``. Where a data set asks for a configuration
and the second part names one, ``NAME:CONFIG`` is understood too.

The hub's client retries for about 25 seconds when there is no network. So one short connection is
tried first; without it, only data sets that are cached already are looked up.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from frostline.base.hub import hub_in_reach
from frostline.data.causes import first_line, system_error
from frostline.data.messages import listed, suggestion
from frostline.data.quiet_datasets import quiet_datasets
from frostline.errors import DataError, causes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import datasets
    from datasets.builder import DatasetBuilder

Role = Literal["train", "eval", "predict"]

_COLON_OUTSIDE_A_SLICE = re.compile(r":(?![^\[]*\])")


@dataclass(frozen=True)
class DataName:
    """The parts of ``NAME``, ``NAME:SPLIT`` or ``NAME:CONFIG:SPLIT``."""

    source: str
    name: str
    config: str | None = None
    split: str | None = None

    @staticmethod
    def name_in(source: str) -> str:
        """Returns a source without its configuration and split."""
        return _COLON_OUTSIDE_A_SLICE.split(source)[0]

    @classmethod
    def parse(cls, source: str) -> DataName:
        """Takes a name apart; the name of an existing folder may contain colons.

        Raises:
            DataError: There are too many parts, or an empty one.
        """
        if Path(source).expanduser().is_dir():
            return cls(source, source)
        name, *parts = _COLON_OUTSIDE_A_SLICE.split(source)
        if len(parts) > 2 or not all((name, *parts)) or "://" in source:
            raise DataError(
                f"{source!r} names no data set.\nWrite NAME, NAME:SPLIT or NAME:CONFIG:SPLIT, or the path of a file."
            )
        config = parts[0] if len(parts) == 2 else None
        return cls(source, name, config, parts[-1] if parts else None)


def read_named(name: DataName, role: Role) -> datasets.Dataset:
    """Reads one split of a data set from the hub or from a folder; the role decides where none is named.

    Raises:
        DataError: There is no such data set, configuration or split, or it cannot be reached.
    """
    folder = Path(name.name).expanduser()
    with quiet_datasets():
        try:
            if any((folder / file).is_file() for file in ("state.json", "dataset_dict.json")):
                return _read_saved(folder, name, role)
            target = str(folder) if folder.is_dir() else name.name
            with _only_cached_unless_reachable(target):
                builder, name = _builder(name, target)
                builder.download_and_prepare()
                split = _pick_split(name, list(builder.info.splits or ()), role)
                dataset: datasets.Dataset = builder.as_dataset(split=split)
                return dataset
        except DataError:
            raise
        except Exception as error:  # the hub, the network and the builders raise anything
            raise system_error(error, name.source) or _unreadable(name, error) from error


def _builder(name: DataName, target: str) -> tuple[DatasetBuilder, DataName]:
    """Finds the builder; reads ``NAME:CONFIG`` where a configuration is asked for."""
    from datasets import get_dataset_config_names, load_dataset_builder

    try:
        builder = load_dataset_builder(target, name.config)
    except ValueError as error:
        known = get_dataset_config_names(target) if "config" in str(error).casefold() else []
        if not known:
            raise
        if name.config is None and name.split in known:
            return _builder(DataName(name.source, name.name, name.split), target)
        if name.config is None:
            raise DataError(
                f"{name.source!r} needs a configuration, one of {listed(known, 20)}."
                f"\nWrite e.g. {name.name}:{known[0]}:{name.split or 'train'}."
            ) from None
        raise DataError(
            f"{name.source!r}: there is no configuration {name.config!r}."
            f"{suggestion(name.config, known)}\nThere are {listed(known, 20)}."
        ) from None
    if builder.name == "csv":  # texts such as "NA" and "null" are texts
        builder = load_dataset_builder(target, name.config, keep_default_na=False)
    return builder, name


def _read_saved(folder: Path, name: DataName, role: Role) -> datasets.Dataset:
    from datasets import Dataset, load_from_disk

    saved = load_from_disk(str(folder))
    if isinstance(saved, Dataset):
        if name.split is not None:
            raise DataError(
                f"{name.source!r}: the folder holds one table without splits.\nLeave out {':' + name.split!r}."
            )
        return saved
    split: Dataset = saved[_pick_split(name, [str(key) for key in saved], role)]
    return split


def _pick_split(name: DataName, known: Sequence[str], role: Role) -> str:
    if name.split is not None:
        base = re.split(r"[\[+]", name.split)[0]
        if known and base not in known:
            raise DataError(
                f"{name.source!r}: there is no split {base!r}.{suggestion(base, known)}\nThere are {listed(known)}."
            )
        return name.split
    wanted = {"train": ("train",), "eval": ("validation", "test"), "predict": ("test",)}[role]
    for split in (*wanted, *(known[:1] if role == "predict" else ())):
        if split in known:
            return split
    missing = " or ".join(map(repr, wanted))
    raise DataError(
        f"{name.source!r} has no split {missing}; there are {listed(known)}.\n"
        f"Name one, e.g. {name.source}:{known[0] if known else 'train'}."
    )


def _unreadable(name: DataName, error: Exception) -> DataError:
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    if Path(name.name).expanduser().is_dir():
        if any(isinstance(cause, FileNotFoundError) for cause in causes(error)):
            return DataError(
                f"{name.source!r} is a folder without any data in it.\n"
                "Name a file, or a folder with files such as train.csv and test.csv."
            )
        return DataError(
            f"{name.source!r} is a folder, but no data set: {first_line(error)}.\n"
            "Name a file in it, or a folder with files such as train.csv and test.csv."
        )
    what = f"{name.source!r}: there is no file or folder {name.name!r}"
    if isinstance(error, (ConnectionError, TimeoutError)):
        return DataError(
            f"{what}, and the Hugging Face hub cannot be reached to look for a data set.\n"
            "Check the path, or the network; a data set that was read once is found offline too."
        )
    if isinstance(error, (DatasetNotFoundError, HfHubHTTPError)):
        return DataError(
            f"{what}, and the Hugging Face hub shows no data set of that name: "
            f"{first_line(error)}.\nCheck the name; for a private or gated one, log in with "
            "`hf auth login`."
        )
    if isinstance(error, FileNotFoundError) and not isinstance(error, DatasetsError):
        return DataError(
            f"{what}, and a data set on the Hugging Face hub is called NAME or OWNER/NAME.\nCheck the path."
        )
    return DataError(
        f"{name.source!r} cannot be read as a data set: {first_line(error)}.\n"
        "Check the name, its configuration and its split (NAME:CONFIG:SPLIT)."
    )


@contextmanager
def _only_cached_unless_reachable(target: str) -> Iterator[None]:
    """Spares the hub client's retries: without a network, only the cache is looked up."""
    from datasets import config

    offline = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = offline or not (Path(target).is_dir() or hub_in_reach())
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = offline
