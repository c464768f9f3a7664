"""Policies, one file each, in exactly the form a user's plug-in has (see docs/plugins.md)."""
