"""Batch 1 to 64: what many requests at a time do to a cache."""

from reproduction.questions import Figure, Finding, Numbers, Question, Table, points

REAL = ("olmoe", "gptoss_20b")


def findings(numbers: Numbers) -> list[Finding]:
    """Say how rankings and hit rates change with the batch."""

    def best(size: str, batch: int) -> list[str]:
        return [numbers.best("hit_rate", trace=t, capacity=size, batch=batch) for t in REAL]

    ahead = [
        numbers.value("hit_rate", trace=t, capacity="50%", batch=8, evict="lru")
        - numbers.value("hit_rate", trace=t, capacity="50%", batch=1, evict="lru")
        for t in REAL
    ]
    collapsed = numbers.values(
        "hit_rate", trace=REAL, capacity="25%", batch=[4, 8, 16, 32, 64], evict="lru"
    )
    kept = numbers.values(
        "hit_rate", trace=REAL, capacity="25%", batch=[32, 64], evict="least_stale"
    )
    bound = numbers.values("belady", trace=REAL, capacity="25%", batch=[32, 64], evict="lru")
    share = [a / b for a, b in zip(kept, bound, strict=True)]
    least = [
        numbers.value("bytes_per_token", trace=t, capacity="25%", batch=1, evict="least_stale")
        / numbers.value("bytes_per_token", trace=t, capacity="25%", batch=64, evict="least_stale")
        for t in REAL
    ]
    small = numbers.where(trace="tiny-mixed-b8-long", capacity="50%")
    own = [small.best("hit_rate", batch=batch) for batch in (1, 2, 4, 8, 16)]
    return [
        Finding(
            "beyond",
            "A ranking at batch 1 says nothing of batch 8: at 50 % S3-FIFO is first on both real "
            "models at batch 1; at 8 it is fourth of five on GPT-OSS-20B, and LRU, "
            f"{points(-max(ahead))} to {points(-min(ahead))} points down, is last.",
            best("50%", 1) == ["s3fifo", "s3fifo"]
            and sorted(
                numbers.values("hit_rate", trace="gptoss_20b", capacity="50%", batch=8),
                reverse=True,
            )[3]
            == numbers.value(
                "hit_rate", trace="gptoss_20b", capacity="50%", batch=8, evict="s3fifo"
            )
            and all(
                numbers.value("hit_rate", trace=t, capacity="50%", batch=8, evict="lru")
                == min(numbers.values("hit_rate", trace=t, capacity="50%", batch=8))
                for t in REAL
            ),
        ),
        Finding(
            "beyond",
            "LRU does not survive batches: at 25 % it hits at most "
            f"{points(max(collapsed))} % from batch 4 on.",
            max(collapsed) < 0.05,
        ),
        Finding(
            "beyond",
            "Large batches are where Least-Stale shines: first at 25 % of both at 64, with "
            f"{points(min(share))} to {points(max(share))} % of Belady's hits at 32 and 64.",
            best("25%", 64) == ["least_stale"] * 2 and min(share) > 0.8,
        ),
        Finding(
            "beyond",
            "Medium ones are LFU's: at 8 it is first at 10 and 25 % of both real models.",
            best("10%", 8) == best("25%", 8) == ["lfu"] * 2,
        ),
        Finding(
            "beyond",
            "A batch shares its fetches: with Least-Stale at 25 % a token costs "
            f"{min(least):.1f} to {max(least):.1f} times the bytes at batch 1 that it costs at 64, "
            "although fewer of the accesses hit.",
            min(least) > 1.5,
        ),
        Finding(
            "beyond",
            "The small model's traces show the same turn at 50 %: first at batch 1, 2, 4, "
            "8, 16 are "
            f"{', '.join(own)}.",
            own[0] != own[2] and own[-1] == "least_stale",
        ),
    ]


QUESTION = Question(
    metrics=("hit_rate", "bytes_per_token", "no_cache_bytes_per_token", "belady"),
    tables=[
        Table("Hit rate (%)", "hit_rate", ("batch",), ("capacity", "evict")),
        Table("Traffic (MB a token)", "bytes_per_token", ("batch",), ("capacity", "evict")),
    ],
    findings=findings,
    figure=Figure(
        x="batch", metric="hit_rate", where={"capacity": ["25%"]}, bound="belady",
        x_label="requests in flight (25 % of the experts fit)",
    ),
)  # fmt: skip
