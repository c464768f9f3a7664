"""The page of all policies, made of its numbers: nothing here runs or names a policy but one."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

ALWAYS = "least_stale"  # the paper's, shown with the ten best wherever it stands
_MARKED = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def ranked(rows: pd.DataFrame) -> pd.DataFrame:
    """Rank policies with their scope by mean points below Belady with bypass, best first.

    Those that were skipped somewhere have another mean, and come after those that ran everywhere.
    """
    real = rows[~rows["trace"].str.startswith("tiny")].copy()
    real = real if len(real) else rows.copy()
    for kind, name in (("belady_bypass", "below"), ("belady", "below_forced")):
        bound = real.groupby(["trace", "capacity"])[kind].transform("max")  # of both scopes
        real[name] = 100 * (bound - real["hit_rate"])
    table = real.pivot_table(
        index=["evict", "scope"], columns="capacity", values="below", sort=False
    )
    table["mean"] = real.groupby(["evict", "scope"])["below"].mean()
    table["forced"] = real.groupby(["evict", "scope"])["below_forced"].mean()
    table["worst"] = real.groupby(["evict", "scope"])["below"].max()
    table["cells"] = real.groupby(["evict", "scope"])["below"].count()
    table["refuses"] = real.groupby(["evict", "scope"])["refuses"].any()
    return table.sort_values(["cells", "mean"], ascending=[False, True])


def best_policies(rows: pd.DataFrame, count: int) -> list[tuple[str, str]]:
    """Name the best policies that ran in every cell, each in its better scope; and one more."""
    table = ranked(rows)
    whole = table[table["cells"] == table["cells"].max()]
    found: dict[str, str] = {}
    for evict, scope in whole.index:
        found.setdefault(evict, scope)
    best = list(found.items())[:count]
    return best if ALWAYS in dict(best) else [*best, (ALWAYS, "global")]


def render_page(text: str, folder: Path) -> str:
    """Put the tables between their marks."""
    parts: dict[str, str] = {}
    rows = pd.read_csv(folder / "eviction.csv")
    parts["ranking"] = ranking_text(rows)
    parts["winners"] = winners_text(rows)
    parts["own"] = own_text(rows)
    files = [path for path in sorted(folder.glob("*skipped.csv")) if path.stat().st_size > 1]
    missed = [pd.read_csv(path) for path in files] or [pd.DataFrame()]
    parts["skipped"] = skipped_text(pd.concat(missed))
    if (folder / "prefetch.csv").is_file():
        timed = pd.read_csv(folder / "prefetch.csv")
        parts["prefetchers"] = prefetchers_text(timed)
        parts["pairs"] = pairs_text(timed)

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}{parts[match[2]]}\n{match[3]}" if match[2] in parts else match[0]

    return _MARKED.sub(fill, text)


def _table(head: list[str], lines: list[list[str]], left: int = 1) -> str:
    marks = ["---"] * left + ["--:"] * (len(head) - left)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, marks, *lines])


def _sized(names: list[str]) -> list[str]:
    return sorted(names, key=lambda name: float(name.rstrip("%")))


def ranking_text(rows: pd.DataFrame) -> str:
    """Write every policy in both scopes: points of hit rate below Belady with bypass."""
    table = ranked(rows)
    sizes = _sized(list(rows["capacity"].unique()))
    most = table["cells"].max()
    lines = []
    for (evict, scope), row in table.iterrows():  # type: ignore[misc]
        partly = "" if row["cells"] == most else f" ({int(row['cells'])} of {int(most)} cells)"
        refuses = " (refuses)" if row["refuses"] else ""
        lines.append(
            [
                f"{evict}{refuses}{partly}",
                scope,
                *(f"{row[name]:.1f}" for name in (*sizes, "mean", "forced", "worst")),
            ]
        )
    head = ["policy", "scope", *sizes, "mean", "mean below forced Belady", "worst cell"]
    return _table(head, lines, 2)


def own_text(rows: pd.DataFrame) -> str:
    """Write the ten best on the project's own traces: the smaller statement."""
    mine = rows[rows["trace"].str.startswith("tiny")]
    if mine.empty:
        return "None were run."
    table = ranked(mine).head(10)
    lines = [[e, s, f"{r['mean']:.1f}"] for (e, s), r in table.iterrows()]  # type: ignore[misc]
    return _table(["policy", "scope", "mean points below Belady with bypass"], lines, 2)


