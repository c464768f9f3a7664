"""Routing traces: the file format, slicing, importers, synthetic traces, locality."""
