"""Figures: they are drawn, labelled, and the same twice."""

import pytest
from made_up_runs import make_run

from specmd.errors import SpecmdError
from specmd.policy import registry
from specmd.report.figures import draw
from specmd.report.panels import colour, three_digits
from specmd.runs.metrics import PARTS


def runs():
    return [
        make_run(evict, slots, misses, profile)
        for profile in ("t4", "h100_sxm")
        for slots in (26, 51, 102)
        for evict, misses in (("lru", 500), ("lfu", 400), ("belady", 200))
    ]


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_formats_by_suffix(tmp_path, suffix, start):
    path = tmp_path / f"deep/figure.{suffix}"
    draw(runs(), path)
    assert path.read_bytes().startswith(start)


def test_text_says_what_it_shows(tmp_path):
    from matplotlib import rc_context

    path = tmp_path / "figure.svg"
    with rc_context({"svg.fonttype": "none"}):
        draw(runs(), path)
    text = path.read_text()
    for words in (
        "SYNTHETIC trace made_up",
        "hit rate (%)",
        "capacity (% of all experts)",
        "TPOT (ms)",
        "simulated on t4",
        "simulated on h100_sxm",
        "belady (bound without prefetch)",
        "demand stall",
        "above that of all experts resident (2.40)",
    ):
        assert words in text, words
    assert "left out" not in text


def drawn(tmp_path, found):
    from matplotlib import rc_context

    path = tmp_path / "figure.svg"
    with rc_context({"svg.fonttype": "none"}):
        left_out = draw(found, path)
    return path.read_text(), left_out


def test_a_second_trace_has_panels_of_its_own(tmp_path):
    other = [
        run.model_copy(
            update={"trace": run.trace.model_copy(update={"name": "second", "digest": "e" * 32})}
        )
        for run in runs()
    ]
    text, left_out = drawn(tmp_path, runs() + other)
    assert left_out == []
    assert text.count("Hit rate, simulated") == 2
    assert text.count("Time per output token") == 4
    assert "trace second" in text


def test_every_capacity_has_its_bars_until_there_are_too_many(tmp_path):
    text, left_out = drawn(tmp_path, [make_run("lru", 10 + i, 500, "t4") for i in range(9)])
    assert left_out == []
    assert all(f"{10 + i} slots" in text for i in range(9))
    text, left_out = drawn(tmp_path, [make_run("lru", 10 + i, 500, "t4") for i in range(40)])
    shown = [i for i in range(40) if f">{10 + i} slots" in text]
    assert shown[0] == 0
    assert shown[-1] == 39
    (note,) = left_out
    gone = [int(size) for size in note.split(" at ")[1].removesuffix(" slots").split(", ")]
    assert sorted([10 + i for i in shown] + gone) == list(range(10, 50))
    assert f"left out: {note}" in text


def test_what_has_no_result_is_named(tmp_path):
    text, left_out = drawn(tmp_path, [make_run(), make_run("lfu", status="failed", reason="x")])
    assert left_out == ["1 of 2 runs, without a result"]
    assert "left out: 1 of 2 runs" in text


def test_hit_rates_that_depend_on_the_profile_are_drawn_for_each(tmp_path):
    found = [make_run("lru", 51, misses, p) for p, misses in (("t4", 500), ("h100_sxm", 400))]
    text, _ = drawn(tmp_path, found)
    assert "Hit rate, simulated on t4" in text
    assert "Hit rate, simulated on h100_sxm" in text


def test_numbers_have_three_digits_and_no_trailing_point():
    values = (0.01234, 0.9994, 1.0, 12.34, 99.94, 99.96, 138.2, 1380.4)
    assert [three_digits(value) for value in values] == [
        "0.0123", "0.999", "1.00", "12.3", "99.9", "100", "138", "1,380",
    ]  # fmt: skip


def test_a_policy_has_one_colour_and_nobody_shares_the_legends():
    lru = colour(make_run("lru"))
    assert colour(make_run("lru", 102, prefetch="prev_token", profile="t4")) == lru
    named = {colour(make_run(entry.name)) for entry in registry.entries("evict")}
    assert len(named) == len(registry.entries("evict"))
    assert not named & {part.colour for part in PARTS.values()}


def test_without_a_clock_there_is_one_panel(tmp_path):
    path = tmp_path / "figure.svg"
    draw([make_run("lru", 51), make_run("lru", 102)], path)
    assert path.stat().st_size > 1000


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(SpecmdError, match="no run has a result"):
        draw([make_run(status="skipped", reason="why")], tmp_path / "figure.png")
    with pytest.raises(SpecmdError, match=r"figure\.gif"):
        draw(runs(), tmp_path / "figure.gif")
