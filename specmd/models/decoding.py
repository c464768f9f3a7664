"""What one `generate` says while it runs: its padding, and which of its rows have ended.

Neither can be told from the tokens. A model may emit its padding id, or an end of text that the
call switched off, as an ordinary token; and some KV caches turn the padding mask into another shape
before the decoder sees it. So the call listens, for as long as it runs, to two methods of the one
model: `prepare_inputs_for_generation`, which is given the mask, and `_get_stopping_criteria`, which
is given the settled configuration and returns the criteria that decide. A release of transformers
that has them no more, or does not call them, is an error.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from specmd.errors import SpecmdError

UNKNOWN = "this release of transformers is not known: install one that specmd is tested with"
_REFUSED = "cannot be recorded or offloaded"
_DRAFTS = ("prompt_lookup_num_tokens", "assistant_early_exit")
_Method = Callable[..., Any]


class GenerateCall:
    """One `generate`, and what it has said so far.

    Attributes:
        batch: its requests, once a pass of it was read.
        cache: its KV cache, likewise.
        cached: columns that it held before.
        computed: (rows, columns) of each pass, which tokens counted, where that matters later.
        mask: (rows, columns so far) of the prefill's padding; None where nothing is padded.
        chunked: whether its prefill comes in chunks.
        stopped: (rows,) bool, who has ended; None as long as the criteria have not been asked,
            which they are after the prefill and after every token.

    """

    def __init__(self, model: Any, arguments: dict[str, Any]) -> None:
        if arguments.get("assistant_model") is not None:
            raise SpecmdError(f"assisted decoding {_REFUSED}: call generate without a draft")
        self._model = model
        self.batch: Any = None
        self.cache: Any = None
        self.cached = 0
        self.computed: list[Tensor] = []
        self.chunked = False
        self.stopped: Tensor | None = None
        self.mask: Tensor | None = None
        self._pads = self._inputs_heard = self._criteria_heard = False
        self._active: Callable[[], bool] = lambda: True

    @contextmanager
    def heard(self, active: Callable[[], bool]) -> Iterator[None]:
        """Listen as long as the block runs, whenever `active`: a `generate` may hold another."""
        self._active = active
        with (
            self._instead_of("prepare_inputs_for_generation", self._hear_inputs),
            self._instead_of("_get_stopping_criteria", self._hear_criteria),
        ):
            yield

    def require_heard(self) -> None:
        """Raise SpecmdError if a pass comes before what would have been heard."""
        if not (self._inputs_heard and self._criteria_heard):
            raise SpecmdError(f"generate does not prepare its passes as expected: {UNKNOWN}")

    def real(self, columns: int) -> Tensor | None:
        """Return (rows, columns) or (rows, 1) which tokens of the present pass count; None: all.

        After the prefill these are the rows whose next token `generate` will use. It pads what has
        ended only where an end of text is among its criteria; without one, all rows go on until all
        have ended, and on some devices one pass longer.
        """
        if self.stopped is not None:
            ended = self.stopped if self._pads else self.stopped.all().expand(len(self.stopped))
            return ~ended[:, None]
        real = unmasked(self.mask, columns)
        if real is not None and self.mask is not None:
            # The first token is sampled from the last column, also where that is padding.
            real[:, -1] |= self.mask.bool().any(1) if self.chunked else True
        return real

    def _hear_inputs(self, prepare: _Method) -> _Method:
        signature = inspect.signature(prepare)

        def prepared(*args: Any, **kwargs: Any) -> Any:
            if self._active() and self.stopped is None:
                given = signature.bind_partial(*args, **kwargs).arguments
                self.mask, self._inputs_heard = given.get("attention_mask"), True
            return prepare(*args, **kwargs)

        return prepared

    def _hear_criteria(self, prepare: _Method) -> _Method:
        signature = inspect.signature(prepare)

        def prepared(*args: Any, **kwargs: Any) -> Any:
            criteria = prepare(*args, **kwargs)
            if not self._active():
                return criteria
            config: Any = signature.bind_partial(*args, **kwargs).arguments.get("generation_config")
            _refuse(config)
            self.chunked = config.prefill_chunk_size is not None
            self._pads = any(hasattr(each, "eos_token_id") for each in criteria)
            self._criteria_heard = True
            kind: Any = type(criteria)

            class Heard(kind):  # type: ignore[misc]
                def __call__(_self, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
                    done = super().__call__(*args, **kwargs)
                    self.stopped = done if self.stopped is None else self.stopped | done
                    return done

            return Heard(criteria)

        return prepared

    @contextmanager
    def _instead_of(self, name: str, wrap: Callable[[_Method], _Method]) -> Iterator[None]:
        """Put `wrap(method)` in place of a method of this one model."""
        model = self._model
        original, before = getattr(model, name, None), model.__dict__.get(name)
        if original is None:
            raise SpecmdError(f"{type(model).__name__} has no {name}: {UNKNOWN}")
        model.__dict__[name] = functools.wraps(original)(wrap(original))
        try:
            yield
        finally:
            del model.__dict__[name]
            if before is not None:
                model.__dict__[name] = before


def unmasked(mask: Any, columns: int) -> Tensor | None:
    """Return (rows, columns) which tokens of a pass a padding mask leaves, a new tensor.

    Raises:
        SpecmdError: the mask is not one of padding, (rows, columns so far).

    """
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.dim() != 2:
        raise SpecmdError("attention_mask: pass the 2-dimensional one, which tells the padding")
    return mask[:, -columns:] != 0


def _refuse(config: Any) -> None:
    """Raise SpecmdError for ways of decoding in which rows are not requests that go on."""
    if config is None:
        raise SpecmdError(f"generate does not say how it decodes: {UNKNOWN}")
    if (config.num_beams or 1) > 1:
        raise SpecmdError(f"beam search {_REFUSED}: call generate with num_beams=1")
    if any(getattr(config, name, None) is not None for name in _DRAFTS):
        raise SpecmdError(f"assisted decoding {_REFUSED}: call generate without a draft")
    if (config.guidance_scale or 1) != 1:
        raise SpecmdError(f"guidance {_REFUSED}: call generate without guidance_scale")
    if config.use_cache is False:
        raise SpecmdError(f"decoding without a cache {_REFUSED}: call generate with use_cache=True")
