"""What a delta says of itself, ``delta.json``, read with distrust."""

from __future__ import annotations

import json
import re
import stat
import struct
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from frostline.base.json import read_json, write_json
from frostline.base.sealing import file_digest, is_digest
from frostline.checkpoints.delta.write import dtype_of
from frostline.checkpoints.headers import DELTA_MANIFEST, is_index
from frostline.checkpoints.tensor_files import StoredTensor, read_safe_header
from frostline.errors import ModelError

MANIFEST, TENSORS = DELTA_MANIFEST, "delta.safetensors"
# What a delta keeps beside the weights: configuration, tokenizer, plan, proof, card; never code, never pickles.
KEPT_SUFFIXES = (".json", ".jsonl", ".txt", ".model", ".md", ".svg", ".jinja", ".vocab", ".tiktoken", ".codes")
_VERSION = 2
_LARGEST_MANIFEST = 16 << 20  # bytes
_LARGEST_HEADER = 16 << 20
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a delta is made of.

    Attributes:
        base: The base's hub name, or the absolute path of its folder.
        base_fingerprint: One digest for all tensors of the base.
        tuned_fingerprint: Likewise, of the tuned checkpoint.
        tuned_file: SHA-256 of the tuned one's only weights file; None where there were several, or a pickle.
        tensors_file: SHA-256 of ``delta.safetensors``.
        added: What the tuned one puts before the base's names.
        removed: What the base puts before the tuned one's names.
        renamed: Per name in the tuned one that does not follow from that, the name in the base.
        casts: Per name in the tuned one whose tensor is the base's in another floating-point dtype, that dtype, such as
            ``float32``.
        left_out: Names in the base that are not taken from it: they changed, or are missing.
        metadata: What the header of the tuned one's weights file says.
        files: Per file kept beside the weights, its SHA-256.
        base_files: Likewise, of files that are the base's; a JSON file may be laid out in another way there than it was
            beside the tuned weights.
    """

    base: str
    base_fingerprint: str
    tuned_fingerprint: str
    tuned_file: str | None
    tensors_file: str
    added: str = ""
    removed: str = ""
    renamed: dict[str, str] = field(default_factory=dict)
    casts: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    base_files: dict[str, str] = field(default_factory=dict)

    def write(self, file: Path) -> None:
        """Write it."""
        write_json(file, {"version": _VERSION} | asdict(self))

    def expected(self, base_name: str) -> str:
        """The name in the tuned checkpoint that follows from one in the base."""
        if self.removed:
            return base_name.removeprefix(self.removed)
        return self.added + base_name

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a delta.

        Raises:
            ModelError: If there is none, or it is damaged or hostile.
        """
        file = folder / MANIFEST
        if not file.exists() and not file.is_symlink():
            raise ModelError(
                f"The folder '{folder}' holds no {MANIFEST}, so it is no delta.\n"
                "Give a folder that 'frostline delta save' wrote."
            )
        require_plain(file)
        try:
            values = read_json(file, _LARGEST_MANIFEST)
        except (OSError, ValueError) as error:
            raise ModelError(f"'{file}' is damaged ({str(error)[:80]}).\nCopy the delta anew.") from None
        if not isinstance(values, dict) or values.pop("version", None) != _VERSION:
            raise ModelError(
                f"'{file}' is no delta of version {_VERSION}, which this Frostline reads.\nSave the delta anew."
            )
        _check(values, file)
        return cls(**values | {"left_out": tuple(values["left_out"])})


