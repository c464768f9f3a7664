"""Recording the routing of real models: hooks, lookahead scores, streaming to disk, prompts."""

from specmd.recorder.generate import record_model
from specmd.recorder.loading import load_model
from specmd.recorder.prompts import Prompt, read_prompts
from specmd.recorder.recorder import Recorder, recover

__all__ = ["Prompt", "Recorder", "load_model", "read_prompts", "record_model", "recover"]
