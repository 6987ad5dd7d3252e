"""A Ray cluster of two machines' processes."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with a CPU each, and their processes; what kills ``second_raylet`` has to be the last test."""
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 1, "object_store_memory": 100 << 20}
    made = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    try:
        made.add_node(**options)
        made.first_raylet, made.second_raylet = (
            node.all_processes["raylet"][0].process.pid for node in made.list_all_nodes()
        )
        made.wait_for_nodes()
        yield made
    finally:
        made.shutdown()
