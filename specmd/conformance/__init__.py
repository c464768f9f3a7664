"""The conformance suite: what every policy must keep to, whoever wrote it."""
