"""Where activations are kept, by a reckoning of which every figure is given here."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frostline.engine.cost.choice import Choice, choose
from frostline.engine.cost.costs import Measured, Rates, Work
from frostline.engine.settings import EngineSettings

MB, GB = 10**6, 10**9
# A pass computed anew takes 10 s, the filling pass 5 s; stored are 100 MB, read and written in 0.1 s.
WORK = Work(rows=1000, tokens=50_000, passes=10)
MEASURED = Measured(
    fill=1e-4, anew=2e-4, token_bytes=2000, row_bytes=0, memory=Rates(GB, GB), disk=Rates(GB, GB), seconds=0.3
)


def chosen(settings: EngineSettings | None = None, memory: int = GB, disk: int = GB, **work: Any) -> Choice:
    return choose(settings or EngineSettings(), replace(WORK, **work), MEASURED, memory, disk)


def test_many_passes_are_stored_in_memory_and_the_line_says_what_that_saves() -> None:
    choice = chosen()
    assert choice.where == "memory"
    assert choice.why == "10 passes cost 100 s computed anew, 6.1 s stored"
    assert choice.budget == GB // 2


def test_break_even_is_the_number_of_epochs_that_takes_as_long_either_way() -> None:
    choice = chosen()
    assert choice.break_even == pytest.approx(5.1 / (10 - 0.1))
    even = chosen(passes=choice.break_even)
    anew, memory, _ = even.alternatives
    assert anew.seconds == pytest.approx(memory.seconds)


def test_one_pass_that_stores_as_slowly_as_it_computes_is_not_stored() -> None:
    measured = replace(MEASURED, anew=MEASURED.fill)
    choice = choose(EngineSettings(), replace(WORK, passes=1), measured, GB, GB)
    assert choice.where == "nowhere"
    assert choice.why == "1 pass costs 5.0 s computed anew, 5.2 s stored"


def test_a_saving_within_what_measuring_varies_is_not_worth_a_store() -> None:
    measured = replace(MEASURED, anew=1.1e-4)
    choice = choose(EngineSettings(), replace(WORK, passes=1), measured, GB, GB)
    assert choice.where == "nowhere"
    assert choice.why == "1 pass costs 5.5 s computed anew, 5.2 s stored, which saves too little"


def test_what_does_not_fit_into_memory_goes_to_disk_and_the_line_says_so() -> None:
    choice = chosen(memory=150 * MB)
    assert choice.where == "disk"
    assert choice.why.endswith("6.1 s stored (not in memory: 100 MB exceed its 75 MB)")


def test_what_fits_nowhere_is_computed_anew_and_the_line_says_why() -> None:
    choice = chosen(memory=150 * MB, disk=20 * MB)
    assert choice.where == "nowhere"
    assert "not in memory: 100 MB exceed its 75 MB; not on disk: 100 MB exceed its 10 MB" in choice.why


def test_a_budget_of_the_users_bounds_both_but_never_exceeds_what_is_free() -> None:
    assert chosen(EngineSettings(store_budget="99MB")).where == "nowhere"
    generous = chosen(EngineSettings(store_budget="1TB"), memory=90 * MB, disk=150 * MB)
    assert generous.where == "disk"
    assert generous.budget == 150 * MB


def test_a_folder_that_cannot_be_written_is_no_alternative() -> None:
    measured = replace(MEASURED, disk=None)
    choice = choose(EngineSettings(), WORK, measured, 0, GB)
    assert choice.where == "nowhere"
    assert "not in memory: 100 MB exceed its 0 bytes" in choice.why
    (disk,) = [alternative for alternative in choice.alternatives if alternative.where == "disk"]
    assert disk.excluded == "the folder cannot be written"
    assert json.loads(json.dumps(choice.to_dict(), allow_nan=False))["alternatives"][2]["seconds"] is None


def test_rows_on_disk_from_an_earlier_run_cost_no_filling() -> None:
    choice = chosen(held_rows=1000, held_bytes=100 * MB)
    assert choice.where == "disk"
    assert choice.break_even == 0
    assert chosen(held_rows=500).alternatives[2].once == pytest.approx(5.1 / 2)


def test_rows_on_disk_take_no_room_twice() -> None:
    choice = chosen(memory=0, disk=10 * MB, held_rows=1000, held_bytes=100 * MB)
    assert choice.where == "disk"
    assert choice.budget == 105 * MB


def test_one_pass_is_read_from_disk_where_an_earlier_run_left_it() -> None:
    assert chosen(passes=1, held_rows=1000, held_bytes=100 * MB).where == "disk"


def test_evaluations_count() -> None:
    choice = chosen(passes=1, evaluation_rows=500, evaluation_tokens=25_000, evaluation_passes=4)
    assert choice.where == "memory"
    assert choice.why == "1 pass and 4 evaluations cost 30 s computed anew, 8.0 s stored"


def test_processes_share_the_work_and_the_store() -> None:
    alone, shared = chosen().alternatives, chosen(processes=4).alternatives
    assert [one.seconds / 4 for one in alone] == pytest.approx([other.seconds for other in shared])
    assert [one.bytes for one in alone] == [other.bytes for other in shared] == [0, 100 * MB, 100 * MB]


def test_hosts_share_the_passes_but_each_fills_a_store_of_its_own() -> None:
    one, two = chosen(processes=4).alternatives, chosen(processes=4, hosts=2).alternatives
    assert [place.again for place in one] == [place.again for place in two]
    assert [2 * place.once for place in one] == pytest.approx([place.once for place in two])
    assert [place.bytes for place in one] == [place.bytes for place in two]


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_what_the_user_asks_for_is_done(place: Any) -> None:
    choice = chosen(EngineSettings(store=place), passes=1)
    assert choice.where == place
    assert choice.why == "as asked for"


def test_what_the_user_asks_for_is_done_over_budget_too_and_the_line_says_what_happens() -> None:
    choice = chosen(EngineSettings(store="memory", store_budget="40MB"))
    assert choice.where == "memory"
    assert choice.budget == 40 * MB
    assert choice.why == "as asked for, though 100 MB exceed its 40 MB: what does not fit is computed anew"
    assert choice.explain().count("excluded") == 1  # the disk, not what was chosen


def test_nothing_is_stored_where_it_is_switched_off_or_nothing_was_measured() -> None:
    off = choose(EngineSettings(store="off"), WORK, MEASURED, GB, GB)
    assert (off.where, off.why) == ("nowhere", "switched off")
    unknown = choose(EngineSettings(), WORK, None, GB, GB)
    assert (unknown.where, unknown.why) == ("nowhere", "what it costs could not be measured")
    assert unknown.explain() == "Chosen: nowhere; what it costs could not be measured."


def test_the_reckoning_as_text() -> None:
    choice = chosen(memory=150 * MB, evaluation_rows=500, evaluation_tokens=25_000, evaluation_passes=10, held_rows=3)
    assert choice.explain() == (
        "Measured in 300 ms:\n"
        "  prefix, rows sorted by length: 10,000 tokens/s\n"
        "  prefix, rows as in a training step: 5,000 tokens/s\n"
        "  store: 2,000 bytes per token and 0 per row\n"
        "  memory: written 1.0 GB/s, read 1.0 GB/s\n"
        "  disk: written 1.0 GB/s, read 1.0 GB/s, from the page cache\n"
        "Ahead: 10 passes and 10 evaluations\n"
        "  a pass: 1,000 rows, 50,000 tokens\n"
        "  an evaluation: 500 rows, 25,000 tokens\n"
        "  to store: 1,500 rows, 75,000 tokens; on disk already: 3\n"
        "where     once  in all passes  together    size  at most\n"
        "nowhere   0 ms          150 s     150 s\n"
        "memory   7.7 s          1.5 s     9.2 s  150 MB    75 MB  excluded: 150 MB exceed its 75 MB\n"
        "disk     7.6 s          1.5 s     9.1 s  150 MB   500 MB\n"
        "Chosen: disk; 10 passes and 10 evaluations cost 150 s computed anew, 9.1 s stored "
        "(not in memory: 150 MB exceed its 75 MB).\n"
        "Break-even: 0.5 epochs."
    )


rates = st.builds(Rates, write=st.floats(1e6, 1e11), read=st.floats(1e6, 1e11))
measurements = st.builds(
    Measured,
    fill=st.floats(1e-8, 1e-2),
    anew=st.floats(1e-8, 1e-2),
    token_bytes=st.floats(0, 1e5),
    row_bytes=st.floats(0, 1e5),
    memory=rates,
    disk=st.none() | rates,
)
works = st.builds(
    Work,
    rows=st.integers(1, 10**6),
    tokens=st.integers(1, 10**8),
    passes=st.floats(0.1, 100),
    held_rows=st.integers(0, 10**6),
    held_bytes=st.integers(0, 10**12),
    processes=st.integers(1, 8),
)
free = st.integers(0, 10**13)


@given(measurements, works, free, free)
def test_the_cheapest_that_fits_is_chosen(measured: Measured, work: Work, memory: int, disk: int) -> None:
    choice = choose(EngineSettings(), work, measured, memory, disk)
    (taken,) = [alternative for alternative in choice.alternatives if alternative.where == choice.where]
    admissible = [alternative.seconds for alternative in choice.alternatives if alternative.excluded is None]
    assert taken.excluded is None
    assert taken.bytes <= taken.budget
    assert taken.seconds * 0.9 <= min(admissible)


@given(measurements, works, free, free, st.floats(1, 10))
def test_what_is_stored_for_some_passes_is_stored_for_more(
    measured: Measured, work: Work, memory: int, disk: int, factor: float
) -> None:
    fewer = choose(EngineSettings(), work, measured, memory, disk)
    more = choose(EngineSettings(), replace(work, passes=work.passes * factor), measured, memory, disk)
    assert fewer.where == "nowhere" or more.where != "nowhere"


@given(measurements, works, st.floats(1.01, 100))
def test_storing_takes_less_time_beyond_the_break_even_and_more_before(
    measured: Measured, work: Work, factor: float
) -> None:
    choice = choose(EngineSettings(store="memory"), work, measured, 10**15, 10**15)
    assert choice.break_even is None or choice.break_even > 0
    if choice.break_even is not None:
        for passes, stored_wins in ((choice.break_even * factor, True), (choice.break_even / factor, False)):
            at = choose(EngineSettings(store="memory"), replace(work, passes=passes), measured, 10**15, 10**15)
            assert (at.alternatives[1].seconds < at.alternatives[0].seconds) is stored_wins
