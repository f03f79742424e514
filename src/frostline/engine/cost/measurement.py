"""A short measurement of what the prefix costs: computed, written to a store, and read back."""

from __future__ import annotations

import hashlib
import tempfile
import time
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from frostline.base.files import existing_folder
from frostline.base.random_state import RngState
from frostline.engine.batch_inputs import DIGEST_BYTES
from frostline.engine.cost.costs import Measured, Rates
from frostline.engine.replay.boundary_tensors import spec_of
from frostline.engine.replay.replay import NotReplayable
from frostline.errors import OutputError
from frostline.store.packed import Packed, stored_streams
from frostline.store.spec import StoreKey
from frostline.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from frostline.engine.batch_inputs import Call
    from frostline.engine.fast_paths import FastPaths
    from frostline.engine.runner import Runner
    from frostline.store.spec import StreamSpec

# Rows are added until one pass has so many tokens and takes so many seconds, so that a large model runs a few only.
_ENOUGH_TOKENS, _LONG_ENOUGH = 64, 0.03
_ROUNDS = 5  # of which the best counts, as what else the machine does only adds
_LONGEST = 0.1  # seconds; after these, what was measured has to do
_READS = 2
_TRIAL_BYTES = 4 << 20  # are written to a store and read back, about
_TRIAL_ROWS = 1024  # at most


def calibrate(
    runner: Runner,
    paths: FastPaths,
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
        filling: A batch as the store is filled with: rows of about one length; `step` itself where steps fill it.
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
        rows = _enough_rows(runner, paths, filling)
        if filling is step:  # rows are stored as steps compute them
            fill = anew = _seconds_per_token(runner, paths, [step], rows)[0]
        else:
            fill, anew = _seconds_per_token(runner, paths, (filling, step), rows)
            fill = min(fill, anew)  # sorted rows are not slower: where they were, something else ran beside them
        part = _some(step, rows)
        trial = _Trial(step, paths, runner.tap(part, paths), streams, dtype)
        token_bytes, row_bytes = trial.sizes(part.rows.tokens)
        memory = trial.rates(Store.in_memory(_key(), streams, dtype=dtype))
        disk = _on_disk(trial, folder, streams, dtype) if folder is not None else None
    finally:
        rng.restore()
    return Measured(fill, anew, token_bytes, row_bytes, memory, disk, time.perf_counter() - started)


def _enough_rows(runner: Runner, paths: FastPaths, call: Call) -> int:
    """How many rows of a batch are enough to measure; trying it out also warms the caches up."""
    device = call.rows.mask.device
    rows = 1
    started = time.perf_counter()
    while True:
        part = _some(call, rows)
        seconds = _seconds(partial(runner.tap, part, paths), device)
        enough = seconds >= _LONG_ENOUGH and part.rows.tokens >= _ENOUGH_TOKENS
        if enough or time.perf_counter() - started > _LONGEST or part.rows.count == call.rows.count:
            return part.rows.count
        rows *= 2


def _seconds_per_token(runner: Runner, paths: FastPaths, calls: Sequence[Call], rows: int) -> list[float]:
    """Seconds per token of the prefix, for each of some batches.

    Of each, some rows and a quarter of them are run, in turn with those of the others, so that what else the machine
    does hits all alike.

    Args:
        runner: Runs the model.
        paths: What its forward is spared.
        calls: The batches.
        rows: How many of their rows are enough.
    """
    parts = [_some(call, count) for call in calls for count in (rows, max(1, rows // 4))]
    best = [inf] * len(parts)
    started = time.perf_counter()
    for turn in range(_ROUNDS):
        if turn and time.perf_counter() - started > _LONGEST:
            break
        now = [_seconds(partial(runner.tap, part, paths), part.rows.mask.device) for part in parts]
        best = list(map(min, best, now))
    runs = [(part.rows.tokens, seconds) for part, seconds in zip(parts, best, strict=True)]
    return [
        extrapolated(many, few, call.rows.tokens) for call, many, few in zip(calls, runs[::2], runs[1::2], strict=True)
    ]


def extrapolated(many: tuple[int, float], few: tuple[int, float], tokens: int) -> float:
    """Seconds per token of a batch, from what two parts of it took.

    Each run takes some seconds, in which the weights are read, and some more per token (on BERT-base and two cores
    28 ms and 0.8 ms).

    Args:
        many: Tokens and seconds of the larger part.
        few: Those of the smaller one.
        tokens: Those of the batch.
    """
    per_token = many[1] / many[0]
    if many[0] in {few[0], tokens}:
        return per_token
    # Never less than half of what was seen: the difference of two short times can be chance.
    slope = min(per_token, max(per_token / 2, (many[1] - few[1]) / (many[0] - few[0])))
    return slope + (many[1] - slope * many[0]) / tokens


def _some(call: Call, rows: int) -> Call:
    """So many of a batch's rows at most, evenly spread."""
    count = call.rows.count
    return call.select([(2 * place + 1) * count // (2 * rows) for place in range(rows)]) if rows < count else call


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """What one run takes until its results are there."""
    wait_for(device)
    started = time.perf_counter()
    run()
    wait_for(device)
    return time.perf_counter() - started


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was given; the processor always has."""
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
        paths: FastPaths,
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
            read = min(_seconds(lambda: self._read(store), device) for _ in range(_READS))
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
    there = existing_folder(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".frostline-", dir=there) as place:
            return trial.rates(Store.on_disk(Path(place), _key(), streams, dtype=dtype))
    except (OSError, OutputError):
        return None


def _key() -> StoreKey:
    return StoreKey("", "", "", "", "", "")
