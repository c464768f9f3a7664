"""How sure a difference is: intervals that hold what they promise, and thresholds."""

import math

import numpy as np
import pytest
from made_up_pairs import edited, folder, grid, measured
from made_up_runs import make_run

from specmd.comparison import compare
from specmd.comparison.evidence import _T, bootstrap, welch
from specmd.comparison.limits import metric_of, parse_limit
from specmd.errors import SpecmdError
from specmd.runs.details import Details


def tpot(found):
    return [each for each in found.differences if each.metric.name == "tpot_s"]


def two(tmp_path, one, other):
    return folder(tmp_path / "one", one), folder(tmp_path / "two", other)


def test_quantiles_of_student_hold_95_percent():
    for freedom, reach in enumerate(_T, start=1):
        t = np.linspace(-reach, reach, 20001)
        scale = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi)
        density = scale / math.gamma(freedom / 2) * (1 + t * t / freedom) ** (-(freedom + 1) / 2)
        inside = float(((density[1:] + density[:-1]) / 2 * np.diff(t)).sum())
        assert inside == pytest.approx(0.95, abs=5e-5), freedom


def test_intervals_of_repetitions_cover_the_difference():
    seed = 4
    print(f"seed {seed}")  # noqa: T201
    rng = np.random.default_rng(seed)
    for sizes, spreads in (((5, 5), (1, 1)), ((4, 9), (1, 3)), ((40, 60), (2, 1))):
        held = 0
        for _ in range(2000):
            old, new = (
                rng.normal(m, s, n) for m, s, n in zip((10, 12), spreads, sizes, strict=True)
            )
            low, high = welch(old, new)
            held += low <= 2 <= high
        assert 0.93 < held / 2000 < 0.985, (sizes, spreads, held)


def test_intervals_over_requests_cover_the_difference():
    seed = 5
    print(f"seed {seed}")  # noqa: T201
    rng = np.random.default_rng(seed)
    held = 0
    for _ in range(300):
        steps = rng.integers(5, 50, 60).astype(float)
        common = rng.normal(10, 3, 60)  # what makes a request slow in both runs
        new = common + 0.5 + rng.normal(0, 0.5, 60)
        low, high = bootstrap(common * steps, steps, new * steps, steps)
        assert high - low < 1  # far less than the spread of requests: they are paired
        held += low <= 0.5 <= high
    assert 0.9 < held / 300 < 0.99
    assert bootstrap(common, steps, new, steps) == bootstrap(common, steps, new, steps)


def test_measured_runs_within_noise_are_not_changed(tmp_path):
    one, other = two(
        tmp_path, [measured([0.010, 0.011, 0.012])], [measured([0.011, 0.012, 0.010], device="two")]
    )
    (found,) = tpot(compare(one, other, fail_on=["tpot:0%"]))
    assert (found.evidence.basis, found.evidence.count, found.is_real) == ("repetitions", 6, False)
    # a difference of 20 % that three noisy repetitions do not show
    noisy = folder(tmp_path / "noisy", [measured([0.008, 0.014, 0.018], device="two")])
    found = compare(one, noisy, fail_on=["tpot:5%"])
    assert (tpot(found)[0].is_changed, found.crossed()) == (False, [])
    # and one that they do
    slow = folder(tmp_path / "slow", [measured([0.0151, 0.0152, 0.0153], device="two")])
    found = compare(one, slow, fail_on=["tpot:5%"])
    ((limit, each),) = found.crossed()
    assert (limit.spelled, each.direction) == ("tpot:5%", "worse")
    assert each.old == pytest.approx(0.011)
    assert each.evidence.low < each.absolute < each.evidence.high


def test_one_play_proves_nothing_and_passes_nothing(tmp_path):
    one, other = two(tmp_path, [measured([0.010])], [measured([0.012], device="two")])
    found = compare(one, other, fail_on=["tpot:5%"])
    assert [(e.evidence.basis, e.is_real, e.is_changed) for e in tpot(found)] == [
        ("unknown", None, True)
    ]
    assert len(found.crossed()) == 1


def test_counters_of_measured_runs_that_decide_alike_are_exact(tmp_path):
    one, other = two(
        tmp_path,
        [measured([0.01, 0.011], misses=500)],
        [measured([0.01, 0.011], misses=501, device="two")],
    )
    found = {each.metric.name: each for each in compare(one, other).differences}
    assert (found["misses"].evidence.basis, found["misses"].is_real) == ("exact", True)
    varied = folder(tmp_path / "v", [measured([0.01, 0.011], misses=501, digests=("a", "b"))])
    found = {each.metric.name: each for each in compare(one, varied).differences}
    assert (found["misses"].evidence.basis, found["misses"].is_real) == ("unknown", None)


def test_another_machine_may_round_a_clock_differently(tmp_path):
    one, other = two(tmp_path, grid(profile="t4"), grid(1 + 1e-13, "b" * 40, profile="t4"))
    assert not compare(one, other).changed


