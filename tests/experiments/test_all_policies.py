"""The table of all policies: taken from the registry, and its page from its numbers."""

import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "experiments" / "all_policies"
sys.path[:0] = [str(ROOT / "experiments"), str(HERE)]

import make  # noqa: E402
from page import ALWAYS, best_policies, ranked, render_page  # noqa: E402

from specmd.policy import registry  # noqa: E402


def test_the_page_is_that_of_its_numbers():
    text = (HERE / "README.md").read_text(encoding="utf-8")
    assert render_page(text, HERE) == text, "python experiments/all_policies/make.py --texts"


def test_what_is_compared_is_the_registry():
    named = {text.partition(":")[0] for text in make.spelled("evict", None, bounds=False)}
    every = {each.name: each for each in registry.entries("evict")}
    left = {name for name, e in every.items() if e.lossy or "future" in e.needs}
    assert named == set(every) - left
    assert ALWAYS in named
    prefetchers = set(make.spelled("prefetch", None, bounds=True))
    assert {"none", "oracle"} <= prefetchers


def rows_of(*runs):
    columns = ("evict", "scope", "trace", "hit_rate", "refuses")
    given = [dict(zip(columns, run, strict=True)) for run in runs]
    return pd.DataFrame(
        {"capacity": "5%", "belady": 0.5, "belady_bypass": 0.6, **run} for run in given
    )


def test_policies_are_ranked_by_points_below_belady_with_bypass():
    rows = rows_of(
        ("plain", "global", "a", 0.4, False), ("plain", "global", "b", 0.3, False),
        ("plain", "layer", "a", 0.5, False), ("plain", "layer", "b", 0.4, False),
        ("picky", "global", "a", 0.59, True),  # skipped on b
        (ALWAYS, "global", "a", 0.1, False), (ALWAYS, "global", "b", 0.1, False),
    )  # fmt: skip
    table = ranked(rows)
    assert table.loc[("plain", "layer"), "mean"] == pytest.approx(15)
    assert table.loc[("plain", "layer"), "forced"] == pytest.approx(5)
    assert table.index[0] == ("plain", "layer")
    assert table.index[-1] == ("picky", "global")  # its mean is of other cells
    # Who did not run everywhere is not among the best; the paper's is shown wherever it stands.
    assert best_policies(rows, 1) == [("plain", "layer"), (ALWAYS, "global")]
