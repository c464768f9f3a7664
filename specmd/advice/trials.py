"""Trials: runs of many compositions on prefixes of one trace, on all cores.

A batch of configurations that share what is compiled goes to one process, and those that differ in
nothing but the profile stand side by side: their decisions are the same and are made once. The
processes get the trace once. So little work that starting them would cost more is done here.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType

from specmd.advice.prefix import prefix
from specmd.advice.requests import RequestTimes, request_times
from specmd.errors import SpecmdError
from specmd.policy.registry import add_plugin
from specmd.runs.options import RunConfig
from specmd.runs.run import Run
from specmd.simulation.simulate import try_config
from specmd.sweep.executor import start_worker
from specmd.trace import Trace

Report = Callable[[str, int, int], None]
"""Told what is waited for, how much of it is done, and of how much."""

_SMALL = 1_000_000  # accesses, over all runs: not worth a process


@dataclass(frozen=True)
class Trial:
    """A run, and the times of its requests where they were asked for."""

    run: Run
    times: RequestTimes | None = None


@dataclass(frozen=True)
class Batch:
    """Configurations for one process, on so many first steps of the trace."""

    configs: tuple[RunConfig, ...]
    steps: int
    bounds: bool = False
    times: bool = False


@dataclass
class _Inputs:
    trace: Trace
    training: Trace | None


class Trials:
    """Where trials are made; a context.

    Args:
        trace: as it is run: composed already.
        training: what policies fitted beforehand are fitted on.
        plugins: files of policies, registered in every process.
        workers: processes; 1: here.

    """

    def __init__(
        self,
        trace: Trace,
        training: Trace | None = None,
        plugins: Sequence[str] = (),
        workers: int = 1,
    ) -> None:
        self._inputs = _Inputs(trace, training)
        self._plugins, self._workers = tuple(plugins), workers
        self._pool: ProcessPoolExecutor | None = None
        self.made = 0

    def __enter__(self) -> Trials:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            processes = list((self._pool._processes or {}).values())
            self._pool.shutdown(wait=kind is None, cancel_futures=True)
            for process in processes if kind is not None else ():
                with suppress(OSError):
                    process.terminate()

    def run(self, batches: Iterable[Batch], what: str, report: Report) -> list[Trial]:
        """Make all trials, in the order of the batches; what failed is left to the caller."""
        todo = [batch for batch in batches if batch.configs]
        done: list[list[Trial]] = [[] for _ in todo]
        report(what, 0, len(todo))
        if self._is_small(todo):
            for number, batch in enumerate(todo):
                done[number] = _perform(self._inputs, batch)
                report(what, number + 1, len(todo))
        else:
            pool = self._start()
            flying: dict[Future[list[Trial]], int] = {
                pool.submit(_work, batch): number for number, batch in enumerate(todo)
            }
            try:
                for finished, future in enumerate(as_completed(flying), start=1):
                    done[flying[future]] = future.result()
                    report(what, finished, len(todo))
            except BrokenExecutor:
                raise SpecmdError(
                    f"{what}: a worker process died: killed, or out of memory; try --jobs 1"
                ) from None
        found = [trial for each in done for trial in each]
        self.made += len(found)
        return found

    def _is_small(self, batches: Sequence[Batch]) -> bool:
        trace = self._inputs.trace
        per_step = trace.expert_ids.size / max(1, trace.num_steps)
        size = sum(batch.steps * per_step * len(batch.configs) for batch in batches)
        return self._workers == 1 or (self._pool is None and size < _SMALL)

    def _start(self) -> ProcessPoolExecutor:
        if self._pool is None:
            methods = multiprocessing.get_all_start_methods()
            method = "forkserver" if "forkserver" in methods else "spawn"
            context = multiprocessing.get_context(method)
            if method == "forkserver":
                context.set_forkserver_preload([__name__])
            self._pool = ProcessPoolExecutor(
                self._workers,
                mp_context=context,
                initializer=_receive,
                initargs=(self._inputs, self._plugins),
            )
        return self._pool


def _perform(inputs: _Inputs, batch: Batch) -> list[Trial]:
    part = _prefix(inputs.trace, batch.steps)
    found = []
    for config in batch.configs:
        run = try_config(part, config, training=inputs.training, bounds=batch.bounds)
        times = request_times(run) if batch.times and run.status == "ok" else None
        found.append(Trial(run.with_details(None), times))  # the rest need not travel
    return found


@cache
def _prefix(trace: Trace, steps: int) -> Trace:
    return prefix(trace, steps)


# What follows runs in the workers.

_received: _Inputs | None = None


def _receive(inputs: _Inputs, plugins: Sequence[str]) -> None:
    global _received
    start_worker()
    for path in plugins:
        add_plugin(Path(path))
    _received = inputs


def _work(batch: Batch) -> list[Trial]:
    assert _received is not None
    return _perform(_received, batch)
