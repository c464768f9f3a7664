"""Eviction: which resident expert leaves when a slot is needed."""
