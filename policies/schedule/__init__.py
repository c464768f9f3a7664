"""Schedule: in which order transfers use the link, and what a prefetch may evict."""
