"""A command line that returns what it printed, and a trace to use it on."""

from __future__ import annotations

from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Said:
    """What a call of the command line left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def specmd(capsys):
    """Call the command line in this process, through the same `main` as the program."""
    from specmd.__main__ import main

    def call(*argv):
        code = main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        return Said(int(code), captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def trace_file(tmp_path_factory):
    """A small synthetic trace with prefill, decode and lookahead."""
    from specmd.trace import save, synthetic

    made = synthetic(
        num_requests=3,
        prompt_length=8,
        decode_length=16,
        lookahead_depth=1,
        expert_bytes=12_582_912,
    )
    return save(made, tmp_path_factory.mktemp("traces") / "tiny.npz")
