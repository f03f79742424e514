from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from frostline.engine.fast_paths import FastPaths
from frostline.engine.replay.boundary_tensors import from_store, spec_of, to_store
from frostline.engine.replay.replay import NotReplayable, Stream
from frostline.engine.token_layout import TokenLayout

MASK = torch.tensor([[True, True, True], [True, False, False]])
ROWS = TokenLayout(MASK)
WIDTH = 4
PLAIN = Stream("tokens", 0, 1, (WIDTH,), torch.float32, ())
TURNED = Stream("turned", 1, 0, (WIDTH,), torch.float32, ())
BY_ROW = Stream("rows", 0, None, (WIDTH,), torch.float32, ())
SCALAR = Stream("scalars", 0, None, (), torch.float32, ())


def _draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from([PLAIN, TURNED]),
)
def test_of_tokens_the_real_ones_are_stored(lengths: list[int], extra: int, left: bool, stream: Stream) -> None:
    mask = torch.arange(max(lengths) + extra) < torch.tensor(lengths)[:, None]
    rows = TokenLayout(mask.flip(1) if left else mask)
    value = _draw(rows.count, rows.length, WIDTH)
    packed = to_store(stream, stream.as_taken(value), rows, FastPaths())
    assert packed.values.shape == (sum(lengths), *spec_of(stream, FastPaths()).shape)
    assert packed.lengths.tolist() == lengths
    back = stream.rows_first(from_store(stream, packed, rows, FastPaths(), packs=False))
    assert torch.equal(back, value * rows.mask[..., None])


def test_a_packed_tensor_is_stored_and_given_back_as_it_is() -> None:
    tokens = _draw(4, WIDTH)
    value = ROWS.fill(tokens)[None]
    packed = to_store(PLAIN, value, ROWS, FastPaths())
    assert packed.lengths.tolist() == [3, 1]
    assert torch.equal(packed.values, tokens)
    assert torch.equal(from_store(PLAIN, packed, ROWS, FastPaths(), packs=True), value)
    assert torch.equal(from_store(PLAIN, packed, ROWS, FastPaths(), packs=False), ROWS.pad(tokens))


def test_a_lone_row_is_not_taken_for_a_packed_one() -> None:
    rows = TokenLayout(torch.tensor([[False, True, True]]))
    value = _draw(1, 3, WIDTH)
    packed = to_store(PLAIN, value, rows, FastPaths())
    assert torch.equal(packed.values, value[0, 1:])


@pytest.mark.parametrize("stream", [BY_ROW, SCALAR])
def test_one_value_per_row(stream: Stream) -> None:
    value = _draw(2, *stream.shape)
    packed = to_store(stream, value, ROWS, FastPaths())
    assert packed.lengths.tolist() == [1, 1]
    assert packed.values.shape[1:] == spec_of(stream, FastPaths()).shape
    assert torch.equal(from_store(stream, packed, ROWS, FastPaths(), packs=False), value)


@pytest.mark.parametrize(("position", "places"), [("first token", [0, 0]), ("last token", [2, 0])])
def test_one_position_per_row(position: str, places: list[int]) -> None:
    paths = FastPaths(stored_positions={"tokens": position})  # type: ignore[dict-item]
    value = _draw(2, 3, WIDTH)
    packed = to_store(PLAIN, value, ROWS, paths)
    assert torch.equal(packed.values, value[[0, 1], places])
    assert packed.lengths.tolist() == [1, 1]
    back = from_store(PLAIN, packed, ROWS, paths, packs=False)
    assert torch.equal(back, value[[0, 1], places].unsqueeze(1).expand_as(value))


def test_one_position_of_a_packed_tensor() -> None:
    paths = FastPaths(stored_positions={"tokens": "last token"})
    tokens = _draw(4, WIDTH)
    packed = to_store(PLAIN, ROWS.fill(tokens)[None], ROWS, paths)
    assert torch.equal(packed.values, tokens[[2, 3]])


@pytest.mark.parametrize("stream", [PLAIN, TURNED, BY_ROW, SCALAR])
def test_whole_rows_with_their_padding(stream: Stream) -> None:
    paths = FastPaths(whole=True)
    shape = (2, *stream.shape) if stream.token_axis is None else (2, 3, *stream.shape)
    value = stream.as_taken(_draw(*shape))
    packed = to_store(stream, value, ROWS, paths)
    assert packed.values.shape[1:] == spec_of(stream, paths).shape
    assert len(packed.values) == packed.lengths.sum()
    assert torch.equal(from_store(stream, packed, ROWS, paths, packs=False), value)


def test_whole_rows_of_different_padding_do_not_fit_together() -> None:
    paths = FastPaths(whole=True)
    packed = to_store(PLAIN, _draw(2, 3, WIDTH), ROWS, paths)
    packed.lengths[0] = 2
    with pytest.raises(NotReplayable, match="different padding"):
        from_store(PLAIN, packed, ROWS, paths, packs=False)


@pytest.mark.parametrize(
    ("stream", "shape", "words"),
    [
        (PLAIN, (2, 3, WIDTH + 1), "another shape"),
        (PLAIN, (3, 3, WIDTH), "another shape"),
        (PLAIN, (2, 4, WIDTH), "another length than the text"),
        (BY_ROW, (2, WIDTH + 1), "another shape"),
    ],
)
def test_a_tensor_of_another_shape_is_refused(stream: Stream, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(NotReplayable, match=words):
        to_store(stream, _draw(*shape), ROWS, FastPaths())
