"""Transformers models, and nothing of caches: finding MoE layers, following passes, loading."""
