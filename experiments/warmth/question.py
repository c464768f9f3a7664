"""Cold and warm: what a cache brings from one request to the next."""

from reproduction.questions import Finding, Numbers, Question, Table, points

REAL = ("olmoe", "gptoss_20b")
SIZES = ("10%", "25%", "50%")


def findings(numbers: Numbers) -> list[Finding]:
    """Compare caches that are kept, emptied for each request, and warmed up uncounted."""
    counted = numbers.where(warmup=0)

    def emptied(evict: str, traces: tuple[str, ...] = REAL) -> list[float]:
        """Return what an empty cache for each request costs."""
        here = counted.where(evict=evict)
        return [
            here.value("hit_rate", trace=trace, capacity=size, reset="none")
            - here.value("hit_rate", trace=trace, capacity=size, reset="request")
            for trace in traces
            for size in SIZES
        ]

    recent = emptied("lru") + emptied("least_stale")
    counting = [-each for each in emptied("lfu")]
    fading = [-each for each in emptied("lfru")]
    warm = [
        numbers.value("hit_rate", trace=t, evict=e, capacity=s, reset="none", warmup=500)
        - numbers.value("hit_rate", trace=t, evict=e, capacity=s, reset="none", warmup=0)
        for t in REAL
        for e in ("lru", "least_stale")
        for s in SIZES
    ]
    kept = {counted.best("hit_rate", trace=t, capacity="25%", reset="none") for t in REAL}
    empty = {
        trace: counted.best("hit_rate", trace=trace, capacity="50%", reset="request")
        for trace in REAL
    }
    return [
        Finding(
            "beyond",
            "To recency the last request is worth nothing much: emptying the cache before each "
            f"request costs LRU and Least-Stale {points(min(recent))} to {points(max(recent))} "
            "points.",
            min(recent) >= 0 and max(recent) < 0.02,
        ),
        Finding(
            "beyond",
            "To counting it is a burden: LFU *gains* "
            f"{points(min(counting))} to {points(max(counting))} points when it is emptied, LFRU "
            f"{points(min(fading))} to {points(max(fading))}. What the last text used often fills "
            "slots that this one needs.",
            min(counting) > 0.05,
        ),
        Finding(
            "beyond",
            "So a comparison of policies on one request, or with resets, is another one: at "
            "50 % of "
            "OLMoE an emptied LFU is the best of the four, a kept one the worst.",
            empty["olmoe"] == "lfu"
            and counted.value("hit_rate", trace="olmoe", evict="lfu", capacity="50%", reset="none")
            == min(counted.values("hit_rate", trace="olmoe", capacity="50%", reset="none")),
        ),
        Finding(
            "agrees",
            "Kept warm, Least-Stale is the best of the four at 25 % of both real models.",
            kept == {"least_stale"},
        ),
        Finding(
            "beyond",
            "Leaving the first 500 steps out of the count moves LRU and Least-Stale by "
            f"{points(min(warm))} to {points(max(warm))} points: part of it is another text, not "
            "warmth.",
            max(map(abs, warm)) < 0.02,
        ),
    ]


QUESTION = Question(
    metrics=("hit_rate", "compulsory_misses"),
    tables=[Table("Hit rate (%)", "hit_rate", ("capacity", "reset", "warmup"))],
    findings=findings,
)
