"""A grid of configurations: lists in, canonical runs out, each once and in a stable order.

Every option that takes one value in a run takes several in a grid, and the grid is their product.
Spellings are resolved against the registry and the trace before anything runs, so a typo costs a
second and not a night, and two spellings of the same run (`5%` and `51` slots of OLMoE) become one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from itertools import product
from typing import Annotated, Any, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    create_model,
    field_validator,
)

from specmd.errors import SpecmdError
from specmd.hardware.engines import load_engine
from specmd.hardware.memory import HEADROOM, beside_slots
from specmd.hardware.profile import load_profile
from specmd.hardware.shape import load_shape, shape_for_model
from specmd.policy.registry import AXES, Axis, choose
from specmd.runs.declared import COMPOSED, OPTIONS, Option
from specmd.runs.options import STAGING_SLOTS, RunConfig
from specmd.runs.pools import parse_capacity
from specmd.trace import Trace, TraceHeader, compose
from specmd.trace.contexts import held_tokens


class _Lists(BaseModel):
    """What a grid is whatever its options: lists, and a single value is a list of one."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    @field_validator("*", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        if isinstance(given, str | dict) or not hasattr(given, "__iter__"):
            given = (given,)
        values = tuple(given)
        if not values:
            raise ValueError("the list is empty: give at least one value")
        return values


_many: Any = tuple  # of types that are known when this runs, and to no checker
_annotated: Any = Annotated
_fields: dict[str, Any] = {
    name: (_many[_annotated[option.kind, option], ...], (option.default,))
    for name, option in OPTIONS.items()
}
_OptionLists: Any = create_model("_OptionLists", __base__=_Lists, **_fields)


class Grid(_OptionLists):  # type: ignore[misc] # its fields are the declared options
    """Lists of values for each option."""

    def expand(
        self,
        trace: Trace | TraceHeader,
        free_bytes: Callable[[], int] | None = None,
        training: Trace | None = None,
    ) -> list[RunConfig]:
        """Return the configurations of the grid for one trace.

        `free_bytes` says what a real device has, where that is not what a profile says. `training`
        is asked where layers of different sizes share bytes by what was learnt of them.

        Raises SpecmdError for an unknown policy or profile, a capacity that means nothing here, or
        options that exclude each other.
        """
        chosen = {option.name: getattr(self, option.name) for option in _slowest_first()}
        for axis in AXES:
            chosen[axis] = tuple(choose(axis, spelled).spelled for spelled in chosen[axis])
        found: dict[str, RunConfig] = {}
        for values in product(*chosen.values()):
            config = _resolve(dict(zip(chosen, values, strict=True)), trace, free_bytes, training)
            found.setdefault(config.model_dump_json(exclude={"capacity", "host_capacity"}), config)
        return list(found.values())


def _slowest_first() -> list[Option]:
    """Rows of one table differ in what comes last: policies, eviction before all, and seeds."""
    last_first = list(OPTIONS.values())[::-1]
    return sorted(last_first, key=lambda each: (each.name == "seed", each.axis))


_Text = Annotated[
    str, BeforeValidator(lambda given: str(given).lower() if isinstance(given, bool) else given)
]
_left_out: dict[str, Any] = dict.fromkeys(OPTIONS, (_many[_Text, ...], ()))
_OptionTexts: Any = create_model("_OptionTexts", __base__=_Lists, **_left_out)


class Exclusion(_OptionTexts):  # type: ignore[misc] # its fields are the declared options
    """Values, or patterns with `*`, of some options: runs that have one of each are left out."""

    def matches(self, config: RunConfig) -> bool:
        """Say whether a run is left out; raises SpecmdError for an unknown policy."""
        return all(
            any(self._is(name, text, config) for text in getattr(self, name))
            for name in self.model_fields_set
        )

    def _is(self, name: str, text: str, config: RunConfig) -> bool:
        spelled = str(getattr(config, name))
        if OPTIONS[name].axis and "*" not in text:
            return choose(cast(Axis, name), text).spelled == spelled
        if name == "capacity" and text == str(config.capacity_slots):
            return True
        return fnmatchcase(spelled.lower(), text.lower())


def grid(trace: Trace | TraceHeader, **options: Any) -> list[RunConfig]:
    """Expand options, each one value or a list, into configurations for a trace.

    The options are those of `specmd.simulate`: evict, capacity, scope, prefetch, ...
    """
    return make_grid(options).expand(trace)


def make_grid(options: dict[str, Any]) -> Grid:
    """Validate options into a `Grid`; raises SpecmdError naming the option that is wrong."""
    try:
        return Grid(**options)
    except ValidationError as error:
        first = error.errors()[0]
        where = str(first["loc"][0]) if first["loc"] else "grid"
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"not an option; options are {', '.join(Grid.model_fields)}"
        raise SpecmdError(f"{where}: {message}") from None


def with_sizes(header: TraceHeader, shape: str | None) -> TraceHeader:
    """Let a header say how large its experts are, where it or its model's shape knows."""
    if header.layer_bytes is not None:
        return header
    found = load_shape(shape) if shape else shape_for_model(header.model)
    return header.model_copy(update={"expert_bytes": found.expert_bytes}) if found else header


