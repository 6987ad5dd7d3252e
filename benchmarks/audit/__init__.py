"""Looks for faults in a shard set with a trained network: wrong labels, one person twice, one photograph twice."""
