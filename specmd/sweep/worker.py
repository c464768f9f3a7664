"""What a worker of a cluster does: unpacks inputs, performs tasks, returns their files."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from distributed import WorkerPlugin, get_worker

import specmd
from specmd.errors import Exit, SpecmdError
from specmd.files import replacing
from specmd.runs.identity import source_digest
from specmd.sweep.executor import DIED, Made, Task, ended, keep_notes, perform

_HERE = "specmd"  # folder of what was shipped, in that of the worker
_one_at_a_time = threading.Lock()


class PortableTask(Task, Protocol):
    """A task that another machine can perform."""

    def parts(self) -> Sequence[PortableTask]:
        """See `Task`."""
        ...

    @property
    def folder(self) -> Path | None:
        """Folder of its results, on the machine that asked for them."""
        ...

    @property
    def resources(self) -> Mapping[str, float]:
        """Say what a worker must offer, by the names it was started with."""
        ...

    @property
    def fresh(self) -> bool:
        """Whether each run wants a process that has seen no other."""
        ...

    def inputs(self) -> Mapping[str, Mapping[str, Path]]:
        """Return by the path that a task names: the files behind it, by name within its folder."""
        ...

    def beside(self) -> Mapping[str, bytes]:
        """Return the files of `out` that decide whether there is anything to do, by name."""
        ...

    def moved(self, places: Mapping[str, str], out: Path, bounds: Path) -> Task:
        """Return it with inputs at other places, writing into `out`, sharing bounds in a folder."""
        ...


@dataclass(frozen=True)
class Returned:
    """What comes back: the runs, and the files they are kept in."""

    made: Made
    files: dict[str, bytes] = field(default_factory=dict)


class Shipment(WorkerPlugin):
    """The files of one input by name; dask gives it to each worker once, whenever it joins."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        found = hashlib.blake2b(digest_size=12)
        for name, content in sorted(files.items()):
            found.update(f"{name}\0{len(content)}\0".encode())
            found.update(content)
        self.files, self.digest = files, found.hexdigest()
        self.name = f"specmd-{self.digest}"

    def setup(self, worker: Any) -> None:
        """Unpack in the folder of a worker."""
        for name, content in self.files.items():
            with replacing(self._folder(worker) / name) as file:
                file.write(content)

    def teardown(self, worker: Any) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self._folder(worker), ignore_errors=True)

    def _folder(self, worker: Any) -> Path:
        return Path(worker.local_directory) / _HERE / self.digest


class LeavesCtrlC(WorkerPlugin):
    """Workers in the terminal's own group get its Ctrl-C as well, which is for the parent."""

    name = "specmd-leaves-ctrl-c"

    def setup(self, worker: Any) -> None:
        """Ignore it from now on."""
        with suppress(ValueError):  # not in the main thread: then it gets no signals either
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def perform_there(
    task: PortableTask, places: Mapping[str, str], beside: Mapping[str, bytes], source: str
) -> Returned:
    """Perform a task on this worker, in a folder of its own whose files are sent back."""
    worker = get_worker()
    if source_digest() != source:
        raise SpecmdError(
            f"worker {worker.address} has another SpecMD than this one (it says "
            f"{specmd.__version__}): install the same there"
        )
    root = Path(worker.local_directory) / _HERE
    shared = root.parent.parent / "specmd-bounds"  # by all workers of a machine
    with tempfile.TemporaryDirectory(dir=worker.local_directory) as folder:
        out = Path(folder)
        for name, content in beside.items():
            (out / name).write_bytes(content)
        there = {path: str(root / name) for path, name in places.items()}
        _let_import([Path(path) for path in there.values()])
        moved = task.moved(there, out, shared)
        with _one_at_a_time:  # of its threads: what runs share in a process is not for several
            keep_notes(out.parent)
            made = perform_fresh(moved) if task.fresh else perform(moved)
        files = {
            path.relative_to(out).as_posix(): path.read_bytes()
            for path in sorted(out.rglob("*"))
            if path.is_file()
        }
    return Returned(made, {name: text for name, text in files.items() if beside.get(name) != text})


def _let_import(places: Sequence[Path]) -> None:
    """Let plug-ins find what lies beside them, as where they came from."""
    folders = [place if place.is_dir() else place.parent for place in places if _is_plugin(place)]
    sys.path += [str(folder) for folder in folders if str(folder) not in sys.path]


def _is_plugin(place: Path) -> bool:
    return place.is_dir() or place.suffix == ".py"


def perform_fresh(task: Task) -> Made:
    """Perform a task in a new process, which may be started from any thread or daemon."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "made"
        subprocess.run(  # noqa: S603 - this very interpreter
            [sys.executable, "-m", "specmd.sweep.fresh", str(result)],
            input=pickle.dumps(task),
            stdout=subprocess.DEVNULL,
            check=False,
        )
        if not result.is_file():
            return Made([], ended(DIED, folder, task), Exit.RUN_FAILED)
        made = pickle.loads(result.read_bytes())  # noqa: S301 - from its child
    assert isinstance(made, Made)
    return made
