"""Time to first token across devices, of prompts that were recorded."""

from reproduction.questions import Figure, Finding, Numbers, Question, Table, span

REAL = ("qwen3_30b", "gptoss_120b")
NAMES = {"qwen3_30b": "Qwen3-30B-A3B", "gptoss_120b": "gpt-oss-120b"}


def findings(numbers: Numbers) -> list[Finding]:
    """Say what a cold prompt's first token depends on."""
    real = numbers.where(trace=list(REAL))
    gpus = real.each("profile")
    spread = [
        max(found) / min(found) - 1
        for trace in REAL
        for gpu in gpus
        for prefetch in ("none", "oracle")
        for found in [real.values("ttft_s", trace=trace, profile=gpu, prefetch=prefetch)]
    ]

    def at(name: str, trace: str, gpu: str, prefetch: str = "none") -> float:
        return real.value(
            name, trace=trace, profile=gpu, prefetch=prefetch, evict="lru", capacity="25%"
        )

    def saved(trace: str, gpu: str) -> float:
        return 100 * (1 - at("ttft_s", trace, gpu, "oracle") / at("ttft_s", trace, gpu))

    pcie = [gpu for gpu in gpus if gpu != "gh200"]
    less = {trace: [saved(trace, gpu) for gpu in pcie] for trace in REAL}
    quick = [saved(trace, "gh200") for trace in REAL]
    waits = [
        100 * at("ttft_demand_stall_s", trace, gpu) / at("ttft_s", trace, gpu)
        for trace in REAL
        for gpu in pcie
    ]
    alike = [
        abs(at("ttft_s", trace, "rtx5090") / at("ttft_s", trace, "h100_sxm") - 1) for trace in REAL
    ]
    times = [at("ttft_s", t, "t4") / at("ttft_s", t, "gh200") for t in REAL]
    own = numbers.where(trace="tiny-prose-b1", profile="t4", capacity="20%")
    warm = [
        own.value("ttft_s", evict="lru", prefetch="none"),
        own.value("ttft_s", evict="least_stale", prefetch="none"),
    ]
    return [
        Finding(
            "differs",
            "The first token of a cold prompt does not know the eviction policy, nor the capacity: "
            "from 10 to 50 %, LRU and Least-Stale, "
            "it is the same on each device to a thousandth. Every expert a layer asks for has "
            "to come once, and no layer comes twice.",
            max(spread) < 0.001,
        ),
        Finding(
            "agrees",
            "Prefetch can lower it by about what the paper says (10.7 to 34.7 % on OLMoE), for "
            "small experts: knowing each next layer, a bound for predictors, saves "
            f"{span(less['qwen3_30b'])} % with {NAMES['qwen3_30b']} (2.9 MB) over PCIe.",
            min(less["qwen3_30b"]) > 5 and max(less["qwen3_30b"]) < 34.7,
        ),
        Finding(
            "agrees",
            f"Large experts profit little: {span(less['gptoss_120b'])} % with "
            f"{NAMES['gptoss_120b']} (13 MB), as the paper says of Mixtral's.",
            max(less["gptoss_120b"]) < 10,
        ),
        Finding(
            "beyond",
            f"The link decides: a first token waits for it {span(waits, 0)} % of its time "
            "over PCIe; "
            "an RTX 5090 and an H100 behind the same link are alike to a hundredth, and "
            f"from a T4 to a GH200 it is {span(times, 0)} times faster.",
            min(waits) > 60 and max(alike) < 0.01,
        ),
        Finding(
            "beyond",
            f"With NVLink-C2C the same perfect prefetch saves {span(quick, 0)} %.",
            min(quick) > 25,
        ),
        Finding(
            "beyond",
            "Warm, policies do matter, a little: over the three prompts of the project's "
            "trace, two "
            f"of them behind another request, TTFT on a T4 is {1e3 * warm[0]:.2f} ms with LRU and "
            f"{1e3 * warm[1]:.2f} with Least-Stale at 20 %.",
            warm[1] < warm[0],
        ),
    ]


QUESTION = Question(
    metrics=(
        "ttft_s", "ttft_demand_stall_s", "ttft_late_prefetch_stall_s", "ttft_compute_s",
        "ttft_overhead_s", "tpot_s", "all_resident_ttft_s",
    ),
    tables=[
        Table(
            "Time to first token (ms)", "ttft_s", ("profile",), ("prefetch", "evict"),
            where={"capacity": ["25%", "20%"]},
        ),
        Table(
            "Time per output token behind the prompt (ms)", "tpot_s", ("profile",),
            ("capacity", "prefetch", "evict"),
        ),
    ],
    findings=findings,
    figure=Figure(
        x="profile", metric="ttft_s", lines=("prefetch",), log=True, bound="all_resident_ttft_s",
        where={"evict": ["lru"], "capacity": ["25%"]}, x_label="device",
        ticks={"h100_sxm": "h100", "none": "no prefetch", "oracle": "next layer known"},
    ),
)  # fmt: skip
