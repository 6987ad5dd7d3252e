"""Searches galleries of embeddings, and calibrates scores as likelihood ratios."""
