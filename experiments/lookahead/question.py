"""Prefetch depth and width: how far ahead, and how many."""

from reproduction.questions import Finding, Numbers, Question, Table, span

REAL = ("olmoe", "gptoss_20b")
GPUS = ("t4", "rtx4090")


def findings(numbers: Numbers) -> list[Finding]:
    """Compare depths of a perfect predictor and widths of a guessing one."""

    def slower(size: str, name: str, than: str, schedule: str, traces: tuple[str, ...]) -> list:
        """In percent."""
        return [
            100
            * (
                numbers.value(
                    "tpot_s",
                    trace=t, capacity=size, profile=gpu, prefetch=name,
                    schedule="fifo" if name == "none" else schedule,
                )
                / numbers.value(
                    "tpot_s",
                    trace=t, capacity=size, profile=gpu, prefetch=than,
                    schedule="fifo" if than == "none" else schedule,
                )
                - 1
            )
            for t in traces
            for gpu in GPUS
        ]  # fmt: skip

    deep = slower("10%", "oracle:depth=8", "oracle", "guard", REAL)
    two = slower("10%", "oracle:depth=2", "oracle", "guard", REAL)
    roomy = [-x for x in slower("25%", "oracle:depth=4", "oracle", "guard", ("gptoss_20b",))]
    olmoe = slower("25%", "oracle:depth=4", "oracle", "guard", ("olmoe",))
    fifo = slower("10%", "prev_token", "none", "fifo", REAL)
    guard = slower("10%", "prev_token", "none", "guard", REAL)
    narrow = slower("10%", "prev_token:width=2", "none", "guard", REAL)
    further = slower("10%", "prev_token:depth=4", "prev_token", "guard", REAL)
    traffic = [
        numbers.value(
            "bytes_per_token", trace=t, capacity="10%", profile="rtx4090", prefetch=name,
            schedule="guard",
        )
        for t in REAL
        for name in ("oracle", "oracle:depth=8")
    ]  # fmt: skip
    more = [100 * (b / a - 1) for a, b in zip(traffic[::2], traffic[1::2], strict=True)]
    return [
        Finding(
            "beyond",
            "Deeper is worse where memory is tight, even for a predictor that is always right: at "
            f"10 % looking 8 layers ahead is {span(deep)} % slower than 1 and moves {span(more)} % "
            f"more; 2 layers cost {span(two)} %.",
            min(deep) > 10 and min(two) > 0,
        ),
        Finding(
            "beyond",
            "Where there is room it depends on the model: at 25 % four layers instead of one make "
            f"GPT-OSS-20B {span(roomy)} % faster, OLMoE {span(olmoe)} % slower.",
            min(roomy) > 3 and min(olmoe) > 0,
        ),
        Finding(
            "beyond",
            "A guess without a guard does harm: the last token's experts at 10 %, first in first "
            f"out, make a token {span(fifo)} % slower than no prefetch; if wrong ones are "
            "withdrawn "
            f"and may not evict nearer ones, {span(guard)} %.",
            min(fifo) > 30 and max(guard) < 5,
        ),
        Finding(
            "beyond",
            f"Narrow guesses do the least: the two likeliest only, {span(narrow)} %; four "
            "layers of "
            f"guesses instead of one are another {span(further)} % slower.",
            max(narrow) < 2 and min(further) > 2,
        ),
    ]


QUESTION = Question(
    metrics=("tpot_s", "hit_rate", "late_rate", "bytes_per_token"),
    tables=[
        Table(title, metric, ("profile", "schedule"), ("capacity", "prefetch"))
        for title, metric in (
            ("Time per output token (ms)", "tpot_s"),
            ("Traffic (MB a token)", "bytes_per_token"),
        )
    ],
    findings=findings,
)
