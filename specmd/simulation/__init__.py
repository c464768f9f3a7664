"""From a trace to a run without moving a byte: replay, timed simulation, bounds."""
