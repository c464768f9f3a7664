"""Recording the routing of real models: hooks, lookahead scores, streaming to disk, prompts."""

from specmd.models.load import load_model
from specmd.models.prompts import Prompt, read_prompts
from specmd.recording.generate import record_model
from specmd.recording.recorder import Recorder, recover

__all__ = ["Prompt", "Recorder", "load_model", "read_prompts", "record_model", "recover"]
