"""Model shapes, one TOML a model; every number names its source."""
