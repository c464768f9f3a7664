"""Figures: they are drawn, labelled, and the same twice."""

import pytest
from made_up_runs import make_run

from specmd.errors import SpecmdError
from specmd.report.figures import draw


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
        "belady (bound)",
        "demand stall",
        "all experts resident (bound)",
    ):
        assert words in text, words


def test_without_a_clock_there_is_one_panel(tmp_path):
    path = tmp_path / "figure.svg"
    draw([make_run("lru", 51), make_run("lru", 102)], path)
    assert path.stat().st_size > 1000


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(SpecmdError, match="no run has a result"):
        draw([make_run(status="skipped", reason="why")], tmp_path / "figure.png")
    with pytest.raises(SpecmdError, match=r"figure\.gif"):
        draw(runs(), tmp_path / "figure.gif")
