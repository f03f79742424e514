from __future__ import annotations

import pytest
import torch

from frostline.engine.replay.replay import Stream


@pytest.mark.parametrize(
    ("stream", "taken", "rows_first"),
    [
        (Stream("plain", 0, 1, (5,), torch.float32, ()), (2, 3, 5), (2, 3, 5)),
        (Stream("turned", 1, 0, (5,), torch.float32, ()), (3, 2, 5), (2, 3, 5)),
        (Stream("channels between", 0, 2, (5,), torch.float32, ()), (2, 5, 3), (2, 3, 5)),
        (Stream("last", 2, 3, (4, 5), torch.float32, ()), (4, 5, 2, 3), (2, 3, 4, 5)),
        (Stream("no positions", 0, None, (5,), torch.float32, ()), (2, 5), (2, 5)),
        (Stream("rows only", 0, None, (), torch.float32, ()), (2,), (2,)),
    ],
    ids=lambda value: value.name if isinstance(value, Stream) else "",
)
def test_axes_are_moved_there_and_back(stream: Stream, taken: tuple[int, ...], rows_first: tuple[int, ...]) -> None:
    value = torch.randn(taken, generator=torch.Generator().manual_seed(0))
    assert stream.rows_first(value).shape == rows_first
    assert torch.equal(stream.as_taken(stream.rows_first(value)), value)
    assert stream.is_plain == (stream.name == "plain")
