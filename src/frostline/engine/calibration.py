"""A short measurement of what the prefix costs: computed, written to a store, and read back."""

from __future__ import annotations

import hashlib
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from frostline.engine.calls import DIGEST_BYTES
from frostline.engine.costs import Measured, Rates
from frostline.engine.replay import NotReplayable
from frostline.engine.store.packed import Packed, stored_streams
from frostline.engine.store.spec import StoreKey
from frostline.engine.store.store import Store
from frostline.engine.stored import spec_of
from frostline.errors import OutputError
from frostline.evidence.rng import RngState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from frostline.engine.calls import Call
    from frostline.engine.paths import Paths, Runner
    from frostline.engine.store.spec import StreamSpec

_REPEATS = 3  # of which the best counts: what else the machine does only adds
_LONG_ENOUGH = 0.04  # seconds; rows are added until one pass takes as long
_TRIAL_BYTES = 8 << 20  # are written to a store and read back, about
_TRIAL_ROWS = 4096  # at most


def calibrate(
    runner: Runner,
    paths: Paths,
    filling: Call,
    step: Call,
    *,
    dtype: torch.dtype | None = None,
    folder: Path | None = None,
) -> Measured:
    """Measure what the prefix costs on this machine.

    It takes some tenths of a second; of a large model fewer rows are run. The model, its modes and the random states
    stay as they are, and nothing stays on disk.

    Args:
        runner: Runs the model.
        paths: What its forward is spared, replay included.
        filling: A batch as the store is filled with: rows of about one length.
        step: A batch as a training step has it.
        dtype: The dtype that floats are stored in; None for their own.
        folder: The folder of stores; None where nothing may be kept on disk.

    Raises:
        NotReplayable: If nothing of the model, or of these batches, can be stored.
        StoreError: If the dtype cannot hold a value.
    """
    if paths.replay is None:
        raise NotReplayable("nothing is replayed")
    started = time.perf_counter()
    rng = RngState()
    streams = [spec_of(stream, paths) for stream in paths.replay.streams]
    try:
        fill, part = _seconds_per_token(runner, paths, filling, 1)
        anew, part = _seconds_per_token(runner, paths, step, part.rows.count)
        trial = _Trial(step, paths, runner.tap(part, paths), streams, dtype)
        token_bytes, row_bytes = trial.sizes(part.rows.tokens)
        memory = trial.rates(Store.in_memory(_key(), streams, dtype=dtype))
        disk = _on_disk(trial, folder, streams, dtype) if folder is not None else None
    finally:
        rng.restore()
    return Measured(fill, anew, token_bytes, row_bytes, memory, disk, time.perf_counter() - started)


def _seconds_per_token(runner: Runner, paths: Paths, call: Call, rows: int) -> tuple[float, Call]:
    """Seconds per token of the prefix, and the rows that they were measured on.

    The runs with fewer rows before also warm the caches up.

    Args:
        runner: Runs the model.
        paths: What its forward is spared.
        call: A batch.
        rows: Begin with so many of its rows.
    """
    device = call.rows.mask.device
    while True:
        part = _some(call, rows)
        run = partial(runner.tap, part, paths)
        best = _seconds(run, device)
        if best >= _LONG_ENOUGH or part.rows.count == call.rows.count:
            break
        rows *= 2
    best = min(best, *(_seconds(run, device) for _ in range(_REPEATS - 1)))
    return best / part.rows.tokens, part


def _some(call: Call, rows: int) -> Call:
    """So many of a batch's rows at most, evenly spread."""
    count = call.rows.count
    return call.select([place * count // rows for place in range(rows)]) if rows < count else call


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """What one run takes until its results are there."""
    _wait_for(device)
    started = time.perf_counter()
    run()
    _wait_for(device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


class _Trial:
    """Rows to write to a store and read back.

    Args:
        step: The batch that they are read for.
        paths: How the model is run.
        values: Per stream what is stored of some of its rows; written again and again, each time as other rows.
        streams: What is stored.
        dtype: The dtype that floats are stored in.
    """

    def __init__(
        self,
        step: Call,
        paths: Paths,
        values: Mapping[str, Packed],
        streams: Sequence[StreamSpec],
        dtype: torch.dtype | None,
    ) -> None:
        self._step = step
        self._whole = paths.whole
        element_bytes = {stream.spec.name: stream.element_bytes for stream in stored_streams(streams, dtype)}
        self._rows = len(next(iter(values.values())).lengths)
        self._bytes = {name: len(packed.values) * element_bytes[name] for name, packed in values.items()}
        self._per_row = {name for name, packed in values.items() if bool((packed.lengths == 1).all())}
        copies = max(1, min(_TRIAL_ROWS // self._rows, _TRIAL_BYTES // max(1, sum(self._bytes.values()))))
        self._values = {name: _repeated(packed, copies) for name, packed in values.items()}
        self._size = sum(self._bytes.values()) * copies
        numbers = range(self._rows * copies)
        self._digests = [hashlib.blake2b(str(row).encode(), digest_size=DIGEST_BYTES).digest() for row in numbers]

    def sizes(self, tokens: int) -> tuple[float, float]:
        """Bytes per token, and bytes per row besides.

        Args:
            tokens: Those of the rows.
        """
        per_token = sum(size for name, size in self._bytes.items() if name not in self._per_row)
        return per_token / tokens, sum(self._bytes[name] for name in self._per_row) / self._rows

    def rates(self, store: Store) -> Rates:
        """Write the rows, and read them back batch by batch.

        Raises:
            OutputError: If they cannot be written.
        """
        with store:
            device = self._step.rows.mask.device
            write = _seconds(lambda: self._write(store), device)
            read = min(_seconds(lambda: self._read(store), device) for _ in range(_REPEATS - 1))
        return Rates(self._size / write, self._size / read)

    def _write(self, store: Store) -> None:
        store.put(self._digests, self._values)
        store.flush()

    def _read(self, store: Store) -> None:
        """Do what a step does that runs from the store, batch by batch, in an order that jumps as a shuffled one."""
        device = self._step.rows.mask.device
        batches = -(-len(self._digests) // self._step.rows.count)
        for batch in range(batches):
            self._step.digests(whole=self._whole)
            wanted = self._digests[batch::batches]
            store.missing(wanted)
            for packed in store.get(wanted).values():
                packed.values.to(device)


def _repeated(packed: Packed, copies: int) -> Packed:
    once = (1,) * (packed.values.dim() - 1)
    return Packed(packed.values.repeat(copies, *once), packed.lengths.repeat(copies))


def _on_disk(trial: _Trial, folder: Path, streams: Sequence[StreamSpec], dtype: torch.dtype | None) -> Rates | None:
    """The rates of a store on the disk that a folder is on, or would be; None where nothing can be written there."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    try:
        with tempfile.TemporaryDirectory(prefix=".frostline-", dir=there) as place:
            return trial.rates(Store.on_disk(Path(place), _key(), streams, dtype=dtype))
    except (OSError, OutputError):
        return None


def _key() -> StoreKey:
    return StoreKey("", "", "", "", "", "")
