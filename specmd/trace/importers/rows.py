"""Putting a trace together from rows, in whatever order another program wrote them.

A row says which experts one token chose in one layer. The rows of a token need not be adjacent: a
recorder that hooks the layers of a batched model writes layer by layer, not token by token. Rows
are gathered in flat arrays (a recording has millions) together with their line numbers, so that
whatever is wrong is reported by line.

Tokens are told apart by (request, step, token); where a file has no token numbers, a new token of a
(request, step) begins when the layer number does not grow. Layer numbers may be those of the model,
with gaps for dense layers: they are renumbered from 0, in rising order.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from specmd.errors import SpecmdError
from specmd.trace.header import DECODE, PREFILL
from specmd.trace.trace import Trace, build_trace

_OPTIONAL = ("weights", "request", "step", "token", "phase", "token_id")


class Row(NamedTuple):
    """The choice of one token in one layer, as read from a line; None where the line is silent."""

    line: int
    layer: int
    experts: Sequence[int]
    weights: Sequence[float] | None = None
    request: int | None = None
    step: int | None = None
    token: int | None = None
    phase: int | None = None
    token_id: int | None = None


class RowTable:
    """Collects rows and builds a trace of them; every error names the line it comes from."""

    def __init__(self, num_experts: int) -> None:
        self._num_experts = num_experts
        self._top_k = 0
        self._says: tuple[bool, ...] | None = None
        self._first_line = 0
        self._open: dict[tuple[int, int], tuple[int, int]] = {}
        self._tokens: dict[tuple[int, int, int], int] = {}
        self._facts: list[tuple[int, int, int, int, int]] = []  # request, step, phase, id, line
        self._experts = array("q")
        self._weights = array("d")
        self._token = array("q")
        self._layer = array("q")
        self._line = array("q")

    def add(self, row: Row) -> None:
        """Add one row.

        Raises:
            SpecmdError: its experts are out of range, repeated, or not as many as in other rows, or
                it has other fields than the first row.

        """
        optional = (row.weights, row.request, row.step, row.token, row.phase, row.token_id)
        says = tuple(value is not None for value in optional)
        if self._says is None:
            self._says, self._top_k, self._first_line = says, len(row.experts), row.line
        elif says != self._says:
            pairs = zip(_OPTIONAL, says, self._says, strict=True)
            odd = next(name for name, here, there in pairs if here != there)
            raise SpecmdError(
                f"line {row.line}: '{odd}' is given here or on line {self._first_line}, "
                f"but not on both: give it everywhere or nowhere"
            )
        self._check(row)
        token = self._token_of(row)
        self._experts.extend(row.experts)
        if row.weights is not None:
            self._weights.extend(row.weights)
        self._token.append(token)
        self._layer.append(row.layer)
        self._line.append(row.line)

    def _check(self, row: Row) -> None:
        if not row.experts:
            raise SpecmdError(f"line {row.line}: no experts: every row needs at least one")
        if len(row.experts) != self._top_k:
            raise SpecmdError(
                f"line {row.line}: {len(row.experts)} experts, but line {self._first_line} has "
                f"{self._top_k}: every token chooses equally many in every layer"
            )
        if min(row.experts) < 0 or max(row.experts) >= self._num_experts:
            wrong = next(id for id in row.experts if not 0 <= id < self._num_experts)
            raise SpecmdError(
                f"line {row.line}: expert {wrong} in layer {row.layer}, but --experts "
                f"{self._num_experts} allows 0..{self._num_experts - 1}"
            )
        if len(set(row.experts)) != len(row.experts):
            raise SpecmdError(
                f"line {row.line}: an expert is listed twice in layer {row.layer} "
                f"({' '.join(map(str, row.experts))}): a token chooses distinct experts"
            )
        if row.weights is not None and len(row.weights) != len(row.experts):
            raise SpecmdError(
                f"line {row.line}: {len(row.weights)} weights for {len(row.experts)} experts"
            )

    def _token_of(self, row: Row) -> int:
        request = row.request or 0
        where = (request, -1 if row.step is None else row.step)
        number = row.token
        if number is None:
            number, layer = self._open.get(where, (0, -1))
            if row.layer <= layer:
                number += 1
            self._open[where] = (number, row.layer)
        key = (*where, number)
        index = self._tokens.setdefault(key, len(self._facts))
        phase = -1 if row.phase is None else row.phase
        token_id = -1 if row.token_id is None else row.token_id
        if index == len(self._facts):
            self._facts.append((*where, phase, token_id, row.line))
        elif self._facts[index][2:4] != (phase, token_id):
            raise SpecmdError(
                f"line {row.line}: phase or token_id differ from those on line "
                f"{self._facts[index][4]}, which is the same token"
            )
        return index

    def build(self, phase: str, header: Mapping[str, Any]) -> Trace:
        """Return the trace.

        Args:
            phase: ``decode`` or ``prefill``, for files that do not say.
            header: further fields of the trace's header.

        Raises:
            SpecmdError: there are no rows, a token lacks a layer or has one twice, or steps fall.

        """
        if not self._facts or self._says is None:
            raise SpecmdError("no rows: the file is empty")
        facts = np.array(self._facts, dtype=np.int64)
        rows = self._grid(facts)
        experts = np.array(self._experts, dtype=np.int64).reshape(-1, self._top_k)[rows]
        has_weights, _, has_step, _, has_phase, has_ids = self._says
        weights = np.array(self._weights).reshape(-1, self._top_k)[rows] if has_weights else None
        default = DECODE if phase == "decode" else PREFILL
        phases = facts[:, 2] if has_phase else np.full(len(facts), default)
        _, request = np.unique(facts[:, 0], return_inverse=True)
        order = np.arange(len(facts))
        if has_step:
            falls = np.diff(facts[:, 1]) < 0
            if falls.any():
                at = int(np.argmax(falls)) + 1
                raise SpecmdError(
                    f"line {int(facts[at, 4])}: step falls from {int(facts[at - 1, 1])} to "
                    f"{int(facts[at, 1])}: steps count the forward passes of the whole file; "
                    f"leave them out if they start again in every request"
                )
            group = facts[:, 1]
        else:
            # A prefill is one step; every decoded token is one. Requests follow one another.
            order = np.argsort(request, kind="stable")
            alone = phases[order] == DECODE
            alone[1:] |= (np.diff(request[order]) != 0) | (np.diff(phases[order]) != 0)
            alone[:1] = True
            group = np.cumsum(alone)
        step = np.cumsum(np.diff(group, prepend=group[:1]) != 0)
        return build_trace(
            experts[order],
            num_experts=self._num_experts,
            step=step,
            request=request[order],
            phase=phases[order],
            weights=None if weights is None else weights[order],
            token_ids=facts[order, 3] if has_ids else None,
            header=header,
        )

    def _grid(self, facts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return (T, L) the row of every token and layer."""
        token = np.array(self._token)
        numbers, layer = np.unique(np.array(self._layer), return_inverse=True)
        rows = np.full((len(facts), len(numbers)), -1, dtype=np.int64)
        index = np.arange(len(token))
        rows[token, layer] = index
        lost = rows[token, layer] != index
        if lost.any():
            at = int(np.argmax(lost))
            raise SpecmdError(
                f"line {self._line[int(rows[token[at], layer[at]])]}: layer "
                f"{int(numbers[layer[at]])} of the token on line {self._line[at]} comes twice"
            )
        if (rows < 0).any():
            at, missing = np.argwhere(rows < 0)[0].tolist()
            raise SpecmdError(
                f"line {int(facts[at, 4])}: this token has no layer {int(numbers[missing])}; "
                f"rows of several tokens may be mixed only if each has a token number"
            )
        return rows
