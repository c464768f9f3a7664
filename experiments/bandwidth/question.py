"""Bandwidth: one GPU behind links from 4 to 512 GB/s."""

from reproduction.questions import Figure, Finding, Numbers, Question, Table, span

REAL = ("olmoe", "gptoss_20b")
LINKS = ("link_4", "link_8", "link_16", "link_32", "link_64", "link_128", "link_512")


def findings(numbers: Numbers) -> list[Finding]:
    """Say what a faster link buys, and whether it changes the choice."""

    def tpot(trace: str, size: str, link: str, evict: str) -> float:
        return numbers.value("tpot_s", trace=trace, capacity=size, profile=link, evict=evict)

    winners = {
        (trace, size): {
            numbers.best("tpot_s", trace=trace, capacity=size, profile=link) for link in LINKS
        }
        for trace in REAL
        for size in ("10%", "25%", "50%")
    }
    changed = sum(len(names) > 1 for names in winners.values())
    doubling = [
        tpot(t, "10%", "link_16", "least_stale") / tpot(t, "10%", "link_32", "least_stale")
        for t in REAL
    ]
    late = [
        tpot(t, "50%", "link_128", "least_stale") / tpot(t, "50%", "link_512", "least_stale")
        for t in REAL
    ]
    slow, fast = (
        [tpot(t, "10%", link, "lru") / tpot(t, "10%", link, "least_stale") for t in REAL]
        for link in ("link_4", "link_512")
    )
    waiting = numbers.values(
        "stall_share", trace=REAL, capacity="10%", profile="link_32", evict="least_stale"
    )
    halves = [
        tpot(t, "10%", "link_64", "least_stale") / tpot(t, "25%", "link_32", "least_stale")
        for t in REAL
    ]
    return [
        Finding(
            "beyond",
            f"The link does not choose the policy: in {len(winners) - changed} of {len(winners)} "
            "cells the same of the four is the fastest at every bandwidth from 4 to 512 GB/s.",
            changed <= 1,
        ),
        Finding(
            "beyond",
            "It says what the choice is worth: LRU takes "
            f"{span(slow, 2)} times as long as Least-Stale at 10 % behind 4 GB/s, and "
            f"{span(fast, 2)} times behind 512.",
            min(slow) > 1.3 and max(fast) < min(slow),
        ),
        Finding(
            "agrees",
            "At PCIe rates decode is bound by the link: at 32 GB/s and 10 % a token waits "
            f"{span([100 * each for each in waiting], 0)} % of its time, and twice the "
            "bandwidth (16 "
            f"to 32) is {span(doubling, 2)} times faster.",
            min(waiting) > 0.7 and min(doubling) > 1.7,
        ),
        Finding(
            "beyond",
            "Past it software and kernels are what is left: at 50 % a link of 512 instead of 128 "
            f"GB/s is {span(late, 2)} times faster.",
            max(late) < 1.3,
        ),
        Finding(
            "beyond",
            "The next link generation (32 to 64 GB/s) at 10 % comes to "
            f"{span(halves, 2)} times the token time of 25 % of the experts at 32: it "
            "replaces about "
            "that much memory, no more.",
            min(halves) > 0.7 and max(halves) < 1.2,
        ),
    ]


QUESTION = Question(
    metrics=("tpot_s", "over_roofline", "stall_share", "all_resident_tpot_s"),
    tables=[
        Table("Time per output token (ms)", "tpot_s", ("profile",), ("capacity", "evict")),
        Table("Time spent waiting (%)", "stall_share", ("profile",), ("capacity", "evict")),
    ],
    findings=findings,
    figure=Figure(
        x="profile", metric="tpot_s", where={"capacity": ["10%"]}, log=True,
        bound="all_resident_tpot_s", ticks={link: link.removeprefix("link_") for link in LINKS},
        x_label="link (GB/s), 10 % of the experts fit",
    ),
)  # fmt: skip
