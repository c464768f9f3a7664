"""Run and compare expert caches of Mixture-of-Experts models.

Which expert cache should I run?

The public API, each name imported when it is first used, so that `import specmd` costs nothing:
`load` and `save` traces, `simulate` a cache over one, read the `Run` that comes out, put many into
a `frame`, `compare` folders of them; `record` a model's routing, `offload` its experts behind a
live cache.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specmd.comparison import compare
    from specmd.runs.run import Run, frame
    from specmd.simulation.simulate import simulate
    from specmd.trace import Trace, load, save

__version__ = "0.1.0"

_HOME = {
    "Run": "specmd.runs.run",
    "Trace": "specmd.trace",
    "compare": "specmd.comparison",
    "frame": "specmd.runs.run",
    "load": "specmd.trace",
    "offload": "specmd.live",
    "record": "specmd.recording:Recorder",
    "save": "specmd.trace",
    "simulate": "specmd.simulation.simulate",
}

__all__ = ["Run", "Trace", "compare", "frame", "load", "save", "simulate"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'specmd' has no attribute '{name}'")
    module, _, attribute = _HOME[name].partition(":")
    try:
        value = getattr(import_module(module), attribute or name)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise AttributeError(f"specmd.{name} is not part of this version") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
