"""A Ray cluster of two machines' processes."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with a CPU each; what kills ``second_raylet``, the process of the second one, has to be the last test."""
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 1, "object_store_memory": 100 << 20}
    made = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    try:
        made.second_raylet = made.add_node(**options).all_processes["raylet"][0].process.pid
        made.wait_for_nodes()
        yield made
    finally:
        made.shutdown()
