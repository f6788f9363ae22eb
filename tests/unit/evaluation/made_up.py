"""Made-up predictions for the tests of this folder."""

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.evaluation.predictions import Predictions, softmax

BINARY = TaskSpec(name="amr", column="label_amr", classes=("no_amr", "amr"))
THREE = TaskSpec(name="grade", column="label_grade", classes=("low", "middle", "high"))

Arrays = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]


@st.composite
def scored(draw: st.DrawFn, num_classes: int, weights: bool = True) -> Arrays:
    """Labels, probabilities with many ties, and weights, some of them zero."""
    num = draw(st.integers(1, 25))
    labels = draw(st.lists(st.integers(0, num_classes - 1), min_size=num, max_size=num))
    flat = draw(
        st.lists(st.integers(-2, 2), min_size=num * num_classes, max_size=num * num_classes)
    )
    allowed = [0.0, 0.5, 1.0, 2.0, 3.0] if weights else [1.0]
    counts = draw(st.lists(st.sampled_from(allowed), min_size=num, max_size=num))
    logits = np.array(flat, dtype=np.float64).reshape(num, num_classes)
    return np.array(labels, dtype=np.int64), softmax(logits), np.array(counts)


def predict(
    task: TaskSpec,
    num_cases: int = 12,
    *,
    fold: int = 0,
    split: str = "test",
    seed: int = 0,
    slides_of_case: int = 1,
    skill: float = 1.5,
) -> Predictions:
    """Predictions of a network that is right more often than not; every class is there."""
    generator = np.random.default_rng([seed, fold, len(split)])
    classes = task.num_classes
    case_labels = np.arange(num_cases) % classes
    labels = np.repeat(case_labels, slides_of_case)
    logits = generator.normal(size=(len(labels), classes)) + skill * np.eye(classes)[labels]
    cases = np.repeat([f"{split}-case{index}" for index in range(num_cases)], slides_of_case)
    return Predictions.from_logits(
        logits,
        labels,
        fold=fold,
        split=split,
        task=task.name,
        slide_ids=[f"{case}-slide{index}" for index, case in enumerate(cases)],
        case_ids=list(cases),
    )


def table_of(
    probabilities: list[list[float]],
    labels: list[int],
    *,
    slides: list[str],
    cases: list[str],
    fold: int = 0,
    split: str = "test",
    task: str = "amr",
) -> Predictions:
    """Predictions with the probabilities given."""
    return Predictions.from_logits(
        np.log(probabilities),
        labels,
        fold=fold,
        split=split,
        task=task,
        slide_ids=slides,
        case_ids=cases,
    )
