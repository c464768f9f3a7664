"""Hardware as data: device profiles, model shapes, and facts about this machine."""
