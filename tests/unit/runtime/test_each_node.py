"""Which nodes of a cluster may take part, told by what they answered."""

import logging
from typing import Any

import pytest

from crane_ray.errors import ClusterError
from crane_ray.preflight.report import Node
from crane_ray.runtime import each_node
from crane_ray.runtime.each_node import require_alike
from crane_ray.runtime.landmarks import View
from crane_ray.version import __version__

OWN, HEAD, A, B = "own", "a head without CPUs", "a (10.0.0.1)", "b (10.0.0.2)"
ALIKE = (View(__version__, ()), "")


class Answers:
    """Nodes that answer as a test says, without Ray."""

    def __init__(self) -> None:
        self.told: dict[str, tuple[View | None, str]] = {}

    def __call__(
        self, tasks: list[str], wait_s: float, too_late: str
    ) -> list[tuple[View | None, str]]:
        return [self.told[task] for task in tasks]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """The driver's node, a head that runs nothing, and two others."""

    class Task:
        def __init__(self, key: str) -> None:
            self.key = key

        def __call__(self, function: Any) -> "Task":
            return self

        def remote(self, landmarks: list[Any]) -> str:
            return self.key

    class Context:
        def get_node_id(self) -> str:
            return OWN

    nodes = [(name, Node(name, int(name != HEAD), 0, 0)) for name in (OWN, HEAD, A, B)]
    answers = Answers()
    monkeypatch.setattr("ray.get_runtime_context", Context)
    monkeypatch.setattr(each_node, "alive_nodes", lambda: nodes)
    monkeypatch.setattr(each_node, "on_node", lambda key, **resources: Task(key))
    monkeypatch.setattr(each_node, "answers", answers)
    return answers


def test_where_all_are_alike_nothing_is_said(
    answers: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    answers.told = {A: ALIKE, B: ALIKE}
    require_alike([])
    assert caplog.messages == []


def test_a_node_that_does_not_answer_stops_nobody(
    answers: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    answers.told = {A: ALIKE, B: (None, "no answer within 60 s")}
    with caplog.at_level(logging.WARNING):
        require_alike([])
    assert caplog.messages == [
        f"node {B}: no answer within 60 s; crane-ray doctor looks at all nodes"
    ]


@pytest.mark.parametrize(
    "told",
    [
        (None, "ModuleNotFoundError: No module named 'crane_ray'"),
        (None, "AttributeError: module 'crane_ray.runtime.landmarks' has no attribute 'view'"),
        (View("0.0.9", ()), ""),
    ],
)
def test_a_node_with_another_crane_ray_or_none_is_told(
    told: tuple[View | None, str], answers: Answers
) -> None:
    answers.told = {A: told, B: ALIKE}
    with pytest.raises(ClusterError) as refusal:
        require_alike([])
    said = str(refusal.value)
    assert f"node {A} cannot take part: " in said and B not in said
    assert (told[1] or "crane-ray 0.0.9;") in said
    assert f"install this node's crane-ray {__version__}" in said
    assert "Nothing was done" in said


def test_every_place_that_a_node_does_not_see_is_told(answers: Answers) -> None:
    answers.told = {A: (View(__version__, ("work /w: no", "out /o: no")), ""), B: ALIKE}
    with pytest.raises(ClusterError) as refusal:
        require_alike([])
    said = str(refusal.value).splitlines()
    assert said[:3] == [
        f"node {A} does not see 2 paths of the config:", "  work /w: no", "  out /o: no",
    ]  # fmt: skip
    assert "a shared filesystem, or a bucket's URI" in said[3]
