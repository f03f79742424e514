"""The language without a model: what an expression is split into."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frostline.errors import SelectorError
from frostline.plan.selectors import Term, join, parse

ATOMS = {
    "embeddings": "unit",
    "norm": "unit",
    "pooler": "unit",
    "other": "unit",
    "head": "unit",
    "backbone": "unit",
    "all": "unit",
    "bias": "kind",
    "norms": "kind",
    "adapters": "kind",
    "layers": "layers",
    "layers[0]": "layers",
    "layers[-2:]": "layers",
    "layers[ 1 : 7 : 2 ]": "layers",
    "encoder.layers[:4]": "layers",
    "decoder.layers": "layers",
    "bert.encoder.layer.1": "name",
    "classifier": "name",
    "bert.embeddings.word_embeddings.weight": "name",
    "bert.*.weight": "glob",
    "layer.?": "glob",
    "*[0-9,x]*": "glob",
    r"re:bert\..*": "regex",
    "re:a{1,2}": "regex",
    "re:(a,b)": "regex",
    r"re:a\,b": "regex",
    "re:[a,b]+": "regex",
}
blanks = st.text(" \t\n", max_size=2)
written_terms = st.tuples(st.sampled_from(["", "~", "~ "]), st.sampled_from(sorted(ATOMS)))


@given(st.lists(st.tuples(blanks, written_terms, blanks), min_size=1, max_size=8))
def test_spans_reproduce_the_terms(parts: list[tuple[str, tuple[str, str], str]]) -> None:
    parts[0] = (parts[0][0], ("", parts[0][1][1]), parts[0][2])  # the first term must add
    expression = ",".join(f"{before}{sign}{atom}{after}" for before, (sign, atom), after in parts)

    terms = parse(expression)

    assert [expression[slice(*term.span)] for term in terms] == [f"{sign}{atom}" for _, (sign, atom), _ in parts]
    assert [term.text for term in terms] == [atom for _, (_, atom), _ in parts]
    assert [term.takes_away for term in terms] == [bool(sign) for _, (sign, _), _ in parts]
    assert [term.kind for term in terms] == [ATOMS[atom] for _, (_, atom), _ in parts]


@given(st.text("abl.layers[]0:-~,*?{}()\\re: \n", max_size=30))
def test_any_text_is_parsed_or_refused_in_two_lines(text: str) -> None:
    message = ""
    terms: tuple[Term, ...] = ()
    try:
        terms = parse(text)
    except SelectorError as error:
        message = str(error)
    assert bool(terms) is not bool(message)
    assert len(message.splitlines()) <= 2
    assert all(text[slice(*term.span)].endswith(term.text) for term in terms)


@pytest.mark.parametrize(
    ("text", "stack", "index"),
    [
        ("layers", None, None),
        ("layers[3]", None, 3),
        ("layers[-1]", None, -1),
        ("layers[ 3 ]", None, 3),
        ("layers[:8]", None, slice(None, 8, None)),
        ("layers[-2:]", None, slice(-2, None, None)),
        ("layers[:]", None, slice(None, None, None)),
        ("layers[::2]", None, slice(None, None, 2)),
        ("layers[::-1]", None, slice(None, None, -1)),
        ("layers[ 1 : -1 : 3 ]", None, slice(1, -1, 3)),
        ("encoder.layers[:4]", "encoder", slice(None, 4, None)),
        ("decoder.layers", "decoder", None),
        ("net.0.layers[1]", "net.0", 1),
    ],
)
def test_layers(text: str, stack: str | None, index: Any) -> None:
    (term,) = parse(text)
    assert (term.kind, term.stack, term.index) == ("layers", stack, index)


@pytest.mark.parametrize(
    "atom", ["x[0,1]", "re:a{1,2}", "re:(?:a,b)", r"re:a\,b", "re:[,]", "layers.{a,b}", "re:((a,b),[c,{d,e}])"]
)
def test_a_comma_inside_brackets_belongs_to_its_term(atom: str) -> None:
    assert [term.text for term in parse(f"head, {atom} ,~bias")] == ["head", atom, "bias"]


def test_the_pattern_of_a_regular_expression_is_compiled() -> None:
    (term,) = parse(r"re:.*\.bias")
    assert term.pattern is not None
    assert term.pattern.pattern == r".*\.bias"


@pytest.mark.parametrize(
    ("expression", "marked", "mend"),
    [
        ("", "", "Name what is meant"),
        (" \n ", "", "Name what is meant"),
        ("head,", "'head,»«'", "extra comma"),
        ("head, ,bias", "'head,» «,bias'", "extra comma"),
        (",head", "'»«,head'", "extra comma"),
        ("~bias", "'»~bias«'", "'all, ~bias'"),
        ("~bias,\nhead,\nnorms", "'»~bias«, head, norms'", "'all, ~bias, head, norms'"),
        ("head, ~", "'head, »~«'", "Write '~' once"),
        ("head, ~~bias", "'head, »~~bias«'", "Write '~' once"),
        ("head, layers[0,2]", "'head, »layers[0,2]«'", "'layers[0], layers[2]'"),
        ("encoder.layers[0,2]", "'»encoder.layers[0,2]«'", "'encoder.layers[0], encoder.layers[2]'"),
        ("layers[a]", "'»layers[a]«'", "layers[:8]"),
        ("layers[]", "'»layers[]«'", "layers[:8]"),
        ("layers[1.5], head", "'»layers[1.5]«, head'", "layers[:8]"),
        ("layers[::0]", "'»layers[::0]«'", "layers[:8]"),
        ("layers[1:2:3:4]", "'»layers[1:2:3:4]«'", "layers[:8]"),
        ("layers[:4", "'»layers[:4«' has a bracket at the mark that is not closed", "'layers[:4]'"),
        ("~layers[1, head", "'»~layers[1, head«'", "'~layers[1], head'"),
        ("head, x.*[ab", "'head, »x.*[ab«'", "'x.*[ab]'"),
        ("head, re:(", "'head, »re:(«'", "whole name"),
        ("re:*, head", "'»re:*«, head'", "whole name"),
        ("head,\n layers[x],\n bias", "'head,  »layers[x]«,  bias'", "layers[:8]"),
    ],
)
def test_what_cannot_be_read_is_quoted_marked_and_mended(expression: str, marked: str, mend: str) -> None:
    with pytest.raises(SelectorError) as caught:
        parse(expression)
    message = str(caught.value)
    assert marked in message
    assert mend in message
    assert len(message.splitlines()) == 2


def test_texts_are_joined_by_commas() -> None:
    assert join("head, bias") == "head, bias"
    assert join(["head", "~bias"]) == "head, ~bias"
    assert join(iter(("all",))) == "all"


@pytest.mark.parametrize("given", [8, 0.5, object, b"head", [], ["head", 3], None])
def test_what_is_no_text(given: Any) -> None:
    with pytest.raises(SelectorError, match="A selector is a text, or several texts; given was") as caught:
        join(given)
    assert repr(given) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2
