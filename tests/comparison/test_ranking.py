"""Who is ahead in which column, and how alike two orders are."""

import random
from itertools import combinations

import pytest
from made_up_pairs import folder
from made_up_runs import make_run

from specmd.comparison import compare
from specmd.comparison.ranking import kendall, verdicts
from specmd.comparison.sides import ranked

TIMES = {  # (profile, slots): seconds of a decode step by policy
    ("t4", 51): {"lru": 0.30, "lfu": 0.20, "fifo": 0.25, "belady": 0.1},
    ("t4", 102): {"lru": 0.10, "lfu": 0.15, "fifo": 0.20, "belady": 0.05},
    ("h100_sxm", 51): {"lru": 0.03, "lfu": 0.02, "fifo": 0.025, "belady": 0.01},
    ("h100_sxm", 102): {"lru": 0.02, "lfu": 0.015, "fifo": 0.03, "belady": 0.01},
}


@pytest.fixture
def results(tmp_path):
    runs = []
    for (profile, slots), times in TIMES.items():
        for evict, seconds in times.items():
            run = make_run(evict, slots, profile=profile)
            metrics = run.metrics | {"tpot_s": seconds}
            runs.append(run.model_copy(update={"metrics": metrics}))
    return folder(tmp_path / "runs", runs)


def test_the_winner_of_every_profile_and_capacity(results):
    metric, found = ranked(compare(results, by=["profile"]), ["tpot_s"])
    assert metric.name == "tpot_s"
    small, large = found
    assert small.where == {"capacity_slots": 51}
    assert [place.name for place in small.places] == ["lfu", "lfu"]  # belady knows the future
    assert [place.name for place in large.places] == ["lfu", "lru"]  # h100_sxm, t4
    assert large.places[1].margin == pytest.approx(0.5)
    assert (small.is_one_winner, large.is_one_winner) == (True, False)
    assert small.least_tau == 1
    assert large.least_tau == pytest.approx(4 / 6)  # one of six pairs is the other way round
    assert small.ranks["belady"] == (1, 1)


def test_what_is_said_of_it(results):
    found = compare(results, by=["profile"])
    metric, ranks = ranked(found, ["tpot_s"])
    first, second, *along = verdicts(ranks, found.matched.columns, metric, "profile")
    assert first == "the winner by tpot_s changes with profile at 1 of 2 capacities: 102 slots"
    assert "least +0.67: h100_sxm and t4 at 102 slots" in second
    assert along == ["t4: lfu from 51 slots, lru from 102 slots"]


def test_policies_that_are_level_win_together(tmp_path):
    runs = [
        make_run(evict, 51, misses, profile=profile)
        for profile in ("t4", "h100_sxm")
        for evict, misses in (("lru", 400), ("lfu", 400), ("fifo", 500))
    ]
    found = compare(folder(tmp_path / "runs", runs), by=["profile"])
    _, (arena,) = ranked(found, ["tpot_s"])
    assert arena.places[0].name in ("lru = lfu", "lfu = lru")
    assert arena.ranks["lru"] == arena.ranks["lfu"] == (1.5, 1.5)


def test_columns_of_policies_are_not_ranked_against_each_other(results):
    assert ranked(compare(results, by=["policy"]), ["tpot_s"]) is None
    assert ranked(compare(results, by=["profile"]), ["accesses"]) is None


def test_kendall_counts_pairs():
    seed = 7
    print(f"seed {seed}")  # noqa: T201
    rng = random.Random(seed)
    for _ in range(200):
        pairs = [(rng.randint(0, 4), rng.randint(0, 4)) for _ in range(rng.randint(2, 7))]
        way = [((a > b) - (a < b), (x > y) - (x < y)) for (a, x), (b, y) in combinations(pairs, 2)]
        one, other = sum(a != 0 for a, _ in way), sum(b != 0 for _, b in way)
        tau = kendall(pairs)
        if not one or not other:
            assert tau is None
        else:
            assert tau == pytest.approx(sum(a * b for a, b in way) / (one * other) ** 0.5)
    assert kendall([(1, 1), (2, 2), (3, 3)]) == 1
    assert kendall([(1, 3), (2, 2), (3, 1)]) == -1


def test_a_column_that_lacks_the_best_policy_does_not_change_the_winner(results):
    for slots, policies in ((51, ("lru", "fifo")), (102, ("lru", "fifo", "lfu"))):
        folder(results, [make_run(evict, slots, profile="rtx4090") for evict in policies])
    found = compare(results, by=["profile"])
    metric, (small, large) = ranked(found, ["tpot_s"])
    assert [place.name for place in small.places] == ["fifo", "fifo = lru", "fifo"]
    assert (small.left_out, large.left_out) == (2, 1)  # lfu at 51, and belady at both
    said = verdicts((small, large), found.matched.columns, metric, "profile")
    assert any("not ranked at 2 of 2 capacities" in text for text in said)
