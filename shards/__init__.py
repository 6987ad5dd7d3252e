"""The on-disk format: tar shards with Parquet metadata. Independent of faces, PyTorch and DALI."""