@pytest.mark.parametrize(
    ("limit", "old", "new", "crossed"),
    [
        ("tpot:5%", 0.100, 0.1051, True),
        ("tpot:5%", 0.100, 0.1049, False),
        ("tpot_p90:5%", 0.100, 0.090, False),
        ("ttft:0.2ms", 1.0, 1.0003, True),
        ("ttft:0.2 s", 1.0, 1.1, False),
        ("hit_rate:1%", 0.80, 0.795, False),
        ("hit_rate:1pp", 0.80, 0.791, False),
        ("hit_rate:0.5pp", 0.80, 0.79, True),
        ("hit_rate:1%", 0.80, 0.90, False),
        ("misses:100", 0, 101, True),
        ("misses:5%", 0, 1, True),
        ("misses:0%", 7, 7, False),
        ("tokens_per_s:10%", 100.0, 89.0, True),
        ("bytes_per_token:1MB", 5e6, 5.9e6, False),
        ("over_roofline:0.1x", 1.5, 1.7, True),
    ],
)
def test_limits(limit, old, new, crossed):
    assert parse_limit(limit).is_crossed(old, new) is crossed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tpot", "write METRIC:AMOUNT"),
        ("tpot:5", "5% or 5us or 5ms or 5s"),
        ("tpot:-5%", "write the amount as"),
        ("tpot:nan%", "write the amount as"),
        ("tpot:", "write the amount as"),
        ("hit_rate:1ms", "5% or 5pp"),
        ("accesses:1", "no value of accesses is better"),
        ("tpott:5%", "unknown metric 'tpott': did you mean"),
    ],
)
def test_limits_that_cannot_be_held_to(text, message):
    with pytest.raises(SpecmdError, match=message):
        parse_limit(text)


def test_short_names():
    assert [metric_of(name).name for name in ("tpot", "ttft_p90", "hit_rate", "tpot_s")] == [
        "tpot_s",
        "ttft_p90_s",
        "hit_rate",
        "tpot_s",
    ]


def test_a_limit_that_holds_nothing_is_an_error(tmp_path):
    one, other = two(tmp_path, grid(), grid(commit="b" * 40))
    with pytest.raises(SpecmdError, match="tpot:5%: no runs that are compared have tpot_s"):
        compare(one, other, fail_on=["tpot:5%"]).crossed()


def test_a_simulated_regression_counts_however_small(tmp_path):
    worse = [
        edited(run, metrics=run.metrics | {"misses": run.metrics["misses"] + 1}) for run in grid()
    ]
    found = compare(*two(tmp_path, grid(), worse), fail_on=["misses:0%"])
    assert len(found.crossed()) == 4
    assert not compare(tmp_path / "two", tmp_path / "one", fail_on=["misses:0%"]).crossed()
    assert make_run().metrics["misses"] == 500


def requests(tpot_s, steps=(10, 20, 30), misses=(50, 60, 70)):
    """Details of requests that decode alone."""
    whole = np.zeros((16, 64), np.int64)
    return Details(
        request_ttft_s=np.full(len(tpot_s), 0.1),
        request_tpot_s=np.array(tpot_s, float),
        request_decode_steps=np.array(steps),
        request_accesses=np.full(len(tpot_s), 100),
        request_misses=np.array(misses),
        asked=whole, missed=whole, late=whole, prefetched=whole,
        step=np.array([], np.int64), step_parts_s=np.zeros((0, 6)),
    )  # fmt: skip


def test_requests_say_how_far_a_simulated_difference_carries(tmp_path):
    def runs(times, slower, misses=(50, 60, 70), evict="lru"):
        run = edited(make_run(evict, 51, profile="t4"), slower)
        return [run.with_details(requests(times, misses=misses))]

    old = [0.010, 0.020, 0.030]
    every = [each * 1.1 for each in old]  # every request gains
    some = [0.008, 0.023, 0.031]  # one gains, two lose
    one, other = two(tmp_path, runs(old, 1.0), runs(every, 1.1, evict="lfu"))
    (found,) = tpot(compare(one, other))
    assert (found.evidence.basis, found.evidence.count) == ("exact", 3)
    assert 0 < found.evidence.low < found.evidence.high
    (found,) = tpot(compare(one, folder(tmp_path / "some", runs(some, 1.01, evict="fifo"))))
    assert found.evidence.low < 0 < found.evidence.high
    assert found.is_real  # it is what the simulation came to
    assert compare(one, tmp_path / "some", fail_on=["tpot:0.5%"]).crossed()


def test_requests_stand_for_repetitions_where_there_are_none(tmp_path):
    def runs(times, device):
        return [measured(times[:1], device=device).with_details(requests(times))]

    one, other = two(
        tmp_path, runs([0.010, 0.020, 0.030], "one"), runs([0.013, 0.024, 0.038], "two")
    )
    (found,) = tpot(compare(one, other))
    assert (found.evidence.basis, found.evidence.count, found.is_real) == ("requests", 3, True)
    mixed = folder(tmp_path / "mixed", runs([0.012, 0.019, 0.029], "two"))
    (found,) = tpot(compare(one, mixed, fail_on=["tpot:1%"]))
    assert found.is_real is False
    (tmp_path / "mixed" / ".details").rename(tmp_path / "mixed" / "gone")
    (found,) = tpot(compare(one, mixed))
    assert found.evidence.basis == "unknown"


def test_a_request_without_a_number_and_other_requests_are_left_out(tmp_path):
    def runs(times, device, steps):
        return [measured(times[:1], device=device).with_details(requests(times, steps))]

    one, other = two(
        tmp_path,
        runs([0.010, np.nan, 0.030], "one", (10, 0, 30)),
        runs([0.013, np.nan, 0.038], "two", (10, 0, 30)),
    )
    assert tpot(compare(one, other))[0].evidence.count == 2
    more = folder(tmp_path / "more", [measured([0.01], device="two")])
    details = requests([0.01] * 4, (1,) * 4, (1,) * 4)
    folder(tmp_path / "four", [measured([0.01], device="two").with_details(details)])
    for path in (more, tmp_path / "four"):
        assert tpot(compare(one, path))[0].evidence.basis == "unknown"
