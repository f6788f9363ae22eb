"""All folds at once as far as a cluster goes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crane_ray.runtime.pools import Node
from crane_ray.runtime.shares import Share, plan_share, too_small
from crane_ray.runtime.study_jobs import TrainJob


def job(**settings: Any) -> TrainJob:
    given = {key.replace("__", "."): value for key, value in settings.items()}
    fixed = {"task": "own.yaml", "bags.labels": "l.csv", "bags.features": "f", "splits": "s"}
    return TrainJob.load(overrides=[*fixed.items(), *given.items()])


@pytest.mark.parametrize(
    ("nodes", "num_folds", "settings", "share"),
    [
        ([Node(2)], 10, {}, Share(1, 0.0, 2)),
        ([Node(16)], 10, {}, Share(1, 0.0, 10)),
        ([Node(16)], 3, {}, Share(5, 0.0, 3)),
        # Six CPUs, but two nodes: three workers of two CPUs would not fit.
        ([Node(3), Node(3)], 3, {}, Share(1, 0.0, 3)),
        ([Node(0), Node(8), Node(8)], 2, {}, Share(8, 0.0, 2)),
        # Four folds share a GPU, and what CPUs its node has.
        ([Node(16, 1)], 10, {}, Share(4, 0.25, 4)),
        ([Node(16, 1), Node(64)], 10, {}, Share(4, 0.25, 4)),
        ([Node(16, 4)], 10, {}, Share(1, 0.25, 10)),
        ([Node(16, 1)], 10, {"grouped_folds": True}, Share(16, 1.0, 1)),
        ([Node(16, 1)], 10, {"workers__gpus": 0.0}, Share(1, 0.0, 10)),
        ([Node(2)], 10, {"workers__count": 2}, Share(1, 0.0, 1)),
        ([Node(8)], 10, {"workers__count": 2}, Share(1, 0.0, 4)),
        ([Node(8, 2), Node(8, 2)], 10, {"workers__count": 2}, Share(4, 1.0, 2)),
        ([Node(8)], 2, {"workers__cpus": 3}, Share(3, 0.0, 2)),
        ([Node(2)], 2, {"workers__count": 4, "workers__min_count": 2}, Share(1, 0.0, 1)),
    ],
)
def test_shares(nodes: list[Node], num_folds: int, settings: dict[str, Any], share: Share) -> None:
    found = plan_share(job(**settings), nodes, num_folds)
    assert found == share
    assert not too_small(job(**settings), nodes, found)


@given(
    st.lists(st.builds(Node, st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=4),
    st.integers(1, 12),
    st.integers(1, 3),
)
def test_what_is_planned_fits_the_nodes(nodes: list[Node], num_folds: int, count: int) -> None:
    share = plan_share(job(workers__count=count), nodes, num_folds)
    by_node = [
        min(node.cpus // share.cpus, node.gpus / share.gpus if share.gpus else node.cpus)
        for node in nodes
    ]
    assert share.at_once * count <= sum(map(int, by_node))
    assert share.at_once <= num_folds
    assert bool(too_small(job(workers__count=count), nodes, share)) == (share.at_once == 0)


@pytest.mark.parametrize(
    ("nodes", "settings", "told"),
    [
        ([Node(2)], {"workers__count": 4}, "4 workers of 1 CPU"),
        ([Node(2)], {"workers__gpus": 1.0}, "1 worker of 1 CPU and 1 GPU"),
        ([Node(2), Node(2)], {"workers__cpus": 3}, "1 worker of 3 CPUs"),
    ],
)
def test_what_no_node_can_hold_is_said_before_anything_waits_for_it(
    nodes: list[Node], settings: dict[str, Any], told: str
) -> None:
    share = plan_share(job(**settings), nodes, 3)
    assert share.at_once == 0
    words = too_small(job(**settings), nodes, share)
    assert f"no room for {told} (nodes: 2 CPUs 0 GPUs" in words
