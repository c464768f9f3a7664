"""Eviction where memory is tight, with and without prefetch."""

from reproduction.questions import Figure, Finding, Numbers, Question, Table, points, span

REAL = ("olmoe", "gptoss_20b")
TINY = ("tiny-prose-b1", "tiny-code-b1")
SIZES = ("1%", "2%", "5%", "10%")


def findings(numbers: Numbers) -> list[Finding]:
    """Say what eviction is worth alone, and what of it is left under a prefetcher."""
    alone = numbers.where(prefetch="none")

    def collisions(evict: str, size: str) -> list[float]:
        return [
            alone.value("collision_rate", trace=trace, evict=evict, capacity=size) for trace in REAL
        ]

    stale, recent = collisions("least_stale", "5%"), collisions("lru", "5%")
    fewer = [b / a for a, b in zip(stale, recent, strict=True)]
    fewer += [
        b / a
        for a, b in zip(collisions("least_stale", "10%"), collisions("lru", "10%"), strict=True)
    ]
    lru = alone.values("hit_rate", trace=REAL, evict="lru")
    hit = alone.value("hit_rate", trace="olmoe", evict="least_stale", capacity="5%")
    bound = alone.value("belady", trace="olmoe", evict="least_stale", capacity="5%")
    perfect = numbers.where(prefetch="oracle", trace=REAL, capacity=["2%", "5%", "10%"])
    by_all = perfect.values("hit_rate")
    olmoe = numbers.where(trace="olmoe", capacity="5%")
    moved = olmoe.value("bytes_per_token", evict="lru", prefetch="oracle")
    less = olmoe.value("bytes_per_token", evict="least_stale", prefetch="oracle")
    bare = olmoe.value("no_cache_bytes_per_token", evict="lru", prefetch="none")
    guessed = numbers.where(prefetch="prev_token", trace=REAL, capacity=["2%", "5%"])
    worse = [
        a / b - 1
        for a, b in zip(
            guessed.values("bytes_per_token"),
            guessed.values("no_cache_bytes_per_token"),
            strict=True,
        )
    ]
    readings = [
        alone.value("hit_rate", trace=trace, evict="least_stale:order=layer", capacity=size)
        - alone.value("hit_rate", trace=trace, evict="lru", capacity=size)
        for trace in REAL
        for size in SIZES
    ]
    best = {
        size: {alone.best("hit_rate", trace=trace, capacity=size) for trace in REAL}
        for size in SIZES
    }
    tiny = [
        alone.value("hit_rate", trace=trace, evict="lfu", capacity="20%")
        - alone.value("hit_rate", trace=trace, evict="least_stale", capacity="20%")
        for trace in TINY
    ]
    return [
        Finding(
            "agrees",
            "Least-Stale has far fewer collision misses than LRU: at 5 % of the real models "
            f"{span([100 * each for each in stale])} % of accesses against "
            f"{span([100 * each for each in recent])} % (the paper: 1.6-1.9 against 4.5-12.6).",
            max(stale) < 0.03 and min(recent) > 0.12,
        ),
        Finding(
            "differs",
            f"Without prefetch that is {span(fewer, 0)} times fewer at 5 and 10 %, not up to 85. "
            "With a prefetcher Least-Stale has next to none, and any ratio can be had.",
            max(fewer) < 30,
        ),
        Finding(
            "agrees",
            "Recency does not hold in tight caches: LRU has not one hit up to 10 % of either real "
            "model, because a step touches more experts than there are slots.",
            max(lru) == 0,
        ),
        Finding(
            "differs",
            "Over 88 % of hits at 5 % of OLMoE are not the eviction policy's: alone it has "
            f"{points(hit)} %, and no policy alone can have more than {points(bound)} %.",
            hit < 0.2 and bound < 0.4,
        ),
        Finding(
            "beyond",
            "They are the prefetcher's, whatever evicts: one that knows the next layer gives every "
            f"policy, a random one too, {points(min(by_all))} % or more from 2 % on. So a hit rate "
            "under prefetch says nothing of eviction; traffic does.",
            min(by_all) > 0.98,
        ),
        Finding(
            "beyond",
            f"At 5 % of OLMoE that perfect prefetcher moves {moved / 1e6:,.0f} MB a token under "
            f"LRU, as much as no cache at all ({bare / 1e6:,.0f}), and {less / 1e6:,.0f} under "
            "Least-Stale: what a good eviction policy still earns.",
            moved == bare and less < 0.95 * bare,
        ),
        Finding(
            "beyond",
            "A predictor that guesses the last token's experts moves "
            f"{points(min(worse))} to {points(max(worse))} % more than no cache at 2 and 5 %.",
            min(worse) > 0.2,
        ),
        Finding(
            "beyond",
            "Of the readings of Least-Stale only the one in which the layer just passed leaves "
            "first shows this: `order=layer` (lowest layer first) has not one hit more than LRU.",
            max(map(abs, readings)) == 0,
        ),
        Finding(
            "differs",
            "Least-Stale is not the best everywhere: at 1 and 2 % of both models LFU is, at 10 % "
            f"Least-Stale; on the small model's traces LFU leads at 20 % by {points(min(tiny))} to "
            f"{points(max(tiny))} points.",
            best["1%"] == best["2%"] == {"lfu"}
            and best["10%"] == {"least_stale"}
            and min(tiny) > 0,
        ),
    ]


QUESTION = Question(
    metrics=(
        "hit_rate",
        "collision_rate",
        "bytes_per_token",
        "no_cache_bytes_per_token",
        "belady",
    ),
    tables=[
        Table(
            "Hit rate without prefetch (%)",
            "hit_rate",
            ("capacity",),
            where={"prefetch": ["none"]},
            bound="belady",
        ),
        Table(
            "Collision misses without prefetch (% of accesses)",
            "collision_rate",
            ("capacity",),
            where={"prefetch": ["none"]},
        ),
        Table(
            "Hit rate with a prefetcher (%)",
            "hit_rate",
            ("capacity", "prefetch"),
            where={"prefetch": ["prev_token", "next_gate", "oracle"]},
        ),
        Table("Traffic (MB a token)", "bytes_per_token", ("capacity", "prefetch")),
    ],
    findings=findings,
    figure=Figure(
        x="capacity",
        metric="hit_rate",
        where={"prefetch": ["none"]},
        bound="belady",
        x_label="capacity",
    ),
)
