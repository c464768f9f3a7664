"""Sequential against event-atomic: what is it worth that a layer asks for all at once."""

from reproduction.questions import Finding, Numbers, Question, Table, points

REAL = ("olmoe", "gptoss_20b")
TINY = ("tiny-prose-b1", "tiny-code-b1")


def findings(numbers: Numbers) -> list[Finding]:
    """Compare the hit rates of the same policy under both."""

    def gains(trace: str, evict: str) -> list[float]:
        """By how much reading one access after the other flatters, at every capacity."""
        here = numbers.where(trace=trace, evict=evict)
        return [
            here.value("hit_rate", capacity=size, sequential=True)
            - here.value("hit_rate", capacity=size, sequential=False)
            for size in here.each("capacity")
        ]

    classic = ("lru", "fifo", "lfu", "sieve", "s3fifo")
    real = [abs(gain) for trace in REAL for evict in classic for gain in gains(trace, evict)]
    stale = [-gain for trace in REAL for gain in gains(trace, "least_stale")]
    tiny = [gain for trace in TINY for gain in gains(trace, "lru")]
    tight = numbers.where(trace="olmoe", capacity="10%")
    order = [
        tight.value("hit_rate", evict="least_stale", sequential=each)
        > tight.value("hit_rate", evict="s3fifo", sequential=each)
        for each in (False, True)
    ]
    return [
        Finding(
            "beyond",
            "In decode of one request, policies that know nothing of steps hardly notice: on the "
            f"real models the five classic ones differ by at most {points(max(real))} points.",
            max(real) < 0.05,
        ),
        Finding(
            "beyond",
            "Least-Stale does: without the protection of a layer's own experts it loses up to "
            f"{points(max(stale))} points, most where memory is tight.",
            min(stale) > 0 and max(stale) > 0.05,
        ),
        Finding(
            "beyond",
            "With prompts in the trace the two are different questions: LRU gains "
            f"{points(min(tiny))} to {points(max(tiny))} points on the project's traces when each "
            "token of a prompt asks by itself instead of all at once.",
            min(tiny) > 0.2,
        ),
        Finding(
            "beyond",
            "It can turn a ranking: on OLMoE at 10 % Least-Stale is before S3-FIFO event-atomic "
            "and behind it access by access.",
            order == [True, False],
        ),
    ]


QUESTION = Question(
    metrics=("hit_rate", "misses", "collision_rate"),
    tables=[Table("Hit rate (%)", "hit_rate", ("capacity", "sequential"))],
    findings=findings,
)
