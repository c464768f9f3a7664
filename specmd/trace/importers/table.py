"""Rows of a text file as columns, and a trace made of them, without a loop over rows.

A row says which experts one token chose in one layer. The rows of a token need not be adjacent: a
recorder that hooks the layers of a batched model writes layer by layer, not token by token.

Tokens are told apart by (request, step, token); where a file has no token numbers, a new token of a
(request, step) begins when the layer number does not grow. Layer numbers may be those of the model,
with gaps for dense layers: they are renumbered from 0, in rising order. Rows of fewer experts than
others, and layers that a numbered token has no row for, are kept: the trace is ragged then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from specmd.errors import SpecmdError
from specmd.trace.header import DECODE, PREFILL
from specmd.trace.trace import Trace, build_trace

Ints = NDArray[np.int64]
_LARGEST = (1 << 31) - 1
_EMPTIEST = 64
"""So many places of tokens and layers may there be to a row, before memory is taken for them."""


@dataclass
class Table:
    """N rows; None where the file is silent.

    Attributes:
        line: (N,) where each row stands in the file.
        layer: (N,) layer numbers.
        counts: (N,) experts of each row.
        experts: (sum of counts,) expert ids, row after row.
        weights: (sum of counts,) gate weights.
        request: (N,) request numbers, in any order.
        step: (N,) forward passes of the whole file, never falling.
        token: (N,) token numbers within a request and step.
        phase: (N,) PREFILL or DECODE.
        token_id: (N,) vocabulary ids.

    """

    line: Ints
    layer: Ints
    counts: Ints
    experts: Ints
    weights: NDArray[np.float64] | None = None
    request: Ints | None = None
    step: Ints | None = None
    token: Ints | None = None
    phase: Ints | None = None
    token_id: Ints | None = None

    def merged(self) -> Table:
        """Return the table with rows that follow each other in a token and layer made one."""
        where = (self.layer, self.request, self.step, self.token)
        begin = np.zeros(len(self.layer), np.bool_)
        begin[:1] = True
        for column in where:
            if column is not None:
                begin[1:] |= np.diff(column) != 0
        first = np.flatnonzero(begin)
        whole = np.cumsum(begin) - 1
        facts: dict[str, Any] = {}
        for name in ("line", "layer", "request", "step", "token", "phase", "token_id"):
            column = getattr(self, name)
            facts[name] = None if column is None else column[first]
            if name in ("phase", "token_id") and column is not None:
                self._require_equal(column, column[first][whole], first[whole])
        return replace(self, counts=np.add.reduceat(self.counts, first), **facts)

    def build(self, num_experts: int, phase: str, header: Mapping[str, Any]) -> Trace:
        """Return the trace; `phase` is for files that do not say.

        Raises SpecmdError naming the line that is wrong.
        """
        if not len(self.layer):
            raise SpecmdError("no rows: the file is empty")
        self._check_values(num_experts)
        token = self._tokens()
        _, first = np.unique(token, return_index=True)
        for column in (self.phase, self.token_id):
            if column is not None:
                self._require_equal(column, column[first][token], first[token])
        _, layer = np.unique(self.layer, return_inverse=True)
        tokens, layers = len(first), int(layer.max()) + 1
        if tokens * layers > _EMPTIEST * len(token) + (1 << 20):
            raise SpecmdError(f"{tokens:,} tokens in {layers:,} layers, and hardly a row of them")
        cell, width = token * layers + layer, int(self.counts.max())
        self._require_once(cell)
        self._require_all(np.bincount(cell, minlength=tokens * layers), layers, first)
        row = np.repeat(np.arange(len(cell)), self.counts)
        rank = np.arange(len(row)) - (np.cumsum(self.counts) - self.counts)[row]
        ids = np.full((len(cell), width), -1, dtype=np.int64)
        ids[row, rank] = self.experts
        self._require_distinct(ids)
        grid = np.full((tokens * layers, width), -1, dtype=np.int64)
        grid[cell] = ids
        weights = None
        if self.weights is not None:
            gates = np.zeros((tokens * layers, width))
            gates[cell[row], rank] = self.weights
            weights = gates.reshape(tokens, layers, width)
        default = np.full(tokens, DECODE if phase == "decode" else PREFILL)
        phases = default if self.phase is None else self.phase[first]
        request = np.zeros(tokens, np.int64)
        if self.request is not None:
            _, request = np.unique(self.request[first], return_inverse=True)
        order, step = self._steps(first, request, phases)
        return build_trace(
            grid.reshape(tokens, layers, width)[order],
            num_experts=num_experts,
            step=step,
            request=request[order],
            phase=phases[order],
            weights=None if weights is None else weights[order],
            token_ids=None if self.token_id is None else self.token_id[first][order],
            ragged=True,
            header=header,
        )

    def _check_values(self, num_experts: int) -> None:
        for name in ("layer", "request", "step", "token", "token_id"):
            column = getattr(self, name)
            if column is not None and np.abs(column).max() > _LARGEST:
                at = int(np.argmax(np.abs(column) > _LARGEST))
                value = str(column[at])
                raise SpecmdError(f"line {self.line[at]}: {name} {value} is not a 32-bit integer")
        if (self.counts < 1).any():
            raise SpecmdError(
                f"line {self.line[np.argmax(self.counts < 1)]}: no experts: every row needs one"
            )
        wrong = (self.experts < 0) | (self.experts >= num_experts)
        if wrong.any():
            at = int(np.argmax(wrong))
            row = int(np.searchsorted(np.cumsum(self.counts), at, "right"))
            raise SpecmdError(
                f"line {self.line[row]}: expert {self.experts[at]} in layer {self.layer[row]}, but "
                f"--experts {num_experts} allows 0..{num_experts - 1}"
            )
        if self.weights is not None:
            bad = ~(np.isfinite(self.weights) & (self.weights >= 0) & (self.weights < 3.4e38))
            if bad.any():
                at = int(np.argmax(bad))
                row = int(np.searchsorted(np.cumsum(self.counts), at, "right"))
                raise SpecmdError(
                    f"line {self.line[row]}: weight {float(self.weights[at])}: it must be finite "
                    "and not negative"
                )

    def _tokens(self) -> Ints:
        """Return (N,) the token of each row, numbered as they first appear."""
        none = np.zeros(len(self.layer), np.int64)
        group = _codes(none if self.request is None else self.request, self.step)
        if self.token is not None:
            return _codes(group, self.token)
        order = np.argsort(group, kind="stable")
        fresh = np.diff(self.layer[order], prepend=self.layer[order[0]]) <= 0
        fresh |= np.diff(group[order], prepend=-1) != 0
        token = np.empty_like(group)
        token[order] = np.cumsum(fresh)
        return _codes(token, None)

    def _require_once(self, cell: Ints) -> None:
        again = pd.Series(cell).duplicated().to_numpy()
        if again.any():
            at = int(np.argmax(again))
            raise SpecmdError(
                f"line {self.line[at]}: layer {self.layer[at]} of the token on line "
                f"{self.line[np.argmax(cell == cell[at])]} comes twice"
            )

    def _require_equal(self, column: Ints, expected: Ints, there: Ints) -> None:
        if (column != expected).any():
            at = int(np.argmax(column != expected))
            raise SpecmdError(
                f"line {self.line[at]}: phase or token_id differ from those on line "
                f"{self.line[there[at]]}, which is the same token"
            )

    def _require_all(self, found: Ints, layers: int, first: Ints) -> None:
        """Check that tokens without a number of their own have all layers: none may be lost."""
        if self.token is None and (found == 0).any():
            token, layer = divmod(int(np.argmax(found == 0)), layers)
            raise SpecmdError(
                f"line {self.line[first[token]]}: this token has no layer "
                f"{np.unique(self.layer)[layer]}; rows of several tokens may be mixed, and layers "
                "left out, only if each token has a number"
            )

    def _require_distinct(self, ids: Ints) -> None:
        ordered = np.sort(ids, axis=1)
        twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
        if twice.any():
            row = int(np.argmax(twice))
            listed = " ".join(str(expert) for expert in ids[row].tolist() if expert >= 0)
            raise SpecmdError(
                f"line {self.line[row]}: an expert is listed twice in layer {self.layer[row]} "
                f"({listed}): a token chooses distinct experts"
            )

    def _steps(self, first: Ints, request: Ints, phases: Ints) -> tuple[Ints, Ints]:
        """Return the order of the tokens and the step of each, in that order."""
        order = np.arange(len(first))
        if self.step is None:
            # A prefill is one step; every decoded token is one. Requests follow one another.
            order = np.argsort(request, kind="stable")
            alone = phases[order] == DECODE
            alone[1:] |= (np.diff(request[order]) != 0) | (np.diff(phases[order]) != 0)
            return order, np.cumsum(alone) - alone[0]
        step = self.step[first]
        falls = np.diff(step) < 0
        if falls.any():
            at = int(np.argmax(falls)) + 1
            raise SpecmdError(
                f"line {self.line[first[at]]}: step falls from {step[at - 1]} to {step[at]}: steps "
                "count the forward passes of the whole file; leave them out if they start again "
                "in every request"
            )
        return order, np.cumsum(np.diff(step, prepend=step[:1]) != 0)


def _codes(one: Ints, two: Ints | None) -> Ints:
    """Return (N,) a number for each pair, from 0, as they first appear."""
    left = pd.factorize(one)[0].astype(np.int64)
    if two is None:
        return left
    right = pd.factorize(two)[0].astype(np.int64)
    return pd.factorize(left * (int(right.max(initial=0)) + 1) + right)[0].astype(np.int64)
