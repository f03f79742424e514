from __future__ import annotations

import pytest

from frostline.training.schedule_progress import Progress, is_lower_better


def test_phases_follow_the_steps() -> None:
    seen = []
    progress = Progress()
    for step in range(8):
        progress.advance(step, [3, 2, None])
        seen.append((progress.phase, progress.began))
    assert seen == [(0, 0)] * 3 + [(1, 3)] * 2 + [(2, 5)] * 3
    later = Progress()
    later.advance(7, [3, 2, None])
    assert later == progress
    later.advance(99, [3, 2, None])
    assert later.phase == 2


def test_what_ends_with_its_last_phase_is_over() -> None:
    progress = Progress()
    progress.advance(5, [3, 2])
    assert progress.phase == 2


def test_a_plateau_waits_for_something_better() -> None:
    progress = Progress()
    for step, value in enumerate([0.5, 0.4, 0.4, 0.3, 0.35]):
        progress.note_evaluation(step, value, patience=2, lower=True)
        assert progress.phase == 0
    progress.note_evaluation(5, 0.3, patience=2, lower=True)
    assert progress == Progress(phase=1, began=5)
    progress.note_evaluation(6, 0.3, patience=1, lower=False)
    progress.note_evaluation(7, 0.4, patience=1, lower=False)
    assert progress.phase == 1
    progress.note_evaluation(8, 0.4, patience=1, lower=False)
    assert progress.phase == 2


@pytest.mark.parametrize(("metric", "lower"), [("eval_loss", True), ("eval_rmse", True), ("eval_macro_f1", False)])
def test_which_way_is_better(metric: str, lower: bool) -> None:
    assert is_lower_better(metric) is lower


def test_layers_settle_from_below() -> None:
    progress = Progress()
    for norms in ([1.0, 2.0, 4.0, 8.0], [1.0, 2.0, 4.0, 8.0]):
        progress.note_norms(norms)
    progress.settle()
    assert (progress.settled, progress.before, progress.norms) == (0, [2.0, 4.0, 8.0, 16.0], [])
    progress.note_norms([2.02, 4.0, 12.0, 32.0])  # changes by 1, 0, 50 and 100 %
    progress.settle()
    assert progress.settled == 2
    progress.note_norms([0.0, 0.0, 6.0, 32.0])  # those that froze have no gradient; of the others only the lower moved
    progress.settle()
    assert progress.settled == 2
    progress.note_norms([0.0, 0.0, 6.0, 16.0])
    progress.settle()
    assert progress.settled == 3
    progress.note_norms([0.0, 0.0, 0.0, 16.0])
    progress.settle()
    assert progress.settled == 3  # one is left


def test_what_is_saved_is_what_comes_back() -> None:
    progress = Progress(2, 17, 1 / 3, 1, 1, [0.1, 0.2], None)
    assert Progress(**progress.to_dict()) == progress
