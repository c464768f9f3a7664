"""Global against per-layer: one pool for all layers, or a quota for each."""

from reproduction.questions import Figure, Finding, Numbers, Question, Table, points

DECODE = ("olmoe", "gptoss_20b")
PROMPTED = ("qwen3_30b", "gptoss_120b")


def findings(numbers: Numbers) -> list[Finding]:
    """Say for whom a quota is worth anything."""

    def gain(trace: str, evict: str, size: str) -> float:
        """Hit rate of decode steps with a quota, less that with one pool."""
        here = numbers.where(trace=trace, evict=evict, capacity=size)
        name = "decode:hit_rate"
        return here.value(name, scope="layer") - here.value(name, scope="global")

    tight = [gain(trace, "lru", "10%") for trace in DECODE]
    stale = [abs(gain(trace, "least_stale", size)) for trace in DECODE for size in ("25%", "50%")]
    least = [gain(trace, "least_stale", "10%") for trace in DECODE]
    poisoned = [gain(trace, "least_stale", "25%") for trace in PROMPTED]
    half = [gain(trace, "lru", "50%") for trace in (*PROMPTED, "gptoss_20b")]
    layer = numbers.where(scope="layer", capacity="10%")
    best = {layer.best("decode:hit_rate", trace=trace) for trace in (*DECODE, *PROMPTED)}
    close = [
        layer.value("decode:hit_rate", trace=trace, evict="lfu")
        - layer.value("decode:hit_rate", trace=trace, evict="lfru")
        for trace in (*DECODE, *PROMPTED)
    ]
    batch = [gain("tiny-mixed-b8-long", "lru", size) for size in ("25%", "50%", "75%")]
    return [
        Finding(
            "beyond",
            "A quota a layer ends LRU's collapse: at 10 % of the two decode recordings it hits "
            f"{points(min(tight))} to {points(max(tight))} % instead of nothing, and more than "
            "Least-Stale with one pool.",
            min(tight) > 0.3
            and all(
                layer.value("hit_rate", trace=trace, evict="lru")
                > numbers.value(
                    "hit_rate", trace=trace, evict="least_stale", scope="global", capacity="10%"
                )
                for trace in DECODE
            ),
        ),
        Finding(
            "beyond",
            "Least-Stale in decode is an LRU a layer in disguise: a quota changes it by "
            f"{points(max(stale))} points at most at 25 and 50 %, and by {points(min(least))} to "
            f"{points(max(least))} at 10 %; and with it, it *is* LRU, hit for hit.",
            max(stale) < 0.01
            and max(least) < 0.03
            and all(
                numbers.value("hit_rate", trace=t, evict="lru", scope="layer", capacity=size)
                == numbers.value(
                    "hit_rate", trace=t, evict="least_stale", scope="layer", capacity=size
                )
                for t in DECODE
                for size in ("10%", "25%", "50%")
            ),
        ),
        Finding(
            "beyond",
            "With a prompt in front, a quota gives Least-Stale "
            f"{points(min(poisoned))} to {points(max(poisoned))} points at 25 %: the prompt cannot "
            "fill the first layers at the cost of the last (see prompts).",
            min(poisoned) > 0.1,
        ),
        Finding(
            "beyond",
            "Counting with a quota is the best at 10 % of all four models: LFRU or LFU, which "
            f"differ by {points(max(map(abs, close)))} points at most.",
            best <= {"lfu", "lfru"},
        ),
        Finding(
            "beyond",
            "Where memory is ample a quota costs: LRU at 50 % loses "
            f"{points(-max(half))} to {points(-min(half))} points of decode hits on the "
            "three models that are not OLMoE.",
            max(half) < 0,
        ),
        Finding(
            "beyond",
            "In batches it is worth the most: on the project's batch of 8, LRU gains "
            f"{points(min(batch))} to {points(max(batch))} points.",
            min(batch) > 0.2,
        ),
    ]


QUESTION = Question(
    metrics=("hit_rate", "decode:hit_rate", "belady"),
    tables=[Table("Hit rate of decode steps (%)", "decode:hit_rate", ("capacity", "scope"))],
    findings=findings,
    figure=Figure(
        x="capacity",
        metric="decode:hit_rate",
        lines=("evict", "scope"),
        where={"evict": ["lru", "lfru", "least_stale"]},
        x_label="capacity",
    ),
)
