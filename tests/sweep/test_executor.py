"""Workers end with the sweep that started them, however it ended, and fresh processes are fresh."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass

import pytest

from specmd.runs.options import RunConfig
from specmd.runs.run import Run, TraceFacts
from specmd.sweep.executor import FreshProcesses, LocalProcesses, limited
from specmd.trace import save, synthetic

PLUGIN = """
'''waits: says that it runs, and would say that it was left alone.'''
import socket
import time
from specmd.policy import policy

@policy("waits", source="a test")
class Waits:
    @classmethod
    def create(cls, world):
        line = socket.create_connection({address!r})
        line.sendall(b".")
        time.sleep(300)
        line.sendall(b"alive")

    def victim(self, *told):
        raise NotImplementedError
"""
PATIENCE_S = 120  # nothing waits for it but a test that fails


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_sweep_that_is_killed_leaves_no_workers(tmp_path, how):
    made = synthetic(num_layers=2, num_experts=5, top_k=2, num_requests=2, decode_length=6)
    trace = save(made, tmp_path / "small.npz")
    plugin = tmp_path / "waits.py"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_S)
        plugin.write_text(PLUGIN.format(address=server.getsockname()))
        sweep = subprocess.Popen(
            [sys.executable, "-m", "specmd", "sweep", str(trace), "--plugin", str(plugin),
             *("-e", "waits", "-c", "4", "-c", "6", "--no-bounds", "--jobs", "2"),
             *("--out", str(tmp_path / "out"))],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        workers = [server.accept()[0] for _ in range(2)]
        for worker in workers:
            worker.settimeout(PATIENCE_S)
            assert worker.recv(1) == b"."
        sweep.send_signal(getattr(signal, how))
        sweep.wait()
        for worker in workers:
            assert worker.recv(5) == b"", "the line is closed: nobody lives to say more"
            worker.close()


def made_up(reason=""):
    return Run(
        id="0" * 24,
        status="failed" if reason else "ok",
        reason=reason,
        config=RunConfig(capacity_slots=1),
        trace=TraceFacts(
            name="", digest="", model="", kind="synthetic", num_layers=1, num_experts=1, top_k=1,
            expert_bytes=None, tokens=1, steps=1, requests=1, counted_tokens=1, counted_steps=1,
            complete=True,
        ),
        provenance={"process": os.getpid()},
    )  # fmt: skip


@dataclass(frozen=True)
class Says:
    """A task whose runs end in ways of its choice, spelled one after the other."""

    how: str

    @property
    def name(self):
        return self.how

    @property
    def makes(self):
        return frozenset([self.how])

    def parts(self):
        return [Says(how) for how in self.how.split()]

    def perform(self):
        for how in self.how.split():
            if how == "dies":
                os._exit(9)
            if how == "loops":
                with limited(self.name, 2.0):
                    while True:
                        pass
            if how == "raises":
                raise RuntimeError("why not")
            yield made_up()

    def failed(self, reason):
        assert len(self.parts()) == 1
        return made_up(reason)


def test_every_fresh_process_is_another_and_a_death_is_one_failed_run():
    runs = list(FreshProcesses().run([Says("ok"), Says("dies"), Says("raises"), Says("ok")]))
    assert [run.status for run in runs] == ["ok", "failed", "failed", "ok"]
    assert "its process died" in runs[1].reason
    assert runs[2].reason == "RuntimeError: why not"
    assert len({run.provenance["process"] for run in (runs[0], runs[3])} | {os.getpid()}) == 3


def test_nothing_is_lost_with_a_process_of_several():
    tasks = [Says("ok"), Says("dies"), *[Says("ok")] * 4, Says("raises")]
    runs = list(LocalProcesses(2).run(tasks))
    assert sorted(run.reason for run in runs) == [
        "", "", "", "", "", "RuntimeError: why not",
        "its worker process died, twice: killed or crashed",
    ]  # fmt: skip


def test_of_several_runs_one_that_fails_or_dies_takes_none_with_it():
    runs = list(LocalProcesses(1).run([Says("ok raises ok"), Says("ok dies ok")]))
    assert [run.reason for run in runs] == [
        "", "RuntimeError: why not", "",
        "", "its worker process died, twice: killed or crashed", "",
    ]  # fmt: skip
    assert [run.status for run in FreshProcesses().run([Says("ok raises ok")])] == [
        "ok", "failed", "ok",
    ]  # fmt: skip


@pytest.mark.parametrize("executor", [LocalProcesses(2), FreshProcesses()])
def test_one_that_takes_too_long_is_ended_and_not_tried_again(executor):
    runs = list(executor.run([Says("ok"), Says("loops"), Says("ok")]))
    assert sorted(run.status for run in runs) == ["failed", "ok", "ok"]
    (reason,) = (run.reason for run in runs if run.status == "failed")
    assert "did not return within 2 s (test_executor.py:" in reason
    assert "in perform); if it is only slow, give it more (--time-limit)" in reason


def test_outside_of_a_worker_nothing_is_ended(tmp_path):
    with limited("here", 0.001):
        assert sum(range(10**6)) > 0
