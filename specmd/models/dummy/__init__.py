"""Dummy weights: a model of true shapes whose numbers mean nothing.

Real bytes are moved and real kernels run, without a checkpoint.
"""

from specmd.models.dummy.model import build_model, can_build

__all__ = ["build_model", "can_build"]