def _check(values: dict[str, Any], file: Path) -> None:
    tables = ("renamed", "casts", "metadata", "files", "base_files")
    digests = ["base_fingerprint", "tuned_fingerprint", "tensors_file"]
    digests += ["tuned_file"] if values.get("tuned_file") is not None else []
    wrong = [
        *(name for name in Manifest.__dataclass_fields__.keys() ^ values.keys()),
        *(name for name in ("base", "added", "removed") if not isinstance(values.get(name), str)),
        *(name for name in digests if not is_digest(values.get(name))),
        *(name for name in tables if not _is_table(values.get(name))),
        *(["left_out"] if not _is_list(values.get("left_out")) else []),
    ]
    if not wrong:
        wrong += [name for name in ("files", "base_files") if not all(map(is_digest, values[name].values()))]
    if wrong:
        raise ModelError(f"'{file}' is damaged: its '{wrong[0]}' is not what a delta has.\nCopy the delta anew.")
    for name in (*values["files"], *values["base_files"]):
        if not may_keep(name):
            raise ModelError(f"'{file}' is refused: {name[:80]!r} is no name of a file that a delta may bring.")


def _is_table(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values())


def _is_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def may_keep(name: str) -> bool:
    """Whether a delta may bring a file of this name: a plain one in the folder itself, no weights, no code."""
    weights = is_index(name) or name == MANIFEST
    return _PLAIN_NAME.fullmatch(name) is not None and name.endswith(KEPT_SUFFIXES) and not weights


def require_plain(file: Path) -> None:
    """Refuse what is no file itself.

    Raises:
        ModelError: If it is missing, a link, a folder or a device.
    """
    try:
        mode = file.lstat().st_mode
    except OSError as error:
        raise ModelError(f"'{file}' cannot be read: {error.strerror}.\nCopy the delta anew.") from None
    if not stat.S_ISREG(mode):
        what = "a link" if stat.S_ISLNK(mode) else "no file"
        raise ModelError(f"'{file}' is refused: it is {what}, and a delta consists of plain files.")


def require_digest(file: Path, digest: str) -> None:
    """Refuse a file that is not as the delta says.

    Raises:
        ModelError: If it differs.
    """
    require_plain(file)
    if file_digest(file) != digest:
        raise ModelError(f"'{file}' is damaged: its content is not what {MANIFEST} says.\nCopy the delta anew.")


def same_content(one: Path, other: Path) -> bool:
    """Whether two JSON files say the same, laid out in one way or another.

    Two files named ``tokenizer.json`` do where the tokenizers library makes the same of them: releases write more or
    fewer of the defaults.
    """
    if one.suffix != ".json":
        return False
    read = _read_tokenizer if one.name == "tokenizer.json" else _read_plain
    try:
        return read(one) == read(other)
    except (OSError, ValueError):
        return False


def _read_plain(file: Path) -> str:
    return json.dumps(read_json(file))  # so that 1 is not true, and keys keep their order


def _read_tokenizer(file: Path) -> str:
    from tokenizers import Tokenizer

    try:
        return str(Tokenizer.from_file(str(file)).to_str())
    except Exception as error:  # noqa: BLE001 - the library raises nothing more exact
        raise ValueError(str(error)) from None


def read_tensors(folder: Path, digest: str) -> dict[str, StoredTensor]:
    """Read where the tensors of a delta lie.

    Raises:
        ModelError: If the file is damaged or hostile.
    """
    from safetensors import SafetensorError, safe_open

    file = folder / TENSORS
    require_plain(file)
    with file.open("rb") as stream:
        start = stream.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if length > min(_LARGEST_HEADER, file.stat().st_size):
        raise ModelError(f"'{file}' is refused: its header would have {length:,} bytes.")
    require_digest(file, digest)
    try:
        with safe_open(file, framework="pt"):  # the library looks whether names, shapes and places fit the file
            header, begin = read_safe_header(file)
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ModelError(f"'{file}' is damaged ({str(error)[:80]}).\nCopy the delta anew.") from None
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        dtype = dtype_of(entry["dtype"])
        if dtype is None:
            raise ModelError(f"'{file}' is refused: {name[:80]!r} is of the unknown dtype {entry['dtype']}.")
        tensors[name] = StoredTensor(name, dtype, tuple(entry["shape"]), file, begin + entry["data_offsets"][0])
    return tensors
