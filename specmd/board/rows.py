"""Published rows: what somebody measured, on what, and where it was read.

A row is one figure of one configuration of one engine. Rows that share engine, machine and model
form a group, because what is not published of a machine is the same for all of them: at most two
of a group are *anchors*, to which its hardware profile may be fitted; the others are predictions.
Files are TOML, a list of groups with their rows; what a group says holds for its rows unless they
say otherwise. Facts only: no number is in a row that its source does not state, or that does not
follow from stated ones by the arithmetic given beside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import date
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from specmd.errors import SpecmdError
from specmd.hardware.profile import explain, read_toml, shipped

SCHEMA = 1
MOST_ANCHORS = 2
_PACKAGE = "specmd.published"

Anchor = Literal["none", "resident", "no_cache", "other"]
Tier = Literal["ram", "ssd"]
Kernels = Literal["eager", "grouped", "graph", "cpu"]


class Row(BaseModel):
    """One published figure; sizes in bytes, rates per second, times in seconds.

    Attributes:
        id: unique over all files.
        group: the group it belongs to.
        engine: the program that was measured.
        source: where it is published.
        read: what of it was read: a file and its commit, an issue, a table.
        date: when it was measured or published; where the source bears no date, when it was read.
        model: the model as the source calls it, with its precision.
        shape: name of the model's shape, or None where none is shipped.
        experts_per_token: where the engine was told to use fewer than the model's own.
        expert_bytes: what one transfer moves.
        expert_bytes_from: how the source says so, or the arithmetic.
        dense_bits: bits a weight of everything but the experts, None: as in the shape.
        machine: in words.
        device: name of the hardware profile, or None where none is shipped.
        devices: over how many devices of the kind each expert is cut (tensor parallel).
        link_bytes_per_s: rate at which missed experts arrive.
        link_kind: whether that is measured there, a datasheet's, or assumed.
        link_from: in words, whose figure it is.
        tier: where missed experts come from.
        kernels: how the engine runs the experts of a layer.
        batch: requests at a time.
        prompt_tokens: length of the prompt, where TTFT is given.
        tokens: tokens decoded.
        capacity: as `specmd simulate` takes it, or `all`, or `none`.
        scope: one pool, or slots a layer.
        workload: what was generated, where rows of a group differ in it: another routing.
        policy: eviction.
        miss: what a layer with misses does meanwhile: fetch and `overlap`, or fetch and `block`,
            or have them computed on the `host`.
        prefetch: what is fetched ahead.
        tokens_per_s: as published; else `seconds_per_token`.
        seconds_per_token: as published; else `tokens_per_s`.
        ttft_s: time to the first token.
        hit_rate: share of accesses.
        hit_of: whether that is of decoding alone, or counts the prompt too.
        anchor: whether a profile of the group may be fitted to it, and what kind of row it is.
        trace: the very recording, a path under the folder of traces.
        recording: another recording of this model at this k, likewise.
        like: the group of the same model whose published hit rates its routing is fitted to.
        cannot: why it is not simulated.
        note: what a reader must know of it.

    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    group: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    engine: str = Field(min_length=2)
    source: str = Field(pattern=r"^https://\S+$")
    read: str = Field(min_length=5)
    date: date
    model: str = Field(min_length=3)
    shape: str | None = None
    experts_per_token: int | None = Field(default=None, ge=1)
    expert_bytes: int | None = Field(default=None, ge=1)
    expert_bytes_from: str = ""
    dense_bits: float | None = Field(default=None, gt=0, le=32)
    machine: str = Field(min_length=3)
    device: str | None = None
    devices: int = Field(default=1, ge=1)
    link_bytes_per_s: float | None = Field(default=None, gt=0)
    link_kind: Literal["measured", "datasheet", "assumed"] | None = None
    link_from: str = ""
    tier: Tier
    kernels: Kernels
    batch: int = Field(default=1, ge=1)
    prompt_tokens: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    capacity: str | None = None
    scope: Literal["global", "layer"] = "global"
    workload: str = ""
    policy: str = "lru"
    miss: Literal["overlap", "block", "host"] = "overlap"
    prefetch: str = "none"
    tokens_per_s: float | None = Field(default=None, gt=0)
    seconds_per_token: float | None = Field(default=None, gt=0)
    ttft_s: float | None = Field(default=None, gt=0)
    hit_rate: float | None = Field(default=None, ge=0, le=1)
    hit_of: Literal["decode", "all"] = "decode"
    anchor: Anchor = "none"
    trace: str | None = None
    recording: str | None = None
    like: str | None = None
    cannot: str = ""
    note: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Row:
        if (self.tokens_per_s is None) == (self.seconds_per_token is None):
            raise ValueError("give tokens_per_s or seconds_per_token, as published, and not both")
        if (self.link_bytes_per_s is None) != (self.link_kind is None):
            raise ValueError("link_bytes_per_s and link_kind go together")
        if self.link_kind and len(self.link_from) < 5:
            raise ValueError("link_from must say whose figure the link's rate is")
        if self.expert_bytes is not None and not self.expert_bytes_from:
            raise ValueError("expert_bytes_from must say where the size is from")
        if self.anchor == "resident" and self.capacity != "all":
            raise ValueError("an anchor 'resident' has capacity 'all'")
        if self.anchor == "no_cache" and self.capacity != "none":
            raise ValueError("an anchor 'no_cache' has capacity 'none'")
        if self.anchor != "none" and self.cannot:
            raise ValueError("a row that cannot be simulated is no anchor")
        return self

    @property
    def measured_tpot_s(self) -> float:
        """Seconds a decode step took: published, or the inverse of the published rate."""
        if self.seconds_per_token is not None:
            return self.seconds_per_token
        assert self.tokens_per_s is not None
        return self.batch / self.tokens_per_s


