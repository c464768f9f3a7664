"""The process in which a plug-in is checked: `python -m specmd.conformance.child`.

It is told what to check on standard input and says on standard output, a line of JSON at a time,
what it is at and what it found. What a plug-in prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from specmd.errors import SpecmdError

GRACE = 10.0
"""The process ends where a case takes so many times its limit, and half a minute."""


def main() -> None:
    """Check, and say so."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.readline())

    def say(**line: Any) -> None:
        own.write(json.dumps(line) + "\n")
        own.flush()

    try:
        _check(asked, say)
        say(ended=True)
    except SpecmdError as error:
        say(error=str(error))
    own.flush()
    os._exit(0)  # without waiting for threads that do not return


def _check(asked: dict[str, Any], say: Callable[..., None]) -> None:
    from specmd.conformance import patience
    from specmd.policy.deadline import noting

    patience.PATIENCE_S = asked["limit_s"] or patience.PATIENCE_S
    note = Path(asked["note"])

    @contextmanager
    def on_case(name: str, most_s: float = 0.0) -> Iterator[None]:
        say(case=name)
        with noting(note, max(most_s, GRACE * patience.PATIENCE_S + 30)):
            yield

    say(subject="")
    with on_case("import"):
        choices = subjects(asked["named"])
        from specmd.conformance.suite import COMPILED, COMPILING_S, check_policy
    passed = True
    for choice in choices:
        say(subject=f"{choice.entry.axis} {choice.spelled}")

        def within(name: str) -> Any:
            return on_case(name, GRACE * COMPILING_S if name == COMPILED else 0.0)

        findings = check_policy(
            choice.entry,
            on_case=within,
            on_finding=lambda found: say(finding=found._asdict()),
            **choice.values,
        )
        passed &= all(finding.passed for finding in findings)
    if not passed:
        return
    from specmd.conformance.speed import speed
    from specmd.core.clearance import clear

    for choice in choices:
        clear(choice.entry.cls)
    for choice in choices if asked["timed"] else ():
        say(subject=f"{choice.entry.axis} {choice.spelled}")
        with on_case("speed", GRACE * COMPILING_S):
            found = speed(choice)
        if found is not None:
            say(speed=str(found))


def subjects(named: str) -> list[Any]:
    """Return the policies of a file, or those of a registered name and of whatever declares it."""
    from specmd.errors import unknown
    from specmd.policy.registry import BUILT_IN, Choice, add_plugin, choose, entries

    path = Path(named)
    if path.suffix == ".py" or path.is_dir() or len(path.parts) > 1:
        return [Choice.usual(entry) for entry in add_plugin(path)]
    name = named.partition(":")[0]
    found = [entry for entry in entries() if entry.name == name]
    if not found:
        raise unknown("policy", name, {entry.name for entry in entries()})
    origins = {entry.origin for entry in found} - {BUILT_IN}
    beside = [entry for entry in entries() if entry.origin in origins and entry not in found]
    return [
        *(choose(entry.axis, named) for entry in found),
        *(Choice.usual(entry) for entry in beside),
    ]


if __name__ == "__main__":
    main()
