"""The shipped rows: every one simulated or with its reason, and as near as the board promises."""

from pathlib import Path

import pytest

from specmd.board.predict import judge
from specmd.board.rows import load_rows
from specmd.board.summary import FEWER, TWO, hit_rate_gap, medians

TRACES = Path(__file__).resolve().parents[3] / "shared" / "traces"


@pytest.fixture(scope="module")
def verdicts():
    rows = load_rows()
    return judge(rows, rows)


def test_every_row_has_a_ratio_or_a_reason(verdicts):
    assert len(verdicts) == len(load_rows()) >= 60
    for each in verdicts:
        assert (each.ratio is None) == bool(each.reason), each.row.id
        assert each.reason or each.label, each.row.id
    left = [each.row.id for each in verdicts if each.reason and not each.row.cannot]
    assert all(each.row.capacity is None or each.row.shape is None or each.row.device is None
               for each in verdicts if each.row.id in left), left  # fmt: skip


def test_medians_are_within_what_the_board_promises(verdicts):
    found = {each.title: each for each in medians(verdicts)}
    assert found[TWO].rows >= 30
    assert found[TWO].error <= 0.15
    assert found[FEWER].rows >= 30
    assert found[FEWER].error <= 0.35


def test_anchors_are_met_unless_they_are_said_to_contradict(verdicts):
    anchors = [each for each in verdicts if each.row.anchor != "none"]
    assert len(anchors) >= 20
    for each in anchors:
        if "with all of them" not in each.anchored:
            assert each.ratio == pytest.approx(1.0, abs=0.03), (each.row.id, each.anchored)


def test_on_its_very_trace_a_cache_hits_as_often_as_was_measured():
    rows = [row for row in load_rows() if row.trace and (TRACES / row.trace).is_file()]
    if not rows:
        pytest.skip("shared/traces is not here")
    count, worst = hit_rate_gap(judge(rows, load_rows(), TRACES), "trace") or (0, 1.0)
    assert count == len(rows)
    assert worst <= 0.005
