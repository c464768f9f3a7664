"""The tiny model with a few prompts, measured."""

import pytest

from specmd.measurement import LiveSettings, PromptWorkload, measure
from specmd.models.generation import Generation
from specmd.models.prompts import Prompt
from specmd.models.tiny import MODEL_NAME, load_tiny
from specmd.runs.resolve import grid
from specmd.trace import TraceHeader

HEADER = TraceHeader(model=MODEL_NAME, num_layers=8, num_experts=16, top_k=4, expert_bytes=98_304)
TEXTS = ("def add(a, b):", "It was a dark and stormy night, and")


@pytest.fixture
def header():
    return HEADER


@pytest.fixture(scope="session")
def workload():
    generation = Generation(tuple(Prompt(text) for text in TEXTS), max_new_tokens=5)
    return PromptWorkload(*load_tiny(), generation, MODEL_NAME)


@pytest.fixture(scope="session")
def measured(workload):
    """Measure a configuration; settings by name."""

    def run(bounds=False, timeline=None, warmup_runs=0, repetitions=1, **options):
        fields = LiveSettings.model_fields
        settings = {name: options.pop(name) for name in list(options) if name in fields}
        asked = {"evict": "lru", "capacity": "40%"} | options
        (config,) = grid(HEADER, **asked)
        live = LiveSettings(
            link="cpu", warmup_runs=warmup_runs, repetitions=repetitions, **settings
        )
        return measure(workload, config, live, bounds=bounds, timeline=timeline)

    return run
