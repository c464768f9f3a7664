"""Where tasks run: in processes of this machine, which may die of them.

An executor takes tasks and yields the run of each, whatever became of it. `LocalProcesses` works on
many at once; `FreshProcesses` on one after another, each in a process that has seen no other. A
process that dies takes its pool down, and nobody can say which of the tasks in flight was to blame:
each of them is tried once more, alone, and the one that kills its process again has failed.
Everything else completes. Processes end when the one that started them does, however that ended.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Hashable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import BaseContext
from typing import Protocol

from specmd.errors import SpecmdError
from specmd.policy.registry import plugins_of
from specmd.runs.options import RunConfig
from specmd.runs.run import Run

Results = Generator[Run, None, None]

DIED = "its process died: killed, or out of memory"
DIED_TWICE = "its worker process died, twice: killed or crashed"


class Task(Protocol):
    """A run to be made, small enough to travel to another process."""

    @property
    def kernel(self) -> Hashable:
        """What is compiled for it: tasks that agree here share a kernel on disk."""
        ...

    def perform(self) -> Run:
        """Make the run, and write its file if it has one; any exception makes it a failed run."""
        ...

    def failed(self, reason: str) -> Run:
        """Record, in the process that asked for it, that there are no numbers and why."""
        ...


class Executor(Protocol):
    """Anything that runs tasks: here, or on machines it knows of."""

    def run(self, tasks: Sequence[Task]) -> Results:
        """Run everything; yield each run once it is done. Closing it ends what is running."""
        ...


@dataclass(frozen=True)
class LocalProcesses:
    """So many processes, each of which takes the next task."""

    workers: int

    def run(self, tasks: Sequence[Task]) -> Results:
        """See `Executor`."""
        todo = deque(tasks)
        while todo:
            suspects: list[Task] = []
            yield from _in_pool(todo, self.workers, suspects, _context())
            for task in suspects:
                guilty: list[Task] = []
                yield from _in_pool(deque([task]), 1, guilty, _context())
                if guilty:
                    yield task.failed(DIED_TWICE)


def blamed(reason: str, config: RunConfig) -> str:
    """Name the plug-ins of a run whose process died: its own words died with it."""
    plugins = plugins_of(config) if reason in (DIED, DIED_TWICE) else []
    return f"{reason}; it ran the plug-in {', '.join(plugins)}" if plugins else reason


class FreshProcesses:
    """One task at a time, each in a new process; none is tried twice."""

    def run(self, tasks: Sequence[Task]) -> Results:
        """See `Executor`."""
        for task in tasks:
            dead: list[Task] = []
            context = multiprocessing.get_context("spawn")
            yield from _in_pool(deque([task]), 1, dead, context)
            if dead:
                yield task.failed(DIED)


def _in_pool(todo: deque[Task], workers: int, lost: list[Task], context: BaseContext) -> Results:
    """Run tasks until none is left or the pool breaks; `lost` gets the tasks in flight then."""
    before = set(multiprocessing.active_children())
    workers = max(1, min(workers, len(todo)))
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    flying: dict[Future[Run | str], Task] = {}
    compiled: set[Hashable] = set()
    in_order = False
    try:
        while (todo or flying) and not lost:
            while todo and len(flying) < workers:
                task = next_task(todo, compiled, {each.kernel for each in flying.values()})
                try:
                    flying[pool.submit(_perform, task)] = task
                except BrokenExecutor:  # a worker died while it was idle, or starting
                    lost.append(task)
                    break
            # Once the pool is broken, all of them end.
            finished = wait(flying, return_when=FIRST_COMPLETED).done
            while finished:
                future = finished.pop()
                task = flying.pop(future)
                compiled.add(task.kernel)
                try:
                    made = future.result()
                except BrokenExecutor:
                    lost.append(task)
                    finished |= wait(flying).done
                except Exception as error:  # what came back cannot be read
                    yield task.failed(_said(error))
                else:
                    yield task.failed(made) if isinstance(made, str) else made
        in_order = not lost
    finally:
        if not in_order:  # a worker that was starting when the pool broke would wait for ever
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
        pool.shutdown(cancel_futures=True)


def next_task(todo: deque[Task], compiled: set[Hashable], busy: set[Hashable]) -> Task:
    """Take the next task; rather not one whose kernel another worker is compiling right now."""
    for task in todo:
        if task.kernel in compiled or task.kernel not in busy:
            todo.remove(task)
            return task
    return todo.popleft()


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, SpecmdError) else f"{type(error).__name__}: {error}"


def _context() -> BaseContext:
    """How workers start: never as a fork of this process, whose threads and locks they would get.

    Where there is a fork server, it imports the simulator once for all of them.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["specmd.sweep.sweep"])
    return context


# What follows runs in the workers.


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the parent to end; a worker without one would wait for its next task for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _perform(task: Task) -> Run | str:
    """Perform a task here; what goes wrong comes back as words, which always travel."""
    try:
        return task.perform()
    except Exception as error:
        return _said(error)
