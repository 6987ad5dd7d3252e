"""From image files to training batches: sources, alignment, shard building, loading, and generated demo data."""
