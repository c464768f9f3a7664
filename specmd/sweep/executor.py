"""Where tasks run: in processes of this machine, which may die of them.

An executor takes tasks and yields their runs, whatever became of them. `LocalProcesses` works on
many at once; `FreshProcesses` on one run after another, each in a process that has seen no other. A
process that dies takes its pool down, and nobody can say which of the tasks in flight was to blame:
each of their runs is tried once more, alone, and the one that kills its process again has failed.
So has a run that takes too long, which ends its process as well and is not tried again. Everything
else completes. Processes end when the one that started them does, however that ended.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Protocol, TypeVar

from specmd.errors import Exit, SpecmdError
from specmd.policy.deadline import noting, read_note
from specmd.policy.registry import plugins_of
from specmd.runs.options import RunConfig
from specmd.runs.run import Run

Results = Generator[Run, None, None]

DIED = "its process died: killed, or out of memory"
DIED_TWICE = "its worker process died, twice: killed or crashed"


class Task(Protocol):
    """Runs to be made one after another, small enough to travel to another process."""

    @property
    def name(self) -> str:
        """Name its first run, apart from all others."""
        ...

    @property
    def makes(self) -> frozenset[Hashable]:
        """Name what it leaves for others on disk: kernels it compiles, bounds it computes."""
        ...

    def parts(self) -> Sequence[Task]:
        """Return a task for each of its runs, in the order in which they are made."""
        ...

    def perform(self) -> Iterator[Run]:
        """Make the runs, each written before it is yielded; an exception is the next one's."""
        ...

    def failed(self, reason: str) -> Run:
        """Record that there are no numbers and why: here, and of a task of one run."""
        ...


T = TypeVar("T", bound=Task)
Taken = TypeVar("Taken", bound=Task, contravariant=True)


@dataclass(frozen=True)
class Made:
    """What came of a task: its runs, and what ended it before the last."""

    runs: list[Run]
    error: str = ""
    code: Exit = Exit.OK


class Executor(Protocol[Taken]):
    """Anything that runs tasks: here, or on machines it knows of."""

    def run(self, tasks: Sequence[Taken]) -> Results:
        """Run everything; yield each run once it is done. Closing it ends what is running."""
        ...


@dataclass(frozen=True)
class LocalProcesses:
    """So many processes, each of which takes the next task."""

    workers: int

    def run(self, tasks: Sequence[Task]) -> Results:
        """See `Executor`."""
        todo = deque(tasks)
        with tempfile.TemporaryDirectory(prefix="specmd-") as notes:
            while todo:
                suspects: list[Task] = []
                yield from _in_pool(todo, self.workers, suspects, _context(), notes)
                for part in (part for task in suspects for part in task.parts()):
                    guilty: list[Task] = []
                    yield from _in_pool(deque([part]), 1, guilty, _context(), notes)
                    if guilty:
                        yield part.failed(ended(DIED_TWICE, notes, part))


def ended(reason: str, notes: str | Path, part: Task) -> str:
    """Say how a process died, and, where it left a note, of what."""
    note = read_note(Path(notes) / part.name)
    if note is None:
        return reason
    return too_long(note.text) if note.is_late else f"{_event(reason)}: {note.text}"


def too_long(told: str) -> str:
    """Say that a run took too long, and what to do if it is only slow."""
    return f"the run {told}; if it is only slow, give it more (--time-limit)"


def blamed(reason: str, config: RunConfig) -> str:
    """Name the plug-ins of a run whose process died: its own words died with it."""
    plugins = plugins_of(config) if _event(reason) in map(_event, (DIED, DIED_TWICE)) else []
    return f"{reason}; it ran the plug-in {', '.join(plugins)}" if plugins else reason


def _event(reason: str) -> str:
    return reason.partition(":")[0]


