"""Learning beforehand, on one trace, what a policy decides by on another."""
