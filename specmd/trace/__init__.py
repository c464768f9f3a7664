"""Routing traces: the file format, slicing, composition, importers, synthetic traces, locality."""

from specmd.trace.composition import chunk_prefills, compose, concatenate, interleave
from specmd.trace.file import load, save
from specmd.trace.header import DECODE, PREFILL, TraceHeader
from specmd.trace.importers import import_trace
from specmd.trace.slicing import (
    select_requests,
    slice_layers,
    slice_steps,
    slice_tokens,
)
from specmd.trace.statistics import Locality, locality
from specmd.trace.synthesis import synthetic
from specmd.trace.trace import Trace, build_trace

__all__ = [
    "DECODE",
    "PREFILL",
    "Locality",
    "Trace",
    "TraceHeader",
    "build_trace",
    "chunk_prefills",
    "compose",
    "concatenate",
    "import_trace",
    "interleave",
    "load",
    "locality",
    "save",
    "select_requests",
    "slice_layers",
    "slice_steps",
    "slice_tokens",
    "synthetic",
]
