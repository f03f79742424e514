from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from frostline.errors import StoreError
from frostline.store import memory
from frostline.store import store as module
from frostline.store.spec import StreamSpec
from frostline.store.store import Packed, Store
from tests.store import building
from tests.store.building import STREAMS, digests, holds, is_complete, key, on_disk, packed, put

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = st.lists(st.integers(0, 30), max_size=12)
STEPS = st.lists(st.tuples(st.sampled_from(["put", "get", "flush", "refresh", "reopen"]), ROWS), max_size=12)


@pytest.fixture(params=["memory", "disk"])
def new(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Store]:
    """Makes a store of one of the two kinds."""

    def _new(streams: tuple[StreamSpec, ...] = STREAMS, **options: Any) -> Store:
        if request.param == "memory":
            return Store.in_memory(key(), streams, **options)
        return Store.on_disk(tmp_path / "stores", key(), streams, **options)

    return _new


@given(steps=STEPS)
def test_against_a_plain_set_of_rows(steps: list[tuple[str, list[int]]]) -> None:
    """Memory and disk do the same; a store that is opened again holds what was put."""
    with tempfile.TemporaryDirectory() as folder:
        memory, disk = Store.in_memory(key(), STREAMS), on_disk(Path(folder))
        held: set[int] = set()
        for step, rows in steps:
            new = [position for position, row in enumerate(rows) if row not in held and row not in rows[:position]]
            assert memory.missing(digests(rows)) == disk.missing(digests(rows)) == new
            if step == "reopen":
                disk.close()
                disk = on_disk(Path(folder))
            for store in (memory, disk):
                if step == "put":
                    put(store, rows)
                elif step == "get":
                    assert holds(store, [row for row in rows if row in held])
                elif step in {"flush", "refresh"}:
                    getattr(store, step)()
            held |= set(rows) if step == "put" else set()
            assert memory.rows == disk.rows == len(held)
        assert all(holds(store, [*held, *held]) for store in (memory, disk))
        disk.close()


