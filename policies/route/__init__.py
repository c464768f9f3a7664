"""Routing: whether the router's choice is changed to suit the cache."""
