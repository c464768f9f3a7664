"""Tasks on a cluster that dask.distributed knows: on this machine, or wherever its workers are.

Workers share no folder with the process that asks. What tasks read (traces, plug-ins, profiles and
shapes that are files) goes to each worker once, under the digest of its content, also to one that
joins later; what they write comes back and is written here. A task whose worker is lost is given to
another by the scheduler; one whose workers keep dying is tried again, run by run, as a local one
is. Live runs get a fresh process on a worker that offers the resources they ask for.

Equal inputs give equal decisions wherever they are: the runs are those of a local sweep, and a
worker with other code of SpecMD is refused.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections import deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from distributed import Client, Future, LocalCluster, wait
from distributed.scheduler import KilledWorker

import specmd
from specmd.errors import Exit, SpecmdError
from specmd.files import replacing
from specmd.runs.identity import source_digest
from specmd.sweep.executor import DIED_TWICE, Made, Results, next_task, said, settle
from specmd.sweep.worker import LeavesCtrlC, PortableTask, Returned, Shipment, perform_there

DEATHS_BORNE = 5
"""Workers that may die while inputs are shipped."""
WAITING_FOR_S = 30.0
"""A scheduler that does not answer for so long is not there."""


@dataclass(frozen=True)
class DaskCluster:
    """The workers of a scheduler, or so many processes of this machine.

    Attributes:
        address: of the scheduler, as `tcp://host:8786`, or the file it wrote it to
            (`dask scheduler --scheduler-file FILE.json`); None: a cluster of this machine, for as
            long as it is needed.
        workers: how many processes that has.

    """

    address: str | None = None
    workers: int = 1

    def run(self, tasks: Sequence[PortableTask]) -> Results:
        """See `Executor`; raises SpecmdError for a cluster that cannot be used."""
        if not tasks:
            return
        with _client(self.address, self.workers) as client:
            _require(client, tasks)
            try:
                with _shipped(client, tasks) as places:
                    yield from _Errand(client, places).run(tasks)
            except OSError as error:
                raise SpecmdError(
                    f"the dask cluster cannot be reached any more ({error}): what is done is kept; "
                    "start it again to go on"
                ) from None
            except ImportError as error:
                raise SpecmdError(
                    f"a worker cannot load SpecMD: {error}; install {specmd.__version__} there"
                ) from None


@contextmanager
def _client(address: str | None, workers: int) -> Iterator[Client]:
    if address is not None:
        try:
            client = Client(_address(address), timeout=WAITING_FOR_S, set_as_default=False)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise SpecmdError(
                f"no dask scheduler answers at {address}: {error}; start one with "
                "`dask scheduler`, and see docs/cluster.md"
            ) from None
        with client:
            yield client
        return
    with (
        tempfile.TemporaryDirectory(prefix="specmd-") as folder,
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
            local_directory=folder,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(LeavesCtrlC())
        yield client


def _address(given: str) -> str:
    """Return an address as it is, or the one in the file that a scheduler has written."""
    if not given.endswith(".json"):
        return given
    return str(json.loads(Path(given).read_bytes())["address"])


def _require(client: Client, tasks: Sequence[PortableTask]) -> None:
    """Raise SpecmdError where there are workers, and none that may take some task."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    for asked in {tuple(sorted(task.resources.items())) for task in tasks}:
        fit = [
            worker
            for worker in workers
            if all(worker["resources"].get(name, 0) >= least for name, least in asked)
        ]
        if workers and not fit:
            said = " ".join(f"{name}={least:g}" for name, least in asked)
            raise SpecmdError(
                f"none of {len(workers)} workers offers {said}: start one with "
                f"`dask worker --resources '{said}'`, or ask for another --resource"
            )


@contextmanager
def _shipped(client: Client, tasks: Sequence[PortableTask]) -> Iterator[dict[str, str]]:
    """Send every input once to every worker; yields where each is, below the worker's folder."""
    inputs: dict[str, Mapping[str, Path]] = {}
    for task in tasks:
        inputs |= task.inputs()
    places: dict[str, str] = {}
    sent: set[str] = set()
    try:
        for path, files in inputs.items():
            shipment = Shipment({name: _content(file) for name, file in files.items()})
            places[path] = f"{shipment.digest}/{'' if Path(path).is_dir() else Path(path).name}"
            if shipment.name not in sent:
                sent.add(shipment.name)
                _send(client, shipment)
        yield places
    finally:
        for name in sent:
            with suppress(OSError):  # its worker, or all of them, are gone, and it with them
                client.unregister_worker_plugin(name)


def _send(client: Client, shipment: Shipment) -> None:
    """Give a shipment to all workers; one that dies of something else meanwhile ends the call."""
    for _ in range(DEATHS_BORNE):
        try:
            client.register_plugin(shipment)
            return
        except OSError:
            continue
    client.register_plugin(shipment)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SpecmdError(f"{file}: cannot be read: {error.strerror or error}") from None


class _Errand:
    """The tasks of one sweep, on the way and back."""

    def __init__(self, client: Client, places: Mapping[str, str]) -> None:
        self.client, self.places, self.source = client, places, source_digest()

    def run(self, tasks: Sequence[PortableTask]) -> Results:
        todo: deque[PortableTask] = deque(tasks)
        while todo:
            suspects: list[PortableTask] = []
            yield from self._together(todo, suspects)
            for part in (part for task in suspects for part in task.parts()):
                guilty: list[PortableTask] = []
                yield from self._together(deque([part]), guilty)
                if guilty:
                    yield part.failed(DIED_TWICE)

    def _together(self, todo: deque[PortableTask], lost: list[PortableTask]) -> Results:
        """Keep every worker busy until nothing is left; `lost` gets what kept killing workers."""
        flying: dict[Future[Returned], PortableTask] = {}
        made: set[Hashable] = set()
        try:
            while todo or flying:
                room = 1 + sum(self.client.nthreads().values())
                while todo and len(flying) < room:
                    task = next_task(todo, made, flying.values())
                    flying[self._submit(task)] = task
                with self.client.as_current():
                    finished = wait(list(flying), return_when="FIRST_COMPLETED").done
                for future in finished:
                    task = flying.pop(future)
                    made |= task.makes
                    try:
                        back = future.result()
                    except KilledWorker:
                        lost.append(task)
                        continue
                    except CancelledError as error:  # the scheduler lost it, or we lost that
                        if self.client.status != "running":
                            raise SpecmdError(
                                f"the dask scheduler is gone ({error}): what is done is kept; "
                                "start it again to go on"
                            ) from None
                        todo.appendleft(task)
                        continue
                    except SpecmdError:
                        raise
                    except Exception as error:  # not of the run: those come back as words
                        back = Returned(Made([], said(error), Exit.RUN_FAILED))
                    _write(task, back.files)
                    for run in settle(task, back.made, todo):
                        yield run.kept_in(task.folder) if task.folder else run
        finally:
            if flying:
                self.client.cancel(list(flying))

    def _submit(self, task: PortableTask) -> Future[Returned]:
        return self.client.submit(
            perform_there,
            task,
            dict(self.places),
            dict(task.beside()),
            self.source,
            pure=False,
            resources=dict(task.resources) or None,
        )


def _write(task: PortableTask, files: Mapping[str, bytes]) -> None:
    """Write what came back; the run itself last, for where it is all of it is."""
    if task.folder is None:
        return
    for name in sorted(files, key=lambda name: (name.endswith(".json"), name)):
        with replacing(task.folder / name) as file:
            file.write(files[name])