def test_a_segment_that_is_full(new: Callable[..., Store], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frostline.store.memory._SEGMENT_BYTES", 64)
    monkeypatch.setattr("frostline.store.writer._BLOCK_BYTES", 64)
    store = new()
    for row in range(20):
        put(store, [row])
    assert holds(store, [19, 3, 3, 0, 11, 7])
    assert holds(store, [])


def test_more_rows_than_a_block_takes(new: Callable[..., Store], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 4)
    store = new()
    put(store, [5])
    put(store, list(range(11)))
    assert holds(store, list(range(11)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_smaller_dtype(new: Callable[..., Store], dtype: torch.dtype) -> None:
    """Floats come back rounded, in the stream's own dtype; whole numbers come back as they were."""
    store, rows = new(dtype=dtype), list(range(9))
    put(store, rows)
    found, wanted = store.get(digests(rows)), packed(rows)
    for name, stream in wanted.items():
        rounded = (
            stream.values.to(dtype).to(stream.values.dtype) if stream.values.is_floating_point() else stream.values
        )
        assert torch.equal(found[name].values, rounded)
        assert found[name].values.dtype == stream.values.dtype
    assert not torch.equal(found["layer 4/0"].values, wanted["layer 4/0"].values)


def test_a_smaller_dtype_takes_less_room() -> None:
    """Bytes are those of the values: 12 rows of 4 numbers."""
    stream = StreamSpec("x", (4,), torch.float32)
    used = []
    for dtype in (None, torch.float16):
        store = Store.in_memory(key(), [stream], dtype=dtype)
        store.put(digests(range(12)), {"x": Packed(torch.zeros(12, 4), torch.ones(12, dtype=torch.int64))})
        used.append(store.bytes_used)
    assert used == [192, 96]


def test_values_that_float16_cannot_hold(new: Callable[..., Store]) -> None:
    store = new((StreamSpec("x", (), torch.float32),), dtype=torch.float16)
    one = torch.ones(1, dtype=torch.int64)
    store.put(digests([0]), {"x": Packed(torch.tensor([float("inf")]), one)})
    with pytest.raises(StoreError, match=r"'x' has values up to 7e\+04, which float16 cannot hold.\nStore it as bf"):
        store.put(digests([1]), {"x": Packed(torch.tensor([-7e4]), one)})
    assert store.rows == 1


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float16, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool],
)
def test_every_dtype(new: Callable[..., Store], dtype: torch.dtype) -> None:
    store = new((StreamSpec("x", (5,), dtype),))
    values = torch.tensor([[0, 1, 1, 0, 1], [1, 0, 0, 1, 1]]).to(dtype)
    store.put(digests([0, 1]), {"x": Packed(values, torch.tensor([2, 0]))})
    assert building.same(store.get(digests([1, 0])), {"x": Packed(values, torch.tensor([0, 2]))})


def test_rows_of_one_element(new: Callable[..., Store]) -> None:
    """Pooled vectors take another way, which must hold for a buffer that is larger than what is in it."""
    store = new((StreamSpec("pooled", (3,), torch.float32),))
    values = torch.randn(7, 3)
    store.put(digests(range(7)), {"pooled": Packed(values, torch.ones(7, dtype=torch.int64))})
    chosen = [6, 0, 0, 3]
    assert torch.equal(store.get(digests(chosen))["pooled"].values, values[chosen])


def test_what_is_given_back_is_the_callers(new: Callable[..., Store]) -> None:
    store = new()
    put(store, [3, 4])
    for stream in store.get(digests([3, 4])).values():
        stream.values.zero_()
        stream.lengths.zero_()
    assert holds(store, [3, 4])


def test_gradients_and_views_are_taken_as_values(new: Callable[..., Store]) -> None:
    store = new((StreamSpec("x", (2,), torch.float32),))
    values = torch.arange(6.0).view(2, 3).t().requires_grad_()
    store.put(digests([0]), {"x": Packed(values, torch.tensor([3]))})
    found = store.get(digests([0]))["x"].values
    assert torch.equal(found, values)
    assert not found.requires_grad


def test_a_row_that_is_not_there(new: Callable[..., Store]) -> None:
    store = new()
    put(store, [1])
    assert building.digest(1) in store
    assert building.digest(2) not in store
    with pytest.raises(StoreError, match=f"does not hold the row {building.digest(2).hex()}") as caught:
        store.get(digests([1, 2]))
    assert isinstance(caught.value, LookupError)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"half": Packed(torch.zeros(2, 2), torch.tensor([1, 1]))}, "elements of shape"),
        ({"half": Packed(torch.zeros(2, 2, 2), torch.tensor([1, 1]))}, "in torch.float32"),
        ({"half": Packed(torch.zeros(2, 2, 2).bfloat16(), torch.tensor([1, 2]))}, "not what its lengths say"),
        ({"half": Packed(torch.zeros(2, 2, 2).bfloat16(), torch.tensor([3, -1]))}, "not what its lengths say"),
        ({"half": Packed(torch.zeros(2, 2, 2).bfloat16(), torch.tensor([2]))}, "has 1 rows for 2 digests"),
        ({"other": Packed(torch.zeros(2), torch.tensor([1, 1]))}, r"got \[.*other"),
    ],
)
def test_values_that_do_not_fit(new: Callable[..., Store], change: dict[str, Packed], words: str) -> None:
    store = new()
    with pytest.raises(StoreError, match=words):
        store.put(digests([1, 2]), packed([1, 2]) | change)
    with pytest.raises(StoreError, match="16 bytes"):
        store.put([b"short", b""], packed([1, 2]))
    assert store.rows == 0
    put(store, [1, 2])
    assert holds(store, [2, 1])


@pytest.mark.parametrize("streams", [(), (STREAMS[0], STREAMS[0])])
def test_streams_need_names(new: Callable[..., Store], streams: tuple[StreamSpec, ...]) -> None:
    with pytest.raises(StoreError, match="a name of its own"):
        new(streams)


def test_complete_and_closed(new: Callable[..., Store]) -> None:
    complete = []
    with new() as store:
        for row in (1, 2):
            put(store, [row])
            complete.append(is_complete(store))
            store.complete()
            complete.append(is_complete(store))
        assert store.bytes_used > 0
    assert complete == [False, True, True, True]
    assert store.rows == 0
    with pytest.raises(StoreError, match="is closed"):
        put(store, [4])


def test_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def _none(*_: Any, **__: Any) -> None:
        raise MemoryError

    store = Store.in_memory(key(), STREAMS)
    monkeypatch.setattr(memory, "np", SimpleNamespace(empty=_none, uint8="uint8"))
    with pytest.raises(StoreError, match=r"no memory for a store of 201 MB more.\nKeep it on disk"):
        put(store, [1, 2])
