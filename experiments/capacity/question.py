"""Capacity: what more memory buys, and when policies stop mattering."""

from reproduction.questions import Figure, Finding, Numbers, Question, Table, span

REAL = ("olmoe", "gptoss_20b")
GPUS = ("t4", "rtx4090", "h100_sxm")


def findings(numbers: Numbers) -> list[Finding]:
    """Say which policy where, whether the device changes that, and what is left to gain."""
    sizes = numbers.where(trace=list(REAL)).each("capacity")

    def best(trace: str, size: str, gpu: str) -> str:
        return numbers.best("tpot_s", trace=trace, capacity=size, profile=gpu)

    changes = [
        (trace, size)
        for trace in REAL
        for size in sizes
        if len({best(trace, size, gpu) for gpu in GPUS}) > 1
    ]
    tight = {best(trace, size, gpu) for trace in REAL for size in ("5%", "10%") for gpu in GPUS}
    ample = {best(trace, size, gpu) for trace in REAL for size in ("30%", "50%") for gpu in GPUS}
    spread = {
        size: [
            max(numbers.values("tpot_s", trace=trace, capacity=size, profile=gpu))
            / min(numbers.values("tpot_s", trace=trace, capacity=size, profile=gpu))
            for trace in REAL
            for gpu in GPUS
        ]
        for size in ("10%", "90%")
    }
    bought = [
        numbers.value("tpot_s", trace=t, capacity="10%", profile="t4", evict="least_stale")
        / numbers.value("tpot_s", trace=t, capacity="10%", profile="h100_sxm", evict="least_stale")
        for t in REAL
    ]
    memory = [
        numbers.value("tpot_s", trace=t, capacity="10%", profile="t4", evict="least_stale")
        / numbers.value("tpot_s", trace=t, capacity="50%", profile="t4", evict="least_stale")
        for t in REAL
    ]
    above = [
        min(numbers.values("over_roofline", trace=trace, capacity=size, profile="rtx4090"))
        for trace in REAL
        for size in sizes
    ]
    return [
        Finding(
            "agrees",
            "Where memory is tight Least-Stale is the fastest of the four: at 5 and 10 % of both "
            "models on all three GPUs.",
            tight == {"least_stale"},
        ),
        Finding(
            "differs",
            "Where it is not, LFRU is: at 30 and 50 % of both on all three.",
            ample == {"lfru"},
        ),
        Finding(
            "beyond",
            "Which policy is best depends on the capacity and hardly on the GPU: in "
            f"{len(changes)} "
            f"of {len(sizes) * len(REAL)} cells do the three GPUs disagree.",
            len(changes) <= 2,
        ),
        Finding(
            "beyond",
            "The choice is worth "
            f"{span(spread['10%'], 2)} times in time per token at 10 % (slowest over "
            "fastest of the "
            f"four), and {span(spread['90%'], 2)} at 90 %.",
            min(spread["10%"]) > 1.3 and max(spread["90%"]) < 1.25,
        ),
        Finding(
            "beyond",
            "Memory buys what a GPU does: from 10 to 50 % of the experts on a T4 is "
            f"{span(memory)} times faster, from a T4 to an H100 at 10 % {span(bought)} times.",
            min(memory) > 2 and min(bought) > 3,
        ),
        Finding(
            "beyond",
            "The best of the four leaves something to be had at every capacity: "
            f"{span(above, 2)} times the least time of any lossless policy on an RTX 4090.",
            min(above) > 1,
        ),
    ]


QUESTION = Question(
    metrics=("tpot_s", "over_roofline", "stall_share", "hit_rate", "all_resident_tpot_s"),
    tables=[
        Table("Time per output token (ms)", "tpot_s", ("capacity",), ("profile", "evict")),
        Table("Times the roofline", "over_roofline", ("capacity",), ("profile", "evict")),
    ],
    findings=findings,
    figure=Figure(
        x="capacity", metric="tpot_s", panels="profile", where={"trace": ["gptoss_20b"]},
        bound="all_resident_tpot_s", x_label="experts in memory", log=True,
        title="Real routing of GPT-OSS-20B, batch 1",
    ),
)  # fmt: skip
