"""What networks look at: as the aggregator says, and of several networks their mean."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.errors import ConfigError
from crane_ray.maps.attending import attend
from crane_ray.mil.aggregator import Aggregator, MILOutput, build_aggregator
from crane_ray.mil.checkpoints import Checkpoint
from crane_ray.mil.configs import ModelConfig

TASKS = (
    TaskSpec(name="cell", column="label_cell", classes=("no", "yes")),
    TaskSpec(name="amr", column="label_amr", classes=("no", "yes")),
)


def network(seed: int, *, tasks: tuple[TaskSpec, ...] = TASKS, name: str = "crane") -> Checkpoint:
    torch.manual_seed(seed)
    config = ModelConfig(name=name)
    built = build_aggregator(config, 12, tasks).eval()
    return Checkpoint(built, config, 12, tasks, "crane-ray", {}, True)


def test_one_networks_raw_scores_are_those_before_the_softmax() -> None:
    one = network(0)
    features = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float16)
    with torch.inference_mode():
        expected = one.network(torch.from_numpy(features).float())
    found = attend([one], features)
    assert found.heads == ("cell", "amr")
    np.testing.assert_array_equal(found.raw_HN, expected.scores_HN.numpy())
    for task in ("cell", "amr"):
        wanted = expected.logits[task].double().softmax(dim=1)[0].numpy()
        np.testing.assert_allclose(found.probabilities[task], wanted, atol=1e-12)


def test_several_networks_are_the_mean_of_their_log_attention() -> None:
    networks = [network(seed) for seed in range(3)]
    features = np.random.default_rng(1).normal(size=(25, 12)).astype(np.float32)
    with torch.inference_mode():
        outputs = [one.network(torch.from_numpy(features)) for one in networks]
    expected = np.mean([output.attention_HN.double().log().numpy() for output in outputs], axis=0)
    found = attend(networks, features)
    np.testing.assert_allclose(found.raw_HN, expected, atol=1e-5)
    np.testing.assert_allclose(sum(found.probabilities["amr"]), 1.0, atol=1e-12)


def test_a_row_for_each_class_of_clam_mb() -> None:
    one = network(0, tasks=TASKS[:1], name="clam_mb")
    found = attend([one], np.ones((3, 12), dtype=np.float32))
    assert found.heads == ("cell:no", "cell:yes")
    assert found.raw_HN.shape == (2, 3)


def test_what_cannot_be_one_map_is_refused() -> None:
    features = np.ones((3, 12), dtype=np.float32)
    with pytest.raises(ConfigError, match="no network"):
        attend([], features)
    with pytest.raises(ConfigError, match="one map cannot show both"):
        attend([network(0), network(0, tasks=TASKS[:1])], features)
    with pytest.raises(ConfigError, match=r"takes \(patches, 12\)"):
        attend([network(0)], np.ones((3, 8), dtype=np.float32))
    with pytest.raises(ConfigError, match="at least one patch"):
        attend([network(0)], features[:0])


@pytest.mark.parametrize("name", ["crane", "clam_sb", "clam_mb", "max_pool", "mean_pool"])
def test_a_large_bag_goes_through_in_parts_and_comes_out_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = TASKS if name in {"crane", "mean_pool"} else TASKS[:1]
    networks = [network(seed, tasks=tasks, name=name) for seed in range(2)]
    features = np.random.default_rng(2).normal(size=(50, 12), scale=3).astype(np.float16)
    for some in (networks[:1], networks):
        monkeypatch.setattr("crane_ray.maps.attending.PART_ROWS", 64)
        whole = attend(some, features)
        monkeypatch.setattr("crane_ray.maps.attending.PART_ROWS", 7)
        parts = attend(some, features)
        np.testing.assert_allclose(parts.raw_HN, whole.raw_HN, atol=1e-6, rtol=1e-6)
        for task in tasks:
            np.testing.assert_allclose(
                parts.probabilities[task.name], whole.probabilities[task.name], atol=1e-6
            )


def test_an_aggregator_that_cannot_merge_sees_the_whole_bag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Counting(Aggregator):
        heads = ("cell",)

        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(12, 2)

        def forward(
            self, features_ND: torch.Tensor, sizes_B: Sequence[int] | None = None
        ) -> MILOutput:
            scores_1N = torch.full((1, len(features_ND)), float(len(features_ND)))
            return MILOutput({"cell": self.linear(features_ND.mean(0))[None]}, scores_1N, scores_1N)

    monkeypatch.setattr("crane_ray.maps.attending.PART_ROWS", 7)
    one = Checkpoint(Counting(), ModelConfig(), 12, TASKS[:1], "crane-ray", {}, True)
    found = attend([one], np.ones((20, 12), dtype=np.float32))
    assert found.raw_HN.tolist() == [[20.0] * 20]


def test_scores_of_finer_patches_can_be_on_the_scale_of_the_coarse_ones() -> None:
    networks = [network(seed) for seed in range(3)]
    coarse = np.random.default_rng(3).normal(size=(20, 12)).astype(np.float32)
    dense = np.concatenate([coarse, coarse + 0.5])
    reference = attend(networks, coarse)
    found = attend(networks, dense, mass_FH=reference.mass_FH)
    np.testing.assert_allclose(found.raw_HN[:, :20], reference.raw_HN, atol=1e-5)
    assert (attend(networks, dense).raw_HN[:, :20] < reference.raw_HN).all()