class FreshProcesses:
    """One task at a time, each in a new process; none is tried twice."""

    def run(self, tasks: Sequence[Task]) -> Results:
        """See `Executor`."""
        with tempfile.TemporaryDirectory(prefix="specmd-") as notes:
            for part in (part for task in tasks for part in task.parts()):
                dead: list[Task] = []
                context = multiprocessing.get_context("spawn")
                yield from _in_pool(deque([part]), 1, dead, context, notes)
                if dead:
                    yield part.failed(ended(DIED, notes, part))


def _in_pool(
    todo: deque[Task], workers: int, lost: list[Task], context: BaseContext, notes: str
) -> Results:
    """Run tasks until none is left or the pool breaks; `lost` gets the tasks in flight then."""
    before = set(multiprocessing.active_children())
    workers = max(1, min(workers, len(todo)))
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=start_worker, initargs=(notes,)
    )
    flying: dict[Future[Made], Task] = {}
    made: set[Hashable] = set()
    in_order = False
    try:
        while (todo or flying) and not lost:
            while todo and len(flying) < workers:
                task = next_task(todo, made, flying.values())
                try:
                    flying[pool.submit(perform, task)] = task
                except BrokenExecutor:  # a worker died while it was idle, or starting
                    lost.append(task)
                    break
            # Once the pool is broken, all of them end.
            finished = wait(flying, return_when=FIRST_COMPLETED).done
            while finished:
                future = finished.pop()
                task = flying.pop(future)
                made |= task.makes
                try:
                    result = future.result()
                except BrokenExecutor:
                    lost.append(task)
                    finished |= wait(flying).done
                    continue
                except Exception as error:  # what came back cannot be read
                    result = Made([], said(error))
                yield from settle(task, result, todo)
        in_order = not lost
    finally:
        if not in_order:  # a worker that was starting when the pool broke would wait for ever
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
        pool.shutdown(cancel_futures=True)


def settle(task: Task, result: Made, todo: deque[Any]) -> Results:
    """Yield what a task came to; what it did not come to goes back into the queue.

    Raises SpecmdError where a result could not be written: no other could be.
    """
    yield from result.runs
    if result.code is Exit.NOT_WRITTEN:
        raise SpecmdError(result.error, result.code)
    if result.error:
        failed, *rest = task.parts()[len(result.runs) :]
        yield failed.failed(result.error)
        todo.extendleft(rest[::-1])


def next_task(todo: deque[T], made: set[Hashable], busy: Iterable[Task]) -> T:
    """Take the next task; rather not one that would make what another is making right now."""
    making = frozenset[Hashable]().union(*(task.makes for task in busy)) - made
    for task in todo:
        if making.isdisjoint(task.makes):
            todo.remove(task)
            return task
    return todo.popleft()


def said(error: BaseException) -> str:
    """Put an exception into words that travel."""
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


def start_worker(notes: str | None = None) -> None:
    """Let a process of a pool end with the one that started it, and leave Ctrl-C to that.

    `notes` is a folder in which its parent looks for the reason when it dies.
    """
    if notes is not None:
        keep_notes(Path(notes))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the parent to end; a worker without one would wait for its next task for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


_notes: Path | None = None  # where a dying process says of what; None: it is not one of a pool


def keep_notes(folder: Path) -> None:
    """Let this process be ended by runs that take too long, each with a note in a folder."""
    global _notes
    _notes = folder


@contextmanager
def limited(name: str, limit_s: float | None) -> Iterator[None]:
    """Make a run within its time, if this process may be ended; raises SpecmdError where one was.

    Args:
        name: of the run, as its task says.
        limit_s: after which the process ends; None: never.

    """
    if _notes is None:
        yield
        return
    before = read_note(_notes / name)
    if before is not None and before.is_late:
        raise SpecmdError(too_long(before.text), Exit.RUN_FAILED)
    with noting(_notes / name, limit_s):
        yield


def perform(task: Task) -> Made:
    """Perform a task here; what goes wrong comes back as words, which always travel."""
    runs: list[Run] = []
    try:
        for run in task.perform():
            runs.append(run)
    except SpecmdError as error:
        return Made(runs, str(error), error.code)
    except Exception as error:
        return Made(runs, said(error), Exit.RUN_FAILED)
    return Made(runs)
