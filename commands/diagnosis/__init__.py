"""What ``doctor`` looks at: the machine, the libraries, data sets, shard sets and runs.

It may import every package and no package may import it, so it stands here, above all of them.
"""
