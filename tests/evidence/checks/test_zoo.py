"""No false alarm: on every type, freshly built, a correct plan and optimizer raise no error and no warning."""

from __future__ import annotations

import copy

import pytest
import torch

import frostline as fl
from frostline.evidence.checks.run import check
from tests.thinning import one_in
from tests.zoo.build import CANNOT_BUILD, build, model_types

TYPES = [model_type for model_type in model_types() if model_type not in CANNOT_BUILD]

# Reversible layers whose input needs no gradient give none to their weights.
FAULTS = {("reformer", "embeddings"): ("no-gradient",)}


@pytest.mark.parametrize("model_type", one_in(5, TYPES))
def test_nothing_is_wrong_with_a_fresh_model(model_type: str) -> None:
    specimen = build(model_type)
    model, batch = specimen.model, specimen.batch | {"labels": specimen.labels}
    for freeze in ("", "embeddings", "backbone"):
        if freeze:
            fl.freeze(model, freeze)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
        before, random_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
        modes = {path: module.training for path, module in model.named_modules()}

        findings = check(model, optimizer, batch)

        if (model_type, freeze) in FAULTS:
            assert findings.slugs == FAULTS[model_type, freeze]
        else:
            assert findings.ok, str(findings)
        assert torch.equal(torch.get_rng_state(), random_state)
        after = model.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert {path: module.training for path, module in model.named_modules()} == modes
        assert all(parameter.grad is None for parameter in model.parameters())
