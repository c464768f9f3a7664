"""Prefetch: which experts to fetch before the router asks for them."""
