"""Make the table and the findings of README.md of table.csv; no number is written by hand.

python experiments/quality/text.py
"""

# ruff: noqa: T201 - what was found is what this script prints
from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent
SHOWN = {
    "policy": "policy",
    "kept_simulated": "kept, foretold",
    "kept": "kept",
    "lowbit": "low-bit",
    "substituted": "substituted",
    "dropped": "dropped",
    "true_hit_rate": "true hit rate",
    "quality_kl": "KL (nats)",
    "quality_ppl_ratio": "perplexity ratio",
    "quality_top1": "top-1",
    "greedy_match": "greedy match (of 16)",
    "kb_per_token": "KB a token",
    "stall_ms": "wait for the link (ms)",
    "t4_tpot_ms": "T4, simulated (ms)",
}
SHARES = ("kept_simulated", "kept", "lowbit", "substituted", "dropped", "true_hit_rate")


def main() -> None:
    """Rewrite what lies between the marks."""
    rows = pd.read_csv(HERE / "table.csv")
    path = HERE / "README.md"
    text = path.read_text(encoding="utf-8")
    for mark, made in (("table", table(rows)), ("findings", findings(rows))):
        pattern = rf"(<!-- {mark} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda m, made=made: f"{m[1]}{made}\n{m[2]}", text, flags=re.S)
    path.write_text(text, encoding="utf-8")
    print(findings(rows))


def table(rows: pd.DataFrame) -> str:
    """Write the rows, best quality first."""
    lines = ["| " + " | ".join(SHOWN.values()) + " |", "|---" + "|--:" * (len(SHOWN) - 1) + "|"]
    for _, row in rows.sort_values(["quality_kl", "kb_per_token"]).iterrows():
        axis = "" if row["axis"] == "-" else f"{row['axis']}="
        cells = [f"{axis}{row['policy']}"]
        for name in list(SHOWN)[1:]:
            share = name in SHARES or name == "quality_top1"
            cells.append(f"{100 * row[name]:.1f} %" if share else f"{row[name]:g}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def findings(rows: pd.DataFrame) -> str:
    """Say what came out."""
    lossless = rows[rows["axis"] == "-"].iloc[0]
    lossy = rows[~rows["policy"].isin(["lossless", "host"])]
    full = lossy[lossy["lowbit"] < 0.005]
    whole = lossy.assign(true=lossy["kept"] + lossy["lowbit"])
    cheap = lossy.sort_values("kb_per_token").iloc[0]
    best = lossy.sort_values("quality_kl").iloc[0]
    fewer = lossy[lossy["kb_per_token"] <= 0.5 * lossless["kb_per_token"]]
    fine = fewer.sort_values("quality_kl").iloc[0]
    return "\n".join(
        [
            f"- Over all {len(lossy)} lossy policies, simulated `kept_mass` ranks them as measured "
            f"KL does with {agreement(lossy, 'kept_simulated')} (Spearman's, 1: what keeps most is "
            f"nearest; of the live run's own `kept_mass`: {agreement(lossy, 'kept')}).",
            f"- Copies of few bits are what it misjudges: mass that they carry is not kept, and "
            f"costs next to nothing. Over the {len(full)} policies without them it is "
            f"{agreement(full, 'kept_simulated')}; with low-bit mass counted as kept, over all, "
            f"{agreement(whole, 'true')}.",
            f"- Nearest to the lossless run: `{best['policy']}` (KL {best['quality_kl']:g}, "
            f"{best['kb_per_token']:g} KB a token instead of {lossless['kb_per_token']:g}). Fewest "
            f"bytes: `{cheap['policy']}` ({cheap['kb_per_token']:g} KB, KL "
            f"{cheap['quality_kl']:g}, perplexity x {cheap['quality_ppl_ratio']:g}).",
            f"- The best of those that move at most half: `{fine['policy']}`, KL "
            f"{fine['quality_kl']:g}, {fine['kb_per_token']:g} KB a token.",
            f"- {int(rows['same_digest'].sum())} of {len(rows)} live runs have the digest of the "
            "simulation of their own log.",
        ]
    )


def agreement(rows: pd.DataFrame, name: str) -> str:
    """Spearman's coefficient of a column with falling KL; ties have the mean of their ranks."""
    return f"{-rows[name].rank().corr(rows['quality_kl'].rank()):.2f}"


if __name__ == "__main__":
    main()