def _settle_engine(fields: dict[str, Any]) -> None:
    """Name the engine whose software a clock counts; None where none is assumed."""
    profile = None if fields["profile"] is None else load_profile(fields["profile"])
    if profile is not None and profile.stack is None:
        fields["engine"] = load_engine(fields["engine"]).name
    elif fields["engine"] is not None:
        load_engine(fields["engine"])
        if profile is not None:
            raise SpecmdError(
                f"profile {profile.name} has measured the software it runs: leave --engine out"
            )
        fields["engine"] = None  # without a clock there is nothing it changes


def _room(
    fields: dict[str, Any],
    trace: Trace | TraceHeader,
    header: TraceHeader,
    free_bytes: Callable[[], int] | None,
) -> Callable[[int | None], int]:
    """Return what says how many bytes are left for slots; see `parse_capacity`."""

    def left(total: int | None) -> int:
        spelled = fields["capacity"]
        shape = load_shape(fields["shape"]) if fields["shape"] else None
        if shape is None:
            raise SpecmdError(f"capacity '{spelled}' asks for the model's sizes: name its --shape")
        context = fields["context"]
        if context is None:
            if not isinstance(trace, Trace):
                raise SpecmdError(f"capacity '{spelled}' asks for the tokens held: give --context")
            context = held_tokens(compose(trace, **{name: fields[name] for name in COMPOSED}))
        beside = beside_slots(shape, max(header.layer_bytes or (0,)), STAGING_SLOTS, context)
        if total is None:
            if free_bytes is None and fields["profile"] is None:
                raise SpecmdError("capacity 'free' is that of a device: name a --profile")
            if free_bytes is not None:
                device = float(free_bytes())
            else:
                device = load_profile(fields["profile"]).memory_bytes.value
            total = int(device * (1 - HEADROOM))
        return total - beside.total

    return left


def _require_disk(fields: dict[str, Any]) -> None:
    """Raise SpecmdError where a clock is to read from a disk that its profile knows nothing of."""
    if fields["profile"] is not None and fields["host_capacity"] is not None:
        profile = load_profile(fields["profile"])
        if profile.ssd is None:
            raise SpecmdError(
                f"profile {profile.name} knows no disk, which a host_capacity needs: name another, "
                "or let `specmd calibrate --disk` measure one"
            )


def resolve_host(
    capacity: str | int | None,
    evict: str,
    num_layers: int,
    num_experts: int,
    layer_bytes: Sequence[int] | None,
) -> tuple[int | None, str]:
    """Return the slots of a host tier, None for no tier, and its policy in canonical spelling.

    Raises SpecmdError for a capacity that means nothing, or a policy that needs to be told more
    than what is asked for.
    """
    if capacity is None:
        return None, OPTIONS["host_evict"].default
    choice = choose("evict", evict)
    if choice.needs or choice.frozen:
        raise SpecmdError(
            f"host_evict {choice.spelled}: a host tier is told nothing but what is asked for; "
            "choose a policy without needs, as lru or lfu"
        )
    slots = parse_capacity(capacity, num_layers, num_experts, layer_bytes)
    return min(slots, num_layers * num_experts), choice.spelled


def _resolve(
    fields: dict[str, Any],
    trace: Trace | TraceHeader,
    free_bytes: Callable[[], int] | None,
    training: Trace | None,
) -> RunConfig:
    header = trace.header if isinstance(trace, Trace) else trace
    if fields["prefetch"] == "none":
        fields["schedule"] = "fifo"  # there is nothing to schedule
    evict = choose("evict", fields["evict"])
    if evict.frozen or evict.bypasses:
        fields["admission"] = "bypass"  # a policy that refuses has to be asked
    if fields["mixed"] and fields["batch"] is None:
        raise SpecmdError("mixed is about requests in flight together: give batch, too")
    if fields["batch"] == 1:
        fields["mixed"] = False  # there is nobody to mix with
    if fields["sequential"]:
        for option in ("prefetch", "profile"):
            if fields[option] not in (None, "none"):
                raise SpecmdError(
                    f"sequential replay has no clock and no steps to look ahead over: it cannot be "
                    f"combined with {option}={fields[option]}; drop one of the two"
                )
    _settle_engine(fields)
    _require_disk(fields)
    if fields["shape"] is None:
        known = shape_for_model(header.model)
        fields["shape"] = known.name if known else None
    sized = with_sizes(header, fields["shape"])
    sizes = header.num_layers, header.num_experts, sized.layer_bytes
    slots = parse_capacity(
        fields["capacity"],
        *sizes,
        scope=fields["scope"],
        allocate=fields["allocate"],
        model=header,
        training=training,
        room=_room(fields, trace, sized, free_bytes),
    )
    host_slots, fields["host_evict"] = resolve_host(
        fields["host_capacity"], fields["host_evict"], *sizes
    )
    try:
        return RunConfig(capacity_slots=slots, host_slots=host_slots, **fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise SpecmdError(f"{first['loc'][0]}: {first['msg']}") from None
