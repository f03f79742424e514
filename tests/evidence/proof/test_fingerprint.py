"""Fingerprints: every bit counts."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import frostline as fl
from frostline.evidence.proof.fingerprint import Fingerprint, tensor_digest
from tests.models import Plain, names_of, tiny

if TYPE_CHECKING:
    from pathlib import Path

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int64, torch.uint8, torch.bool)


def _tensor(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)


class Zoo(nn.Module):
    """Tensors of many dtypes and shapes, parameters and buffers."""

    def __init__(self) -> None:
        super().__init__()
        for dtype in DTYPES:
            self.register_buffer(f"buffer_{str(dtype).removeprefix('torch.')}", _tensor(dtype, 3, 5))
        self.register_buffer("quarter", torch.ones(4).to(torch.float8_e4m3fn))
        self.register_buffer("wave", torch.ones(3, dtype=torch.complex64))
        self.register_buffer("scalar", torch.tensor(1.5))
        self.register_buffer("turned", torch.randn(3, 4, generator=torch.Generator().manual_seed(2)).t())
        self.register_buffer("hidden", torch.zeros(2), persistent=False)
        self.weight = nn.Parameter(torch.randn(4, 3, generator=torch.Generator().manual_seed(3)))
        self.codes = nn.Parameter(torch.zeros(2, dtype=torch.int8), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(()))


def flip(tensor: torch.Tensor, element: int, bit: int) -> None:
    """Flip one bit of one element, counted in row-major order, wherever it lies in memory."""
    values = tensor.detach()
    place = values.reshape(-1)[element : element + 1].clone()
    place.view(torch.uint8)[bit // 8] ^= 1 << bit % 8
    if values.dim() == 0:
        values.copy_(place[0])
    else:
        index = tuple(int(i) for i in torch.unravel_index(torch.tensor(element), values.shape))
        values[index] = place[0]


ZOO = Zoo()
TENSORS = dict(ZOO.named_parameters()) | dict(ZOO.named_buffers())


@given(st.data())
def test_every_flipped_bit_is_seen(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(TENSORS)))
    tensor = TENSORS[name]
    element = data.draw(st.integers(0, tensor.numel() - 1))
    # A bool holds one bit that counts.
    bit = data.draw(st.integers(0, 0 if tensor.dtype == torch.bool else 8 * tensor.element_size() - 1))
    before = fl.fingerprint(ZOO)

    flip(tensor, element, bit)
    after = fl.fingerprint(ZOO)
    flip(tensor, element, bit)

    assert {key for key in TENSORS if before.digests[key] != after.digests[key]} == {name}
    assert before.whole != after.whole
    assert fl.fingerprint(ZOO) == before


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5), (7,), (), (0,), (2, 0, 3)])
def test_the_digest_is_what_it_says(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = _tensor(dtype, *shape)
    content = bytes(tensor.contiguous().view(-1).view(torch.uint8).tolist())
    expected = hashlib.sha256(f"{dtype} {shape}\n".encode() + content).hexdigest()
    assert tensor_digest(tensor) == expected


def test_dtype_and_shape_matter() -> None:
    tensors = [
        torch.zeros(2, 3),
        torch.zeros(3, 2),
        torch.zeros(6),
        torch.zeros(6, 1),
        torch.zeros(6, dtype=torch.int32),
        torch.zeros(12, dtype=torch.float16),
        torch.zeros(12, dtype=torch.bfloat16),
        torch.zeros(24, dtype=torch.int8),
        torch.zeros(24, dtype=torch.bool),
        torch.zeros(0),
        torch.zeros(0, 2),
        torch.zeros(()),
        torch.zeros(1),
    ]
    assert len({tensor_digest(tensor) for tensor in tensors}) == len(tensors)


def test_zeros_and_not_a_numbers_are_told_by_their_bits() -> None:
    nans = torch.tensor([0x7FC00000, 0x7FC00001], dtype=torch.int32).view(torch.float32)
    values = [torch.tensor([0.0]), torch.tensor([-0.0]), nans[:1], nans[1:]]
    assert len({tensor_digest(value) for value in values}) == 4


@pytest.mark.parametrize(
    "view",
    [
        lambda tensor: tensor.t().contiguous().t(),
        lambda tensor: torch.stack([tensor, tensor], dim=-1)[..., 0],
        nn.Parameter,
        lambda tensor: torch.cat([torch.zeros(1, 3), tensor])[1:],
    ],
)
def test_how_it_lies_in_memory_does_not_matter(view: Any) -> None:
    tensor = torch.arange(12.0).reshape(4, 3)
    assert tensor_digest(view(tensor)) == tensor_digest(tensor)


def test_values_that_are_computed_when_read() -> None:
    tensor = torch.tensor([1 + 2j, 3 - 4j])
    assert tensor.conj().is_conj()
    assert tensor_digest(tensor.conj()) == tensor_digest(torch.tensor([1 - 2j, 3 + 4j]))
    assert tensor.conj().imag.is_neg()
    assert tensor_digest(tensor.conj().imag) == tensor_digest(torch.tensor([-2.0, 4.0]))


def test_an_expanded_tensor() -> None:
    assert tensor_digest(torch.ones(1).expand(4)) == tensor_digest(torch.ones(4))


def test_tied_names_stand_once() -> None:
    taken = fl.fingerprint(tiny("t5"))
    aliases = ("transformer.encoder.embed_tokens.weight", "transformer.decoder.embed_tokens.weight")
    assert taken.aliases == dict.fromkeys(aliases, "transformer.shared.weight")
    assert "transformer.shared.weight" in taken.digests
    assert not taken.digests.keys() & taken.aliases.keys()


def test_parameters_and_buffers_all() -> None:
    model = Plain()
    assert set(fl.fingerprint(model).digests) == {
        name for name, _ in (*model.named_parameters(), *model.named_buffers())
    }


def test_a_buffer_that_is_not_saved_counts() -> None:
    assert "hidden" in fl.fingerprint(ZOO).digests


def test_the_order_does_not_matter_for_the_whole() -> None:
    taken = fl.fingerprint(Plain())
    turned = Fingerprint(dict(reversed(taken.digests.items())), taken.aliases)
    assert list(turned.digests) != list(taken.digests)
    assert turned.whole == taken.whole


def test_the_whole_tells_two_tensors_apart() -> None:
    first, second = nn.ParameterDict({"a": torch.zeros(1), "b": torch.ones(1)}), nn.ParameterDict()
    second["a"], second["b"] = first["b"], first["a"]
    assert fl.fingerprint(first).whole != fl.fingerprint(second).whole


def test_equal_models_have_equal_fingerprints() -> None:
    assert fl.fingerprint(tiny("bert")) == fl.fingerprint(tiny("bert"))
    assert fl.fingerprint(tiny("bert")).whole != fl.fingerprint(tiny("bert", hidden_size=32)).whole


def test_values_bring_it_back() -> None:
    model = tiny("t5")
    fl.freeze(model, "encoder.layers[0]")
    taken = fl.fingerprint(model)
    again = Fingerprint.from_dict(json.loads(json.dumps(taken.to_dict())))
    assert again == taken
    assert again.frozen == taken.frozen == frozenset(names_of(model, "transformer.encoder.block.0."))
    assert set(taken.to_dict()) == {"digests", "aliases", "frozen"}


def test_what_an_earlier_release_wrote() -> None:
    values = fl.fingerprint(tiny("t5")).to_dict()
    del values["frozen"]
    taken = Fingerprint.from_dict(values)
    assert taken.frozen is None
    assert taken.to_dict() == values


def test_what_is_frozen_is_noted() -> None:
    model = Plain()
    assert fl.fingerprint(model).frozen == frozenset()
    fl.freeze(model, "layers[0]")
    model.classifier.bias.requires_grad_(False)
    tensors = (*model.named_parameters(), *model.named_buffers())
    block = {name for name, _ in tensors if name.startswith("blocks.0.")}
    assert fl.fingerprint(model).frozen == frozenset({"classifier.bias", *block})


def test_a_checkpoint_does_not_tell_what_is_frozen(tmp_path: Path) -> None:
    model = tiny("bert")
    fl.freeze(model, "backbone")
    model.save_pretrained(tmp_path)
    assert fl.fingerprint(tmp_path).frozen is None


def test_flags_are_no_part_of_equality() -> None:
    model = Plain()
    before = fl.fingerprint(model)
    fl.freeze(model, "backbone")
    assert fl.fingerprint(model) == before


def test_the_model_is_left_as_it_is() -> None:
    model = Plain().train()
    model(torch.zeros(3, 2, dtype=torch.long)).sum().backward()
    before = {name: (id(p), p._version, p.requires_grad, id(p.grad)) for name, p in model.named_parameters()}
    fl.fingerprint(model)
    assert {name: (id(p), p._version, p.requires_grad, id(p.grad)) for name, p in model.named_parameters()} == before
    assert model.training


def test_no_tensors() -> None:
    assert fl.fingerprint(nn.ReLU()) == Fingerprint({}, {})
