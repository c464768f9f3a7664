"""Measured beside simulated, drawn: both numbers of a pair, and what was left out."""

import pytest
from made_up_runs import make_run

from specmd.errors import SpecmdError
from specmd.measurement.prediction import Prediction
from specmd.report.pairs import MOST, draw_pairs
from specmd.runs.run import Measurement, Repeated


def pair(evict, slots, misses, wrong=1.25):
    run = make_run(evict, slots, misses, "t4", bounds=False)
    times = {
        **run.metrics,
        **{name.replace("tpot", "ttft"): v for name, v in run.metrics.items() if "tpot" in name},
    }
    tpot = times["tpot_s"]
    measured = Measurement(
        device="a device", link="cpu", chunk_bytes=1 << 20, compute_threads=1, warmup_runs=0,
        repetitions=3, moved_bytes=0, store_bytes=1, pinned_share=0.0, slot_bytes=1, dense_bytes=1,
        spread={
            "tpot_s": Repeated(values=[tpot] * 3, mean=tpot, median=tpot, stdev=0, low=tpot,
                               high=1.5 * tpot)
        },
    )  # fmt: skip
    found = run.model_copy(update={"metrics": times, "source": "measured", "measurement": measured})
    simulated = {n: v * wrong if n.endswith("_s") and v else v for n, v in times.items()}
    return Prediction(found, simulated, None)


def drawn(tmp_path, found, cautions=()):
    from matplotlib import rc_context

    path = tmp_path / "figure.svg"
    with rc_context({"svg.fonttype": "none"}):
        left_out = draw_pairs(found, "mine", path, cautions)
    return path.read_text(), left_out


def test_both_numbers_of_a_pair_and_the_error(tmp_path):
    text, left_out = drawn(tmp_path, [pair("lru", 26, 500), pair("lfu", 51, 200)], ["a busy day"])
    assert left_out == []
    assert "26 slots (2.5 %)" in text
    assert text.count("7.40") == 2  # 2 + 5 + 0.4 ms, in both panels
    assert text.count("9.25 (+25 %)") == 2
    for words in ("TTFT (ms)", "TPOT (ms)", "simulated (mine)", "demand stall", "a busy day"):
        assert words in text, words
    assert "left out" not in text


def test_what_is_not_drawn_is_said(tmp_path):
    many = [pair("lru", 10 + i, 500) for i in range(MOST + 2)]
    blind = Prediction(make_run("lru", 9, 500, "t4", bounds=False), {}, None, "not simulated")
    text, left_out = drawn(tmp_path, [*many, blind])
    assert left_out == ["1 runs without both times", f"2 of {MOST + 2} runs"]
    assert "left out: 1 runs without both times" in text


def test_nothing_to_draw_is_an_error(tmp_path):
    blind = Prediction(make_run("lru", 9, 500, "t4", bounds=False), {}, None, "not simulated")
    with pytest.raises(SpecmdError, match="no run has a measured and a simulated time"):
        draw_pairs([blind], "mine", tmp_path / "figure.png")
