"""Published measurements of expert caches, one TOML a source; facts only."""