def winners_text(rows: pd.DataFrame) -> str:
    """Write for each trace and capacity who is first, LRU, Least-Stale, and the bounds."""
    lines = []
    for (trace, size), cell in rows.groupby(["trace", "capacity"], sort=False):  # type: ignore[misc]
        best = cell.sort_values("hit_rate", ascending=False).iloc[0]
        forced = cell[~cell["refuses"]].sort_values("hit_rate", ascending=False).iloc[0]

        def of(name: str, cell: pd.DataFrame = cell) -> str:
            found = cell[(cell["evict"] == name) & (cell["scope"] == "global")]["hit_rate"]
            return f"{100 * found.iloc[0]:.1f}" if len(found) else "-"

        lines.append(
            [trace, size, f"{best['evict']} {best['scope']}", f"{100 * best['hit_rate']:.1f}"]
            + [f"{forced['evict']} {forced['scope']}", f"{100 * forced['hit_rate']:.1f}"]
            + [of("lru"), of(ALWAYS)]
            + [f"{100 * cell[kind].max():.1f}" for kind in ("belady", "belady_bypass")]
            + [f"{100 * best['regret']:+.0f}", f"{100 * best['regret_bypass']:+.0f}"]
        )
    head = [
        "trace",
        "capacity",
        "first",
        "hit %",
        "first that never refuses",
        "hit %",
        "LRU global",
    ]
    head += ["Least-Stale", "Belady", "Belady bypass", "regret % of the first", "to bypass"]
    return _table(head, lines, 2)


def skipped_text(rows: pd.DataFrame) -> str:
    """Write what was not run, and why."""
    if rows.empty:
        return "Nothing was skipped."
    kept = rows.groupby("reason")["trace"].unique().reset_index()
    return "\n".join(f"- {row.reason} ({', '.join(row.trace)})" for row in kept.itertuples())


def _paired(rows: pd.DataFrame) -> pd.DataFrame:
    """Put beside each run with a prefetcher the same without one."""
    keys = ["trace", "evict", "scope", "capacity", "profile"]
    plain = rows[rows["prefetch"] == "none"].drop_duplicates(keys).set_index(keys)
    found = rows[rows["prefetch"] != "none"].copy()
    for name in ("tpot_s", "bytes_per_token", "hit_rate", "total_s", "over_roofline"):
        found[f"plain_{name}"] = (
            plain[name].reindex(pd.MultiIndex.from_frame(found[keys])).to_numpy()
        )
    return found


def prefetchers_text(rows: pd.DataFrame) -> str:
    """Write what each prefetcher costs and gains on average, guard off and on."""
    found = _paired(rows)
    found["faster"] = 1 - found["total_s"] / found["plain_total_s"]
    found["traffic"] = found["bytes_per_token"] / found["plain_bytes_per_token"] - 1
    found["hits"] = found["hit_rate"] - found["plain_hit_rate"]
    lines = []
    for (prefetch, profile), part in found.groupby(["prefetch", "profile"]):
        line = [str(prefetch), str(profile), str(part["trace"].nunique())]
        for schedule in ("fifo", "guard"):
            here = part[part["schedule"] == schedule]
            line += [f"{100 * here['hits'].mean():+.1f}", f"{100 * here['traffic'].mean():+.0f} %"]
            line += [f"{100 * here['faster'].mean():+.1f} %", f"{here['over_roofline'].mean():.2f}"]
        line.append(f"{100 * (found.loc[part.index, 'faster'] > 0).mean():.0f} %")
        lines.append(line)
    head = ["prefetcher", "device", "traces"]
    for word in ("", "guarded: "):
        head += [f"{word}hits (points)", f"{word}bytes", f"{word}time saved", f"{word}x roofline"]
    return _table([*head, "runs that it makes faster"], lines, 2)


def pairs_text(rows: pd.DataFrame) -> str:
    """Write each policy without a prefetcher, and with the one that suits it best."""
    causal = rows[~rows["prefetch"].str.startswith("oracle")]
    lines = []
    for (trace, profile), cell in causal.groupby(["trace", "profile"], sort=False):
        for (evict, scope), part in cell.groupby(["evict", "scope"], sort=False):
            plain = part[part["prefetch"] == "none"].iloc[0]
            best = part.sort_values("total_s").iloc[0]
            line = [str(trace), str(profile), f"{evict} {scope}"]
            for run in (plain, best):
                line += [f"{100 * run['hit_rate']:.1f}", f"{run['bytes_per_token'] / 1e6:.1f}"]
                line += [f"{1e3 * run['tpot_s']:.2f}", f"{run['over_roofline']:.2f}"]
            line.insert(7, f"{best['prefetch']} {best['schedule']}")
            lines.append(line)
    head = ["trace", "device", "policy", "hit %", "MB a token", "ms a token", "x roofline"]
    head += ["with", "hit %", "MB a token", "ms a token", "x roofline"]
    return _table(head, lines, 3)
