"""What a run is: its options, its numbers, its record, its identity."""
