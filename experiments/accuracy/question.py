"""Prediction accuracy against speed: what a better guess is worth, link by link."""

from reproduction.questions import Figure, Finding, Numbers, Question, Table, points, span

REAL = ("olmoe", "gptoss_20b")
PCIE = ("t4", "rtx4090")
EXTRA = "oracle:extra=16,recall=0.9"


def findings(numbers: Numbers) -> list[Finding]:
    """Compare time, hits and traffic of guesses from half right to perfect."""
    stale = numbers.where(evict="least_stale")

    def faster(gpu: str, size: str, worse: str, better: str) -> list[float]:
        """By how much a better guess is faster, in percent of the time of the worse."""
        return [
            100
            * (
                1
                - stale.value("tpot_s", trace=t, capacity=size, profile=gpu, prefetch=better)
                / stale.value("tpot_s", trace=t, capacity=size, profile=gpu, prefetch=worse)
            )
            for t in REAL
        ]

    half = [
        each
        for gpu in PCIE
        for size in ("10%", "25%")
        for each in faster(gpu, size, "oracle:recall=0.5", "oracle")
    ]
    quick = [e for s in ("10%", "25%") for e in faster("gh200", s, "oracle:recall=0.5", "oracle")]
    perfect = [e for gpu in PCIE for s in ("10%", "25%") for e in faster(gpu, s, "none", "oracle")]
    perfect_quick = [e for s in ("10%", "25%") for e in faster("gh200", s, "none", "oracle")]
    hits = [
        stale.value("hit_rate", trace=t, capacity="25%", profile="rtx4090", prefetch="oracle")
        - stale.value("hit_rate", trace=t, capacity="25%", profile="rtx4090", prefetch="none")
        for t in REAL
    ]
    wrong = [-e for gpu in PCIE for e in faster(gpu, "10%", "oracle:recall=0.9", EXTRA)]
    last = [-e for gpu in PCIE for e in faster(gpu, "10%", "none", "prev_token")]
    last_hits = [
        stale.value("hit_rate", trace=t, capacity="10%", profile="gh200", prefetch="prev_token")
        - stale.value("hit_rate", trace=t, capacity="10%", profile="gh200", prefetch="none")
        for t in REAL
    ]
    none = numbers.where(capacity="25%", profile="rtx4090", evict="least_stale")
    idle = [
        none.value("bytes_per_token", trace=t, prefetch="prev_token")
        - none.value("bytes_per_token", trace=t, prefetch="none")
        for t in REAL
    ]
    own = numbers.where(trace="tiny-prose-b1", evict="least_stale", capacity="20%")
    gate = {
        name: own.value(name, prefetch="next_gate") / own.value(name, prefetch="none") - 1
        for name in ("tpot_s", "bytes_per_token")
    }
    return [
        Finding(
            "agrees",
            "Accuracy does not translate into speed over PCIe: a predictor that is always right "
            f"instead of half right changes the time of a token by {-min(half):+.1f} to "
            f"{-max(half):+.1f} % (T4 and RTX 4090, Least-Stale, 10 and 25 %).",
            max(half) < 10 and min(half) > -1.5,
        ),
        Finding(
            "beyond",
            f"Over NVLink-C2C (GH200) it does: the same step is worth {span(quick)} %, and the "
            f"perfect guess {span(perfect_quick)} % of the time without prefetch, beside "
            f"{span(perfect)} over PCIe.",
            min(quick) > 15 and min(perfect_quick) > 25 and max(perfect) < 22,
        ),
        Finding(
            "beyond",
            "Hit rates do not show it: at 25 % on an RTX 4090 the perfect guess moves them by "
            f"{points(min(hits))} to {points(max(hits))} points, for what it fetches is under way, "
            "not there, when it is asked for.",
            max(map(abs, hits)) < 0.02,
        ),
        Finding(
            "beyond",
            f"Guesses too many cost: 16 wrong experts with each layer at 10 % are {span(wrong)} % "
            "slower over PCIe than none, at the same recall.",
            min(wrong) > 3,
        ),
        Finding(
            "agrees",
            "Guessing the last token's experts at 10 % hits "
            f"{points(min(last_hits))} to {points(max(last_hits))} points more on a GH200 "
            "and makes "
            f"tokens {span(last)} % slower over PCIe: more hits, less speed.",
            min(last_hits) > 0.03 and min(last) > 0,
        ),
        Finding(
            "beyond",
            "At 25 % that guess fetches nothing: what the last token used is still there.",
            idle == [0, 0],
        ),
        Finding(
            "beyond",
            "On the project's trace a real predictor, the next layer's gate, at 20 % on a T4 "
            "changes "
            f"the time of a token by {100 * gate['tpot_s']:+.1f} % and its traffic by "
            f"{100 * gate['bytes_per_token']:+.1f} %.",
            gate["bytes_per_token"] > 0,
        ),
    ]


QUESTION = Question(
    metrics=("tpot_s", "hit_rate", "late_rate", "bytes_per_token", "prefetch_precision"),
    tables=[
        Table(title, metric, ("profile",), ("capacity", "prefetch"), where={"evict": [evict]})
        for evict in ("least_stale", "lru")
        for title, metric in (
            (f"Time per output token (ms), {evict}", "tpot_s"),
            (f"Hit rate (%), {evict}", "hit_rate"),
            (f"Traffic (MB a token), {evict}", "bytes_per_token"),
        )
        if evict == "least_stale" or metric == "tpot_s"
    ],
    findings=findings,
    figure=Figure(
        x="prefetch", metric="tpot_s", lines=("profile",), log=True,
        where={
            "evict": ["least_stale"], "capacity": ["25%"],
            "prefetch": [
                "none", "oracle:recall=0.5", "oracle:recall=0.7", "oracle:recall=0.9", "oracle"
            ],
        },
        ticks={"oracle": "all"} | {f"oracle:recall={x}": f"{x:.0%}" for x in (0.5, 0.7, 0.9)},
        x_label="recall of the next layer's experts (least_stale, 25 %)",
    ),
)  # fmt: skip