def read_rows(path: Path) -> list[Row]:
    """Read one file of groups; `SpecmdError` naming file and row if it is wrong."""
    data = read_toml(path, "file of published rows")
    if strange := sorted(set(data) - {"schema", "group"}):
        raise SpecmdError(f"{path}: there is no '{strange[0]}' beside schema and group")
    if data.get("schema") != SCHEMA:
        raise SpecmdError(f"{path}: schema is {data.get('schema')}, must be {SCHEMA}")
    found = []
    for group in data.get("group", []):
        shared = {name: value for name, value in group.items() if name not in ("id", "row")}
        for row in group.get("row", []):
            found.append(_validated(path, {"group": group.get("id"), **shared, **row}))
    if not found:
        raise SpecmdError(f"{path}: holds no row; write [[group]] and [[group.row]]")
    return found


def load_rows(folder: Path | None = None, pattern: str = "*") -> list[Row]:
    """Load all rows of a folder, or those shipped; `pattern` chooses by id or group.

    Raises SpecmdError for a file that is wrong, an id used twice, a third anchor in a group, and
    for a pattern that nothing matches.
    """
    paths = shipped(_PACKAGE).values() if folder is None else sorted(folder.glob("*.toml"))
    rows = [row for path in paths for row in read_rows(path)]
    if not rows:
        raise SpecmdError(f"{folder}: holds no .toml file of published rows")
    _check_together(rows)
    chosen = [row for row in rows if fnmatch(row.id, pattern) or fnmatch(row.group, pattern)]
    if not chosen:
        raise SpecmdError(f"no published row or group matches '{pattern}'; see the folder's README")
    return chosen


def by_group(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Gather rows by group, in their order."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.group].append(row)
    return dict(found)


def _validated(path: Path, fields: dict[str, Any]) -> Row:
    try:
        return Row.model_validate(fields)
    except ValidationError as error:
        what = f"row '{fields.get('id')}'"
        raise SpecmdError(explain(path, what, error, SCHEMA, None)) from None


def _check_together(rows: list[Row]) -> None:
    groups = by_group(rows)
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise SpecmdError(f"published row '{row.id}' is there twice; ids are unique")
        seen.add(row.id)
        if row.like is not None and row.like not in groups:
            raise SpecmdError(f"published row '{row.id}': like = '{row.like}' is no group")
    for name, members in groups.items():
        anchors = [row.id for row in members if row.anchor != "none"]
        if len(anchors) > MOST_ANCHORS:
            raise SpecmdError(
                f"group '{name}' has {len(anchors)} anchors, may have {MOST_ANCHORS}: "
                f"{', '.join(anchors)}"
            )
