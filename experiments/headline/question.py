"""The paper's headline at 5 % of OLMoE: under which prefetch and which clock it comes about."""

from reproduction.questions import Finding, Numbers, Question, Table, points, span

DEVICES = ("t4", "rtx4090", "h100_sxm", "gh200")
LADDER = {
    "oracle:recall=0.5": 0.5,
    "oracle:recall=0.7": 0.7,
    "oracle:recall=0.8": 0.8,
    "oracle:recall=0.9": 0.9,
    "oracle": 1.0,
}
HIT, FEWER = 0.88, 85


def findings(numbers: Numbers) -> list[Finding]:
    """Say what reproduces and what does not."""
    here = numbers.where(trace="olmoe")

    def hit(prefetch: str, evict: str, profile: str, schedule: str = "fifo") -> float:
        return here.value(
            "hit_rate", prefetch=prefetch, evict=evict, profile=profile, schedule=schedule
        )

    def collisions(prefetch: str, evict: str, profile: str) -> float:
        return here.value(
            "collision_rate", prefetch=prefetch, evict=evict, profile=profile, schedule="fifo"
        )

    enough = [r for name, r in LADDER.items() if hit(name, "least_stale", "instant") > HIT]
    timed = {
        device: max(
            hit(name, "least_stale", device, schedule)
            for name in LADDER
            for schedule in ("fifo", "guard")
        )
        for device in DEVICES
    }
    guess = hit("prev_token", "least_stale", "instant")
    imperfect = {
        name: collisions(name, "lru", "instant") / collisions(name, "least_stale", "instant")
        for name, recall in LADDER.items()
        if recall < 1
    }
    free = collisions("oracle", "least_stale", "instant") == 0
    plain = collisions("none", "lru", "instant") / collisions("none", "least_stale", "instant")
    slower = [
        here.value("tpot_s", prefetch="oracle", evict="lru", profile=device, schedule="fifo")
        / here.value("tpot_s", prefetch="oracle", evict=e, profile=device, schedule="fifo")
        - 1
        for device in DEVICES
        for e in ("least_stale",)
    ]
    ours = [
        1
        - here.value("tpot_s", prefetch="none", evict="expected_use", profile=d)
        / here.value("tpot_s", prefetch="none", evict="least_stale", profile=d)
        for d in DEVICES
    ]
    with_oracle = [
        here.value("tpot_s", prefetch="none", evict="expected_use", profile=d)
        / here.value("tpot_s", prefetch="oracle", evict="least_stale", profile=d, schedule="fifo")
        - 1
        for d in DEVICES
    ]
    return [
        Finding(
            "agrees" if enough else "differs",
            "Over 88 % of hits at 5 % of OLMoE come about without a clock, where prefetches are in "
            f"time: with Least-Stale from a predictor on that is right for "
            f"{100 * min(enough):.0f} % of the next layer's experts.",
            bool(enough),
        ),
        Finding(
            "differs",
            "With a clock they do not: as hits on time, the perfect predictor's are at most "
            + ", ".join(f"{points(share)} ({name})" for name, share in timed.items())
            + " %. What is under way when it is asked for is late; to count it as a hit is to "
            "count the prediction.",
            max(timed[name] for name in ("t4", "rtx4090", "h100_sxm")) < HIT,
        ),
        Finding(
            "differs",
            "A predictor that can be had of the trace does not do it with any clock: guessing the "
            f"last token's experts hits {points(guess)} % where copies take no time.",
            guess < HIT,
        ),
        Finding(
            "differs",
            f"85 times fewer collision misses than LRU: {plain:.1f} times without prefetch, "
            f"{span(list(imperfect.values()))} times with predictors that are right for 50 to 90 % "
            "(no clock); with one that is always right Least-Stale has "
            + ("none at all, and the ratio is infinite." if free else "some left.")
            + " So 85 says how near a predictor was to perfect.",
            max(plain, *imperfect.values()) < FEWER and free,
        ),
        Finding(
            "beyond",
            "What Least-Stale is worth beside LRU under the perfect predictor is "
            f"{span([100 * each for each in slower])} % of a token's time.",
            max(slower) < 0.5,
        ),
        Finding(
            "beyond",
            "A better eviction policy without any prefetch: expected_use makes a token "
            f"{span([100 * each for each in ours])} % faster than Least-Stale does, and beside "
            "Least-Stale with a predictor that is always right it takes "
            + ", ".join(
                f"{100 * each:+.1f} % ({d})" for d, each in zip(DEVICES, with_oracle, strict=True)
            )
            + " time.",
            min(ours) > 0,
        ),
    ]


QUESTION = Question(
    metrics=(
        "hit_rate", "late_rate", "collision_rate", "bytes_per_token", "tpot_s", "over_roofline",
    ),
    tables=[
        Table("Hits on time (%)", "hit_rate", ("profile", "schedule"), ("prefetch", "evict")),
        Table(
            "Collision misses (% of accesses)", "collision_rate", ("profile", "schedule"),
            ("prefetch", "evict"),
        ),
        Table(
            "Time per output token (ms)", "tpot_s", ("profile", "schedule"), ("prefetch", "evict")
        ),
        Table("Traffic (MB a token)", "bytes_per_token", ("profile",), ("prefetch", "evict"),
              {"schedule": ["fifo"]}),
    ],
    findings=findings,
)  # fmt: skip
