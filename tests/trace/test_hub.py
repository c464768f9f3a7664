"""Traces on the hub, fetched from a stand-in for it that answers the routes a download takes."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from specmd.errors import SpecmdError
from specmd.trace import save, synthetic
from specmd.trace.hub import located

pytest.importorskip("huggingface_hub", reason="the extra `hub` is not installed")
COMMITS = {"main": "a" * 40, "v1": "b" * 40}
REPO = "/datasets/somebody/routing/resolve/"


class StandIn(BaseHTTPRequestHandler):
    """The hub, as far as one file of one dataset goes; `files` by revision and path."""

    files: ClassVar[dict[tuple[str, str], bytes]] = {}
    asked: ClassVar[list[str]] = []

    def answer(self, *, body):
        type(self).asked.append(f"{self.command} {self.path}")
        if not self.path.startswith(REPO):
            return self.refuse(404, "RepoNotFound")
        revision, _, name = self.path.removeprefix(REPO).partition("/")
        names = {commit: name for name, commit in COMMITS.items()}
        revision = names.get(revision, revision)
        if revision not in COMMITS:
            return self.refuse(404, "RevisionNotFound")
        found = self.files.get((revision, name))
        if found is None:
            return self.refuse(404, "EntryNotFound")
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMITS[revision])
        self.send_header("ETag", f'"{hash(found) & 0xFFFFFFFF:08x}"')
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        if body:
            self.wfile.write(found)
        return None

    def refuse(self, code, reason):
        self.send_response(code)
        self.send_header("X-Error-Code", reason)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path):
    """The stand-in, serving; call it with a command line of specmd, or code."""
    made = {
        name: save(synthetic(num_requests=2, decode_length=6, seed=seed), tmp_path / f"{name}.npz")
        for seed, name in enumerate(COMMITS)
    }
    StandIn.files = {(name, "deep/t.npz"): path.read_bytes() for name, path in made.items()}
    StandIn.files["main", "deep/plain.csv"] = b"layer,experts\n0,3 1\n1,0 2\n0,1 2\n1,3 0\n"
    StandIn.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }

    def call(*argv, code=None, **more):
        program = ["-m", "specmd"] if code is None else ["-c", code]
        return subprocess.run(
            [sys.executable, *program, *map(str, argv)],
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    yield call
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_trace_is_fetched_once_and_read_like_any_other(hub, tmp_path):
    address = "hf://datasets/somebody/routing/deep/t.npz"
    first = hub("inspect", address, "--format", "json")
    assert first.returncode == 0, first.stderr
    assert first.stderr == f"specmd: fetching {address}\n"
    here = hub("inspect", tmp_path / "main.npz", "--format", "json")
    digest = json.loads(here.stdout)["header"]["digest"]
    assert json.loads(first.stdout)["header"]["digest"] == digest
    assert sum(line.startswith("GET") for line in StandIn.asked) == 1
    again = hub("simulate", address, "-c", "25%", "--no-bounds", "--format", "json")
    assert (again.returncode, again.stderr) == (0, "")
    (run,) = json.loads(again.stdout)
    assert (run["trace"]["digest"], run["trace"]["name"]) == (digest, "t")
    assert sum(line.startswith("GET") for line in StandIn.asked) == 1
    offline = hub("validate", "trace", address, HF_HUB_OFFLINE="1")
    assert (offline.returncode, offline.stderr) == (0, "")


def test_a_revision_is_another_file(hub, tmp_path):
    late = hub("validate", "trace", "hf://datasets/somebody/routing/deep/t.npz@v1")
    early = hub("validate", "trace", "hf://datasets/somebody/routing@v1/deep/t.npz")
    here = hub("validate", "trace", tmp_path / "v1.npz")
    other = hub("validate", "trace", tmp_path / "main.npz")
    said = {done.stdout.split()[-1] for done in (late, early, here)}
    assert len(said) == 1
    assert said != {other.stdout.split()[-1]}


def test_experiments_and_imports_take_addresses(hub, tmp_path):
    written = tmp_path / "e.toml"
    written.write_text(
        'traces = ["hf://datasets/somebody/routing/deep/t.npz"]\n[grid]\ncapacity = ["25%"]\n'
    )
    assert "1 traces, 1 runs" in hub("validate", "config", written).stdout
    source = "hf://datasets/somebody/routing/deep/plain.csv"
    done = hub("import", source, tmp_path / "imported.npz", "--experts", "4")
    assert done.returncode == 0, done.stderr


REFUSED = {
    "hf://datasets/somebody/routing/other.npz": "no such file in the repository",
    "hf://datasets/nobody/routing/t.npz": "no such repository",
    "hf://datasets/somebody/routing/deep/t.npz@v9": "no revision 'v9'",
    "hf://somebody": "write hf://datasets/OWNER/NAME",
    "hf://datasets/so--mebody/routing/t.npz": "write hf://datasets/OWNER/NAME",
    "hf://datasets/somebody/routing/deep/plain.csv": "not an npz file",
}


def test_what_cannot_be_had_is_one_line(hub):
    """All in one process: most of the time of one is its start."""
    done = hub(
        code="import sys; from specmd.__main__ import main\n"
        f"for address in {list(REFUSED)}: print('=', main(['inspect', address]), file=sys.stderr)"
    )
    *answers, end = done.stderr.split("= 2\n")
    assert (len(answers), end) == (len(REFUSED), ""), done.stderr
    for (address, said), answer in zip(REFUSED.items(), answers, strict=True):
        lines = answer.splitlines()
        errors = [line for line in lines if not line.startswith("specmd: fetching")]
        assert len(errors) == 1, address
        assert said in errors[0]


def test_out_of_reach_is_one_line(hub):
    address = "hf://datasets/somebody/routing/deep/t.npz"
    done = hub("inspect", address, HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"specmd: error: {address}: not in the hub's cache, and the hub is out of reach"
    )


def test_without_the_extra_the_error_says_which(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SpecmdError, match=r"specmd-bench\[hub\]"):
        located("hf://datasets/somebody/routing/never.npz")
