"""The on-disk format: tar shards with Parquet metadata. Knows nothing of faces, torch or DALI."""
