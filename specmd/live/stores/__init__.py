"""Where experts are kept: host memory, a checkpoint, random bytes."""
