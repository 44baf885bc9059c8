# SPDX-License-Identifier: Apache-2.0
"""Laws of notes and health: what is new is said at once, no log is flooded, trouble is shown while it stays."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dnn_dist.run.health import HOLD, MOST_LETTERS, MOST_TROUBLES, judge
from dnn_dist.run.notes import FIRST, LONGEST, OF_A_KIND, OF_ALL, SUM_UP, Note, Notebook


def lost(worker: str) -> Note:
    return Note("worker lost", f"worker {worker!r} was not heard for 0.5 s", about=worker)


def test_a_second_lost_worker_is_told_at_once() -> None:
    notes = Notebook()
    assert notes.say(lost("r2"), 5.0) == "worker lost: worker 'r2' was not heard for 0.5 s"
    assert "'r3'" in notes.say(lost("r3"), 5.0)
    assert not notes.say(lost("r2"), 5.1), "that was said"
    assert notes.counts == {"worker lost": 3} and "'r2'" in notes.texts["worker lost"]


def test_the_same_is_said_again_ever_more_seldom_and_anew_after_a_rest() -> None:
    notes = Notebook()
    said = [t for t in range(2000) if notes.say(lost("r2"), float(t))]
    gaps = [after - before for before, after in pairwise(said)]
    assert gaps[:4] == [1, 2, 4, 8] and gaps == sorted(gaps) and gaps[-1] == LONGEST
    assert notes.say(lost("r2"), 2000 + LONGEST).endswith("(2001 so far)")
    assert not notes.say(lost("r2"), 2000 + LONGEST + FIRST / 2)
    assert notes.say(lost("r2"), 2000 + LONGEST + FIRST), "it began anew"


@given(
    st.lists(st.tuples(st.floats(0, 0.5), st.sampled_from("abcdef"), st.integers(0, 50), st.booleans()), max_size=400),
    st.floats(0, 1e6),
)
def test_no_log_is_flooded_and_what_is_not_logged_is_summed_up(
    events: list[tuple[float, str, int, bool]], start: float
) -> None:
    notes, now, lines, held_back = Notebook(limit=20), start, 0, 0
    of_kind = dict.fromkeys("abcdef", 0)
    for gap, kind, about, warn in events:
        now += gap
        said = bool(notes.say(Note(kind, "text", warn, str(about)), now))
        lines += said
        of_kind[kind] += said
        held_back += not said
        for most, count in ((OF_ALL, lines), *((OF_A_KIND, count) for count in of_kind.values())):
            assert count <= most[0] + most[1] * (now - start) + 1e-6
        assert len(notes._matters) <= 20 and len(notes.counts) <= 20
    assert sum(notes.counts.values()) == len(events)
    assert not notes.sum_up(now) or held_back
    assert not notes.sum_up(now + SUM_UP), "nothing is left to be said"


def test_more_than_finds_room_is_summed_up_in_one_line() -> None:
    notes = Notebook()
    said = [bool(notes.say(lost(f"r{number}"), 1.0)) for number in range(30)]
    assert sum(said) == OF_A_KIND[0] and said[0]
    assert "20 x worker lost" in notes.sum_up(1.5)
    assert not notes.sum_up(1.5)
    assert "task failed" in notes.say(Note("task failed", "text"), 1.5), "another kind has room of its own"


def test_memory_stays_bounded_whatever_notes_are_about() -> None:
    notes = Notebook(limit=50)
    for number in range(5000):
        notes.say(Note(f"kind {number}", "text", about=f"somebody {number}"), 0.001 * number)
    assert max(len(notes.counts), len(notes._matters), len(notes._rooms), len(notes._unsaid)) <= 51
    assert sum(notes.counts.values()) == 5000 and "other" in notes.counts


def test_warnings_of_late_are_those_with_warn_the_newest_first() -> None:
    notes = Notebook()
    notes.say(lost("r2"), 1.0)
    notes.say(Note("worker joined", "r2", warn=False), 2.0)
    notes.say(lost("r3"), 3.0)
    notes.say(lost("r2"), 4.0)
    assert [note.about for note in notes.warned(since=0.5)] == ["r2", "r3"]
    assert [note.about for note in notes.warned(since=3.0)] == ["r2"]
    assert notes.warned(since=4.0) == []


def test_health_names_the_trouble_that_holds_before_what_was() -> None:
    notes = Notebook()
    notes.say(lost("r3"), 100.0)
    notes.say(Note("bad image", "half of it is missing"), 101.0)

    def at(now: float, *troubles: str) -> tuple[bool, str]:
        found = judge(troubles, notes.warned(now - HOLD))
        return found.well, found.message

    assert at(101.0) == (False, f"bad image: half of it is missing (and 1 more in the last {HOLD:g} s)")
    assert at(101.0, "no image for 7 s", "no worker ready") == (False, "no image for 7 s (and 1 more)")
    assert at(101.0 + HOLD) == (True, "running")
    assert at(1000.0, "no worker ready") == (False, "no worker ready"), "as long as it holds"


def test_health_is_bounded() -> None:
    found = judge(["x" * 10_000] * 1000, [])
    assert len(found.troubles) == MOST_TROUBLES and len(found.message) < MOST_LETTERS + 30
    assert "999 more" in found.message
