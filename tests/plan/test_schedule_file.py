from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import frostline as fl
from frostline.errors import PlanError
from frostline.plan.schedule import Schedule
from frostline.plan.schedule_file import read_schedule, schedule_text

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = st.text(min_size=1).filter(str.strip)
RATES = st.floats(1e-12, 1e3) | st.sampled_from(["0.1x", "2 x"])


@given(
    train=TEXTS,
    lr=st.none() | RATES | st.dictionaries(TEXTS, RATES, min_size=1, max_size=3),
    decay=st.none() | st.floats(0, 1, exclude_min=True),
    warmup=st.none() | st.integers(1, 9**9) | st.floats(0, 1, exclude_min=True, exclude_max=True),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, train: str, lr: float | str | None, decay: float | None, warmup: float
) -> None:
    file = tmp_path_factory.mktemp("schedules") / "plan.toml"
    schedule = Schedule((fl.Phase("head", until="25%"), fl.Phase(train, None, lr, decay, warmup)), "reset")
    file.write_bytes(schedule_text(schedule, "a comment\nof two lines\x1b[31m").encode())
    assert read_schedule(file) == schedule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[phase]\n", "cannot be read: .*line 1"),
        ("", "there is no phase"),
        ("phase = 3\n", r"phase is '3'\.\nWrite each phase under a line \[\[phase\]\]"),
        ("optimiser_state = 'kept'\n[[phase]]\ntrain='head'\n", "key 'optimiser_state' is unknown.\nDid you mean 'opt"),
        ("[[phase]]\ntrain='head'\nuntil='1 epoch'\n[[phase]]\ntrian='all'\n", "phase 2: the key 'trian' is unknown"),
        ("[[phase]]\ntrain='head'\n[[phase]]\ntrain='all'\n", "phase 1: until is missing"),
        ("[[phase]]\nuntil='1 epoch'\n", "phase 1: train is missing"),
        ("[[phase]]\ntrain='head'\nuntil='1 epoch'\n[[phase]]\ntrain='all'\nlr='slow'\n", "phase 2: lr is 'slow'"),
        ("[[phase]]\ntrain='head'\nwarmup=true\n", "phase 1: warmup is True"),
        ("[[phase]]\ntrain='head'\nlr=nan\n", "phase 1: lr is nan"),
    ],
)
def test_what_is_no_schedule_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(PlanError, match=f"(?s)plan.toml'.*{message}") as caught:
        read_schedule(file)
    assert len(str(caught.value).splitlines()) <= 2


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="There is no schedule at"):
        read_schedule(tmp_path / "none.toml")
    with pytest.raises(PlanError, match="cannot be read"):
        read_schedule(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# \xe4\n")
    with pytest.raises(PlanError, match="cannot be read"):
        read_schedule(tmp_path / "latin.toml")
