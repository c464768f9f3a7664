"""Many runs: the grid, the processes that work on it, the files it leaves."""
