"""The conformance suite: what every policy must keep to, whoever wrote it.

A policy is run, interpreted, over a small trace in the tight places: one slot, as many as the
router takes, one fewer than an event needs, a quota a layer, prefetches, a slow link. A policy that
raises or never returns is a finding like any other. `specmd validate policy FILE` prints these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from types import FunctionType
from typing import Any, NamedTuple

from specmd.conformance.cases import (
    PROPOSALS,
    SLOW_LINK,
    Case,
    equipped,
    other_trace,
    small_trace,
    small_world,
    training_trace,
    watch_eviction,
    watch_prefetches,
    widest_event,
)
from specmd.conformance.executing import watch_execution
from specmd.conformance.patience import run_guarded
from specmd.conformance.sources import kept_state, why_different
from specmd.conformance.watch import (
    CAPACITY,
    COUNTERS,
    FETCHES,
    RANKS,
    ROWS_ADD_UP,
    UNTOUCHED,
    VICTIMS,
    Violation,
)
from specmd.core import state as residency
from specmd.core.binding import GATE_HOOKS, MISS_HOOKS, POLICY_HOOKS, ROUTE_HOOKS
from specmd.core.clearance import foreign_files
from specmd.core.hooks import predict, rank
from specmd.errors import SpecmdError
from specmd.policy.faults import told
from specmd.policy.registry import Choice, Entry, choose
from specmd.policy.schedule import Schedule
from specmd.runs.counters import AccountingError, check
from specmd.runs.options import RunConfig
from specmd.simulation.costs import CostCoefficients
from specmd.simulation.replay import replay
from specmd.trace import Trace

COMPILING_S = 60.0  # rather more than compiling takes
HOOKS = "hooks are plain functions"
REPRODUCIBLE = "reproducible"
NEEDS = "sees no more than it declared"
COMPILED = "compiled, it decides as it does interpreted"


class Finding(NamedTuple):
    """The verdict of one check; `detail` says what was seen."""

    name: str
    passed: bool
    detail: str


OnCase = Callable[[str], AbstractContextManager[object]]
OnFinding = Callable[[Finding], object]


def check_policy(
    entry: Entry,
    *,
    on_case: OnCase = nullcontext,
    on_finding: OnFinding = lambda _: None,
    **values: Any,
) -> list[Finding]:
    """Check a registered policy, with `values` for some of its parameters.

    Takes under three seconds; a plug-in in the compiled form that has passed so far is compiled as
    well, which takes longer. Nothing the policy does is raised here, except a `create` that lacks a
    parameter of `values`. `on_case` is entered around every case, told its name; `on_finding` is
    told every finding as soon as there is one.
    """
    choice = Choice(entry, Choice.usual(entry).values | values)
    choice = equipped(choice, small_trace())
    suite = _Suite(entry.cls, on_case, on_finding)
    checks = _CHECKS.get(entry.axis, _check_options)
    with suppress(_Enough):
        checks(choice, suite)
        if all(finding.passed for finding in suite.findings):
            _check_compiled(choice, suite)
    return suite.findings


class _Suite:
    """Runs cases, turns whatever happens into findings, and keeps which rules were broken."""

    def __init__(self, cls: type, on_case: OnCase, on_finding: OnFinding) -> None:
        self.findings: list[Finding] = []
        self.broken: dict[str, str] = {}
        self.cls, self.kept = cls, kept_state(cls)
        self.on_case, self.on_finding = on_case, on_finding

    def say(self, name: str, detail: str) -> None:
        """Add a finding; without a detail the check was passed."""
        self.findings.append(Finding(name, not detail, detail))
        self.on_finding(self.findings[-1])

    def attempt(self, name: str, run: Callable[[], str]) -> str:
        """Run a case; return its answer, empty where it failed."""
        with self.on_case(name):
            answer, problem = run_guarded(run)
        if isinstance(problem, Violation):
            rule, seen = problem.args
            self.broken.setdefault(rule, f"{name}: {seen}")
        self.say(name, _told(problem))
        if isinstance(problem, TimeoutError):
            raise _Enough  # it would not return from the other cases either
        return answer

    def compare(
        self,
        rule: str,
        answer: str,
        run: Callable[[], str],
        fault: str,
    ) -> None:
        """Run again in another way; the answer must be the same."""
        with self.on_case(rule):
            again, problem = run_guarded(run)
        if problem is None and again != answer:
            why = why_different(self.cls, self.kept) if rule == REPRODUCIBLE else ""
            self.say(rule, f"{fault}: {why}" if why else fault)
        else:
            self.say(rule, _told(problem))
        if isinstance(problem, TimeoutError):
            raise _Enough

    def conclude(self, *rules: str) -> None:
        """Say of each rule whether it was kept in all cases."""
        for rule in rules:
            self.say(rule, self.broken.get(rule, ""))


def _check_evict(choice: Choice, suite: _Suite) -> None:
    header, widest = small_trace().header, widest_event()
    keys, layers = header.num_layers * header.num_experts, header.num_layers
    half, quarter = keys // 2, keys // 4
    usual = Case("half of the keys fit", half)
    suite.say(HOOKS, _odd_hooks(choice.entry.cls, (*POLICY_HOOKS, rank)))
    digest = suite.attempt(usual.name, partial(watch_eviction, choice, usual))
    for case in (
        Case("all keys fit", keys),
        Case("C = K", header.top_k),
        Case("C = |U| - 1", widest - 1),
        Case("one slot", 1),
        Case("scope=layer", half, layered=True),
        Case("scope=layer, one slot a layer", layers, layered=True),
        Case("admission=bypass", quarter, admission=residency.BYPASS),
        Case("prefetches", quarter, prefetches=True),
        Case("prefetches, guard", quarter, prefetches=True, guarded=True),
        Case("prefetches, scope=layer", half, layered=True, prefetches=True, guarded=True),
    ):
        suite.attempt(case.name, partial(watch_eviction, choice, case))
    _check_replays(suite, evict=choice.spelled, training=choice)
    if digest:
        run, blind = partial(watch_eviction, choice), usual._replace(blind=True)
        suite.compare(REPRODUCIBLE, digest, partial(run, usual), "two runs decide differently")
        fault = "decides differently where the keys of later events are hidden"
        suite.compare(NEEDS, digest, partial(run, blind), fault)
    suite.conclude(CAPACITY, VICTIMS, FETCHES, COUNTERS, RANKS, UNTOUCHED)


def _check_prefetch(choice: Choice, suite: _Suite) -> None:
    suite.say(HOOKS, _odd_hooks(choice.entry.cls, (predict,)))
    if hasattr(choice.entry.cls, "predict"):
        usual = Case("proposals", small_trace().header.num_experts)
        run = partial(watch_prefetches, choice)
        proposed = suite.attempt(usual.name, partial(run, usual))
        if proposed:
            suite.compare(REPRODUCIBLE, proposed, partial(run, usual), "two runs propose otherwise")
            if "future" not in choice.needs:
                fault = "proposes otherwise where the keys of later events are hidden"
                suite.compare(NEEDS, proposed, partial(run, usual._replace(blind=True)), fault)
        suite.conclude(PROPOSALS)
    _check_replays(suite, evict="lru", prefetch=choice.spelled, training=choice)
    suite.conclude(COUNTERS)


def _check_admission(choice: Choice, suite: _Suite) -> None:
    header, widest = small_trace().header, widest_event()
    half, lru = header.num_layers * header.num_experts // 2, choose("evict", "lru")
    usual = Case("half of the keys fit", half, gate=choice)
    suite.say(HOOKS, _odd_hooks(choice.entry.cls, GATE_HOOKS))
    digest = suite.attempt(usual.name, partial(watch_eviction, lru, usual))
    for case in (
        Case("C = |U| - 1", widest - 1, gate=choice),
        Case("one slot", 1, gate=choice),
        Case("scope=layer", half, layered=True, gate=choice),
        Case("prefetches, guard", half, prefetches=True, guarded=True, gate=choice),
    ):
        suite.attempt(case.name, partial(watch_eviction, lru, case))
    _check_replays(suite, evict="lru", admission=choice.spelled, training=choice)
    if digest:
        run, blind = partial(watch_eviction, lru), usual._replace(blind=True)
        suite.compare(REPRODUCIBLE, digest, partial(run, usual), "two runs decide differently")
        fault = "decides differently where the keys of later events are hidden"
        suite.compare(NEEDS, digest, partial(run, blind), fault)
    suite.conclude(CAPACITY, VICTIMS, FETCHES, COUNTERS, UNTOUCHED)


def _check_options(choice: Choice, suite: _Suite) -> None:
    def create() -> str:
        made: Any = choice.create()
        if choice.entry.axis == "schedule" and type(made) is not Schedule:
            raise TypeError(f"create returned {made!r}, not a Schedule")
        for slots in (1, 7, 20) if choice.entry.axis == "allocate" else ():
            world = small_world(Case("", slots), choice.needs)
            quotas = made.quotas(slots, world)
            if len(quotas) != 4 or sum(quotas) != slots or not 0 <= min(quotas) <= max(quotas) <= 8:
                raise Violation(CAPACITY, f"{slots} slots over 4 layers of 8 experts: {quotas}")
        return ""

    suite.attempt("create", create)


def _check_executing(choice: Choice, suite: _Suite) -> None:
    """Check what says which experts are executed, or where: over caches of all sizes."""
    axis, cls = choice.entry.axis, choice.entry.cls
    suite.say(HOOKS, _odd_hooks(cls, {"route": ROUTE_HOOKS, "miss": MISS_HOOKS}[axis]))
    clock = SLOW_LINK if "rates" in choice.needs else None
    digest = ""
    for slots in (1, small_trace().header.top_k, 8, 16, 32):
        options = {axis: choice.spelled, "prefetch": "random:depth=2,width=3"}
        run = partial(watch_execution, choice, slots, clock, **options)
        digest = suite.attempt(f"{slots} slots", run)
    if digest:
        suite.compare(REPRODUCIBLE, digest, run, "two runs decide differently")
        slow = partial(watch_execution, choice, 16, SLOW_LINK, schedule="cancel", **options)
        suite.attempt("slow link, schedule=cancel", slow)
    suite.conclude(ROWS_ADD_UP, COUNTERS, UNTOUCHED)


_CHECKS = {
    "evict": _check_evict,
    "prefetch": _check_prefetch,
    "route": _check_executing,
    "miss": _check_executing,
    "admission": _check_admission,
}


def _check_replays(
    suite: _Suite, *, evict: str, prefetch: str = "", admission: str = "forced", training: Choice
) -> None:
    """Whole runs: emptied between requests, and beside a link too slow to keep up."""

    def run(options: dict[str, Any], timed: bool) -> str:
        costs = SLOW_LINK if timed else None
        return _replayed(
            small_trace(),
            training,
            evict=evict,
            admission=admission,
            costs=costs,
            interpreted=True,
            **options,
        )

    guess = prefetch or "random:depth=2,width=3"
    if prefetch:
        suite.attempt("without a clock", partial(run, {"prefetch": guess}, False))
    else:
        suite.attempt("slow link", partial(run, {}, True))
    suite.attempt("reset=request", partial(run, {"reset": "request", "prefetch": guess}, False))
    for schedule in ("fifo", "cancel", "guard"):
        options = {"schedule": schedule, "prefetch": guess}
        suite.attempt(f"slow link, schedule={schedule}", partial(run, options, True))


def _check_compiled(choice: Choice, suite: _Suite) -> None:
    """Compile a plug-in, every index checked, and run it on the sizes of another model."""
    if not (choice.compiled and foreign_files(choice.cls)):
        return
    if "model" in choice.needs:
        choice = equipped(Choice.usual(choice.entry), other_trace())
    options: dict[str, Any] = {"evict": "lru", choice.entry.axis: choice.spelled}
    if choice.entry.axis == "evict":
        options["prefetch"] = "random:depth=2,width=3"
    run = partial(_replayed, other_trace(), choice, **options)
    expected = suite.attempt("sizes of another model", partial(run, interpreted=True))
    if expected:
        fault = "decides differently when it is compiled"
        suite.compare(COMPILED, expected, partial(run, compiled=True), fault)


def _replayed(
    trace: Trace,
    training: Choice,
    *,
    costs: CostCoefficients | None = None,
    interpreted: bool = False,
    compiled: bool = False,
    **options: Any,
) -> str:
    """Replay with half of the keys in the cache; return the digest of the decisions."""
    slots = trace.header.num_layers * trace.header.num_experts // 2
    outcome = replay(
        trace,
        RunConfig(capacity=str(slots), capacity_slots=slots, **options),
        training=training_trace(trace) if "training" in training.needs else None,
        costs=costs,
        interpreted=interpreted,
        compiled=compiled,
    )
    try:
        check(outcome.counters)
    except AccountingError as error:
        raise Violation(COUNTERS, str(error)) from None
    return outcome.decision_digest


def _odd_hooks(cls: Any, hooks: Iterable[Callable[..., Any]]) -> str:
    """Name hooks that the core cannot bind; misspelt ones are refused by the registry."""
    known = {hook.__name__ for hook in hooks}
    for name in known:
        if hasattr(cls, name) and not isinstance(getattr(cls, name), FunctionType):
            return f"{name} is not a plain function: the core cannot call it"
    return ""


def _told(problem: BaseException | None) -> str:
    """Say in one line what went wrong, and where."""
    if problem is None:
        return ""
    if isinstance(problem, Violation):
        return ": ".join(problem.args)
    if isinstance(problem, SpecmdError):
        return str(problem)
    hint = ""
    if isinstance(problem, IndexError):
        hint = "; what a policy did not declare in `needs` is empty"
    return told(problem) + hint


class _Enough(Exception):  # noqa: N818 - no error: the findings so far are the answer
    """Nothing more can be learnt."""
