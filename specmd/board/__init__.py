"""The board: published measurements of expert caches, simulated again and set beside each other."""
