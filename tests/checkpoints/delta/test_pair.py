from __future__ import annotations

from frostline.checkpoints.delta.pair import modern, pair


def test_equal_names() -> None:
    pairing = pair(["a.w", "b.w"], ["b.w", "a.w", "c.w"])
    assert pairing.base_of == {"a.w": "a.w", "b.w": "b.w"}
    assert (pairing.missing, pairing.extra, pairing.added, pairing.removed) == ((), ("c.w",), "", "")


def test_a_prefix_that_was_added() -> None:
    pairing = pair(["x.w", "y.w", "old"], ["bert.x.w", "bert.y.w", "head.w"])
    assert pairing.base_of == {"bert.x.w": "x.w", "bert.y.w": "y.w"}
    assert (pairing.missing, pairing.extra) == (("old",), ("head.w",))
    assert (pairing.added, pairing.removed) == ("bert.", "")


def test_a_prefix_that_was_removed() -> None:
    pairing = pair(["model.text.x.w", "model.text.y.w"], ["x.w", "y.w"])
    assert pairing.base_of == {"x.w": "model.text.x.w", "y.w": "model.text.y.w"}
    assert (pairing.missing, pairing.extra) == ((), ())
    assert (pairing.added, pairing.removed) == ("", "model.text.")


def test_the_prefix_of_the_most_names_wins() -> None:
    pairing = pair(["x.w", "y.w"], ["a.x.w", "b.x.w", "b.y.w"])
    assert pairing.added == "b."
    assert pairing.extra == ("a.x.w",)


def test_old_names_of_norms() -> None:
    pairing = pair(["bert.LayerNorm.gamma", "bert.LayerNorm.beta"], ["bert.LayerNorm.weight", "bert.LayerNorm.bias"])
    assert pairing.base_of == {
        "bert.LayerNorm.weight": "bert.LayerNorm.gamma",
        "bert.LayerNorm.bias": "bert.LayerNorm.beta",
    }
    assert pair(["LayerNorm.gamma"], ["bert.LayerNorm.weight"]).added == "bert."
    assert modern("gamma") == "gamma"


def test_nothing_in_common() -> None:
    pairing = pair(["a"], ["b"])
    assert (pairing.base_of, pairing.missing, pairing.extra) == ({}, ("a",), ("b",))
    assert pair([], []).base_of == {}


def test_one_parameter_under_two_names() -> None:
    places = {"norm1.w": "second.w", "norm0.w": "first.w"}
    renamed = {"norm1.w": "first.w", "norm2.w": "second.w"}
    pairing = pair(["norm0.w", "norm1.w", "a.w"], ["norm1.w", "norm2.w", "x.a.w"], places.get, renamed.get)
    assert pairing.base_of == {"norm1.w": "norm0.w", "norm2.w": "norm1.w", "x.a.w": "a.w"}
    assert (pairing.missing, pairing.extra, pairing.added, pairing.removed) == ((), (), "x.", "")


def test_equal_names_of_two_parameters_are_not_paired() -> None:
    assert pair(["norm.w"], ["norm.w"], {"norm.w": "a"}.get, {"norm.w": "b"}.get).base_of == {}
