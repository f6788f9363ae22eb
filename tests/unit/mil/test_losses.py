"""Losses against their definitions, and what a missing label must not do."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.cohort.tasks import MISSING, TaskSpec
from crane_ray.mil.losses import LossKind, classification_loss, multi_task_loss
from tests.unit.mil.numpy_networks import cross_entropy, smooth_svm

TASKS = (
    TaskSpec(name="a", column="a", classes=("0", "1"), weight=1),
    TaskSpec(name="b", column="b", classes=("0", "1", "2"), weight=3),
)


def outputs(num_bags: int, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng([seed, num_bags])
    return {
        task.name: torch.from_numpy(3 * rng.normal(size=(num_bags, task.num_classes)))
        for task in TASKS
    }


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(-30, 30), min_size=2, max_size=6),
    label=st.integers(0, 5),
)
def test_single_losses_are_their_definitions(values: list[float], label: int) -> None:
    label %= len(values)
    logits_BC = torch.tensor([values], dtype=torch.float64)
    labels_B = torch.tensor([label])
    svm = classification_loss(logits_BC, labels_B, "svm").item()
    assert svm == pytest.approx(smooth_svm(np.array(values), label), abs=1e-9)
    ce = classification_loss(logits_BC, labels_B, "ce").item()
    assert ce == pytest.approx(cross_entropy(np.array(values), label), abs=1e-9)
    # an upper bound of the hinge, which it is log(classes) above at most (tau = 1)
    hinge = max(value + (j != label) for j, value in enumerate(values)) - values[label]
    assert hinge - 1e-9 <= svm <= hinge + np.log(len(values)) + 1e-9


def test_half_precision_is_computed_in_float32() -> None:
    logits_BC = torch.tensor([[12.25, -3.5]], dtype=torch.bfloat16)
    loss_B = classification_loss(logits_BC, torch.tensor([1]), "ce")
    assert loss_B.dtype == torch.float32
    assert loss_B.item() == pytest.approx(15.75, abs=1e-5)


@pytest.mark.parametrize("kind", ["ce", "svm"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_sum_over_tasks_is_as_stated(kind: LossKind, weighted: bool) -> None:
    logits = outputs(4)
    labels_BT = torch.tensor([[0, 2], [1, MISSING], [MISSING, MISSING], [1, MISSING]])
    class_weights = {"b": torch.tensor([0.5, 2.0, 4.0])} if weighted else None
    found = multi_task_loss(logits, labels_BT, TASKS, kind=kind, class_weights=class_weights)
    one = smooth_svm if kind == "svm" else cross_entropy
    factors = {"a": [1, 1], "b": [0.5, 2, 4] if weighted else [1, 1, 1]}
    expected = 0.0
    for place, (name, share) in enumerate((("a", 1 / 4), ("b", 3 / 4))):
        losses = [
            factors[name][label] * one(row, label)
            for row, label in zip(logits[name].numpy(), labels_BT[:, place].tolist(), strict=True)
            if label != MISSING
        ]
        expected += share * sum(losses) / len(losses)
    assert found.item() == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(st.tuples(st.integers(-1, 1), st.integers(-1, 2)), min_size=1, max_size=6),
    kind=st.sampled_from(["ce", "svm"]),
)
def test_a_masked_label_gives_exactly_zero_gradient(
    labels: list[tuple[int, int]], kind: LossKind
) -> None:
    logits = {name: values.requires_grad_() for name, values in outputs(len(labels)).items()}
    labels_BT = torch.tensor(labels)
    loss = multi_task_loss(logits, labels_BT, TASKS, kind=kind)
    loss.backward()  # type: ignore[no-untyped-call]
    for place, task in enumerate(TASKS):
        gradients = logits[task.name].grad
        assert gradients is not None, "a task without labels is still in the graph"
        assert torch.equal(gradients.any(dim=1), labels_BT[:, place] != MISSING)
    if (labels_BT == MISSING).all():
        assert loss.item() == 0


def test_a_missing_label_hides_no_nan() -> None:
    for name in ("a", "b"):
        for bag in (0, 1):
            logits = outputs(2)
            logits[name][bag, 0] = torch.nan
            labels_BT = torch.tensor([[0, 1], [MISSING, MISSING]])
            assert multi_task_loss(logits, labels_BT, TASKS).isnan(), (name, bag)


@pytest.mark.parametrize("kind", ["ce", "svm"])
def test_parts_of_a_step_add_up_to_it(kind: LossKind) -> None:
    logits = {name: values.requires_grad_() for name, values in outputs(5).items()}
    labels_BT = torch.tensor([[0, 2], [1, MISSING], [MISSING, 0], [1, MISSING], [0, MISSING]])
    counts_T = (labels_BT != MISSING).sum(dim=0)
    whole = multi_task_loss(logits, labels_BT, TASKS, kind=kind)
    parts = [
        multi_task_loss(
            {name: values[rows] for name, values in logits.items()},
            labels_BT[rows], TASKS, kind=kind, num_labelled_T=counts_T,
        )
        for rows in (slice(0, 2), slice(2, 5))
    ]  # fmt: skip
    together = torch.stack(parts).sum()
    assert together.item() == pytest.approx(whole.item(), abs=1e-12)
    for one, two in zip(
        torch.autograd.grad(together, [*logits.values()]),
        torch.autograd.grad(whole, [*logits.values()]),
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


def test_the_loss_goes_under_vmap() -> None:
    logits = [outputs(1, seed) for seed in range(4)]
    labels_GT = torch.tensor([[0, 2], [1, MISSING], [MISSING, 0], [MISSING, MISSING]])
    weights = {"a": torch.tensor([1.0, 5.0])}

    def loss(one: dict[str, torch.Tensor], labels_T: torch.Tensor) -> torch.Tensor:
        return multi_task_loss(one, labels_T[None], TASKS, class_weights=weights)

    stacked = {task.name: torch.stack([one[task.name] for one in logits]) for task in TASKS}
    found = torch.func.vmap(loss)(stacked, labels_GT)
    alone = [loss(one, labels_T) for one, labels_T in zip(logits, labels_GT, strict=True)]
    torch.testing.assert_close(found, torch.stack(alone), rtol=0, atol=1e-12)
