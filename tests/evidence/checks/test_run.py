from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import frostline as fl
from frostline.anatomy.origin import Origin
from frostline.evidence.checks.findings import PAGE, Finding, Findings
from frostline.evidence.checks.run import MODULES, REGISTRY
from tests.models import Plain, tiny

ROOT = Path(__file__).parents[3]


def test_docs_and_registry_are_in_step() -> None:
    slugs = list(REGISTRY)
    assert len(slugs) == sum(len(module.CHECKS) for module in MODULES)
    sections = re.findall(r"^## (\S+)$", (ROOT / PAGE).read_text(encoding="utf-8"), re.MULTILINE)
    assert sections == slugs


def test_each_slug_has_a_test_of_its_fault_and_of_its_absence() -> None:
    tests = "".join(file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_*.py"))
    for slug in REGISTRY:
        assert f'must_find("{slug}"' in tests
        assert re.search(rf'found\(\s*"{slug}".*is None', tests), slug


def finding(severity: str, slug: str = "zero-lr") -> Finding:
    return Finding(slug, severity, ("head",), ("classifier.bias",), "It is so.", "Do this.")  # type: ignore[arg-type]


def test_findings() -> None:
    findings = Findings.of(iter([finding("note"), finding("error"), finding("warning"), finding("note")]))
    assert [row.severity for row in findings] == ["error", "warning", "note", "note"]
    assert (findings.worst, findings.ok, len(findings)) == ("error", False, 4)
    assert findings.verdict == "Found 1 error, 1 warning, 2 notes."
    assert str(findings).splitlines()[2:6] == [
        "error: zero-lr (head)",
        "  It is so.",
        "  Do this.",
        "  See docs/checks.md#zero-lr",
    ]
    values = json.loads(json.dumps(findings.to_dict()))
    assert values["worst"] == "error"
    assert values["findings"][0]["link"] == "docs/checks.md#zero-lr"


@pytest.mark.parametrize(("severity", "ok"), [("note", True), ("warning", False), ("error", False)])
def test_notes_do_not_count(severity: str, ok: bool) -> None:
    assert Findings((finding(severity),)).ok is ok


def test_no_findings() -> None:
    assert (Findings().worst, Findings().ok, str(Findings())) == (None, True, "Nothing found.")


def test_the_public_name() -> None:
    model = tiny("bert")
    fl.freeze(model, "all")
    assert fl.check(model).slugs == ("everything-frozen",)


def test_the_origin_can_be_given() -> None:
    model = tiny("bert", meta=True)
    fl.freeze(model, "pooler")
    origin = Origin("somewhere", new=frozenset({"bert.pooler.dense.weight"}))
    assert fl.check(model, origin=origin).slugs == ("new-but-frozen",)


@pytest.mark.parametrize("model", [nn.Identity(), nn.Linear(2, 2), Plain()])
def test_any_module_can_be_checked(model: nn.Module) -> None:
    assert fl.check(model).slugs == ()


def test_a_compiled_model() -> None:
    import torch

    model = tiny("bert")
    for parameter in model.base_model.parameters():
        parameter.requires_grad = False
    compiled: Any = torch.compile(model, backend="eager")
    assert fl.check(compiled).slugs == fl.check(model).slugs == ("dropout-in-frozen",)
