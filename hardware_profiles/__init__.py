"""Hardware profiles, one TOML a device; every number names its source."""
