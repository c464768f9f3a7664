"""Routing traces: the file format, slicing, importers, synthetic traces, locality."""

from specmd.trace.importers import import_trace
from specmd.trace.schema import DECODE, PREFILL, TraceHeader
from specmd.trace.store import load, save
from specmd.trace.trace import Trace, build_trace

__all__ = [
    "DECODE",
    "PREFILL",
    "Trace",
    "TraceHeader",
    "build_trace",
    "import_trace",
    "load",
    "save",
]
