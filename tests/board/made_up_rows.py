"""Rows of nobody's measurements."""

from specmd.board.rows import Row


def row(**changes) -> Row:
    fields = {
        "id": "made-up",
        "group": "made-up-group",
        "engine": "nobody's",
        "source": "https://example.org/board",
        "read": "the table above",
        "date": "2026-11-25",
        "model": "a model",
        "shape": "olmoe-1b-7b",
        "expert_bytes": 12_582_912,
        "expert_bytes_from": "made up",
        "machine": "a T4",
        "device": "t4",
        "tier": "ram",
        "kernels": "eager",
        "tokens": 48,
        "capacity": "32/layer",
        "tokens_per_s": 10.0,
    }
    return Row.model_validate(fields | changes, strict=False)
