"""Allocation: how the slots are divided among the layers."""
