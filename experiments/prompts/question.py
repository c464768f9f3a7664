"""Prompts: what one does to the policies that have to live with it."""

from reproduction.questions import Finding, Numbers, Question, Table, points

REAL = ("qwen3_30b", "gptoss_120b")
HIT = "decode:hit_rate"


def findings(numbers: Numbers) -> list[Finding]:
    """Compare decode steps behind a prompt with the same steps without it."""
    pool = numbers.where(scope="global")
    whole = pool.where(prefill_chunk=1000)

    def fall(evict: str, size: str, chunk: int = 1000) -> list[float]:
        """Return what the prompt costs in decode, model by model."""
        here = pool.where(evict=evict, capacity=size, prefill_chunk=chunk)
        return [here.value(HIT, trace=f"{t}_bare") - here.value(HIT, trace=t) for t in REAL]

    behind = [
        whole.value(HIT, trace=trace, capacity=size, evict="lru")
        - whole.value(HIT, trace=trace, capacity=size, evict="least_stale")
        for trace in REAL
        for size in ("10%", "25%")
    ]
    before = [
        abs(
            whole.value(HIT, trace=f"{trace}_bare", capacity=size, evict="lru")
            - whole.value(HIT, trace=f"{trace}_bare", capacity=size, evict="least_stale")
        )
        for trace in REAL
        for size in ("10%", "25%")
    ]
    gain = [-each for each in fall("lru", "25%")]
    chunked = [
        pool.value(HIT, trace=trace, capacity="25%", evict="least_stale", prefill_chunk=8)
        - whole.value(HIT, trace=trace, capacity="25%", evict="least_stale")
        for trace in REAL
    ]
    layered = [
        numbers.value(
            HIT, trace=t, capacity="25%", evict="least_stale", prefill_chunk=1000, scope="layer"
        )
        - whole.value(HIT, trace=t, capacity="25%", evict="least_stale")
        for t in REAL
    ]
    own = whole.where(evict="least_stale", capacity="50%")
    small = own.value(HIT, trace="tiny_bare") - own.value(HIT, trace="tiny-mixed-b8-long")
    best = {pool.best(HIT, trace=t, capacity="10%", prefill_chunk=1000) for t in REAL}
    return [
        Finding(
            "differs",
            "One prompt poisons Least-Stale. Behind it, at 10 and 25 %, it hits "
            f"{points(min(behind))} to {points(max(behind))} points less than LRU; without it the "
            f"two are at most {points(max(before))} points apart.",
            min(behind) > 0.03 and max(before) < 0.04,
        ),
        Finding(
            "beyond",
            "The prompt does LRU no harm: what it leaves behind is worth "
            f"{points(min(gain))} to {points(max(gain))} points of the decode that follows "
            "at 25 %, "
            "beside the same steps from an empty cache.",
            min(gain) > 0,
        ),
        Finding(
            "beyond",
            "A prompt in chunks of 8 tokens gives Least-Stale "
            f"{points(min(chunked))} to {points(max(chunked))} points back at 25 %; a quota "
            "a layer "
            f"{points(min(layered))} to {points(max(layered))}, and makes it LRU.",
            min(chunked) > 0.1 and min(layered) > 0.1,
        ),
        Finding(
            "beyond",
            "What counts uses and forgets is hurt least: LFRU is the best of the four behind "
            "a whole "
            "prompt at 10 % of both models.",
            best == {"lfru"},
        ),
        Finding(
            "beyond",
            "On the project's 24 prompts of a small model, one request after the other, the "
            "same at "
            f"half of the memory: Least-Stale loses {points(small)} points to its prompts.",
            small > 0.03,
        ),
    ]


QUESTION = Question(
    metrics=(HIT, "prefill:hit_rate", "hit_rate"),
    tables=[
        Table(
            "Hit rate of decode steps, one pool (%): traces with their prompts, and `bare`",
            HIT,
            ("capacity", "prefill_chunk"),
            where={"scope": ["global"]},
        ),
        Table(
            "Hit rate of decode steps, a quota a layer (%)",
            HIT,
            ("capacity", "prefill_chunk"),
            where={"scope": ["layer"]},
        ),
    ],
    findings=findings,
)
