"""The rules of the evaluation contract, and all that is compiled."""
