"""Questions of a paper, asked again: recordings, runs, numbers, texts."""
