"""Pools of encoder actors: sized by nodes, never larger than one of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crane_ray.errors import ConfigError
from crane_ray.runtime.jobs import ActorConfig
from crane_ray.runtime.pools import Node, Pool, plan_pool

BIG_CPU_NODE = Node(cpus=64)


@pytest.mark.parametrize(
    ("config", "nodes", "pool"),
    [
        (ActorConfig(), (Node(2),), Pool(1, 2, 0)),
        (ActorConfig(), (Node(16),), Pool(4, 4, 0)),
        (ActorConfig(), (Node(6), Node(3)), Pool(1, 4, 0)),
        (ActorConfig(), (Node(8, 1),), Pool(1, 8, 1)),
        (ActorConfig(), (Node(64, 8), Node(64, 8)), Pool(16, 8, 1)),
        (ActorConfig(), (Node(8, 1), BIG_CPU_NODE), Pool(1, 8, 1)),
        (ActorConfig(), (Node(8, 1), Node(96, 8)), Pool(9, 8, 1)),
        (ActorConfig(gpus=0.5), (Node(8, 1),), Pool(2, 4, 0.5)),
        (ActorConfig(gpus=0), (Node(8, 1),), Pool(2, 4, 0)),
        (ActorConfig(count=2), (Node(2),), Pool(2, 1, 0)),
        (ActorConfig(cpus=3), (Node(8),), Pool(2, 3, 0)),
        (ActorConfig(count=4, gpus=1, cpus=8), (Node(2),), Pool(4, 8, 1)),
        (ActorConfig(memory_gb=2), (Node(4),), Pool(1, 4, 0, 2 * 2**30)),
    ],
)
def test_pools(config: ActorConfig, nodes: tuple[Node, ...], pool: Pool) -> None:
    assert plan_pool(config, nodes) == pool


@given(
    nodes=st.lists(
        st.builds(Node, cpus=st.integers(1, 128), gpus=st.sampled_from([0, 0, 1, 2, 4, 8])),
        min_size=1,
        max_size=8,
    )
)
def test_every_actor_finds_a_node(nodes: list[Node]) -> None:
    pool = plan_pool(ActorConfig(), tuple(nodes))
    places = sum(
        min(int(node.cpus // pool.cpus), int(node.gpus / pool.gpus) if pool.gpus else 10**6)
        for node in nodes
    )
    assert 1 <= pool.count <= places


@pytest.mark.parametrize("config", [ActorConfig(gpus=1), ActorConfig(cpus=3)])
def test_an_actor_that_fits_no_node_is_refused_with_what_there_is(config: ActorConfig) -> None:
    with pytest.raises(ConfigError, match=r"no node has them \(nodes: 2 CPUs 0 GPUs"):
        plan_pool(config, (Node(2), Node(2)))
