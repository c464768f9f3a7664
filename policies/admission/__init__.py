"""Admission: whether a missed expert enters the cache, or streams through it."""
