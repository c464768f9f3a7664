"""A timeline of a run, live or simulated, for ui.perfetto.dev and chrome://tracing.

Tracks: what is computed (steps, layers, experts), what the link carries (chunks, by expert and
cause), what is waited for, what is read from a disk, and what the host computes for a later layer.
Times of a live run are the host's: on an accelerator a kernel runs some time after its span here,
and NVTX ranges with a profiler show when. The file is the JSON array format of Chrome's Trace Event
Format: complete events (`ph` X), microseconds.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from specmd.files import write_text

TRACKS = {"compute": 1, "link": 2, "stall": 3}
_ALL_TRACKS = {**TRACKS, "disk": 4, "host": 5}  # a host tier's; of experts that are put off


class Timeline:
    """Takes spans down as they end; several threads may.

    Args:
        experts: E, to name keys by layer and expert; set by the live cache.

    """

    def __init__(self, experts: int = 0) -> None:
        self.experts = experts
        self._spans: list[tuple[str, str, float, float, dict[str, Any]]] = []
        self._lock = threading.Lock()

    def restart(self) -> None:
        """Forget all spans."""
        with self._lock:
            self._spans = []

    def span(self, track: str, name: str, start_s: float, end_s: float, **facts: Any) -> None:
        """Note something that happened; times are of `time.perf_counter`.

        Args:
            track: one of TRACKS.
            name: what it is called.
            start_s: when it began, seconds.
            end_s: when it ended.
            facts: shown when the span is clicked.

        """
        with self._lock:
            self._spans.append((track, name, start_s, end_s, facts))

    def key_name(self, key: int) -> str:
        """Name a key: `L3 E17`."""
        return f"L{key // self.experts} E{key % self.experts}" if self.experts else f"key {key}"

    def events(self) -> list[dict[str, Any]]:
        """Return the events of the file, times from the first span on."""
        with self._lock:
            spans = sorted(self._spans, key=lambda span: (span[2], -span[3]))
        zero = spans[0][2] if spans else 0.0
        named: list[dict[str, Any]] = [
            {"ph": "M", "name": "thread_name", "pid": 1, "tid": tid, "args": {"name": track}}
            for track, tid in _ALL_TRACKS.items()
            if track in {span[0] for span in spans}
        ]
        return named + [
            {
                "ph": "X",
                "name": name,
                "cat": track,
                "pid": 1,
                "tid": _ALL_TRACKS[track],
                "ts": round((start - zero) * 1e6, 3),
                "dur": round((end - start) * 1e6, 3),
                "args": facts,
            }
            for track, name, start, end, facts in spans
        ]

    def write(self, path: Path) -> None:
        """Write the file; SpecmdError if it cannot be."""
        write_text(path, json.dumps(self.events()))
