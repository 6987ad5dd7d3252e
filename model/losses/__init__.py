"""Losses on logits and embeddings, and their text form."""
