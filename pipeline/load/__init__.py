"""Training batches from shards: sampling, decoding and degradation."""
