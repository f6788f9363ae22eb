"""What networks look at on a slide: the scores of every head, and what they make of the slide.

Shapes: N patches, D feature length, H attention rows, C classes of a task, F networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from crane_ray.errors import ConfigError
from crane_ray.features.feature_files import Rows
from crane_ray.mil.aggregator import MILOutput
from crane_ray.mil.checkpoints import Checkpoint
from crane_ray.mil.parts import MergesParts

PART_ROWS = 2048
"""Patches that are in a network at a time, tens of megabytes of CRANE's embeddings: a whole
shard of a store."""


@dataclass(frozen=True, eq=False)
class Attention:
    """What one or several networks say of a slide."""

    heads: tuple[str, ...]
    """Name of each row: a task, or task:class."""
    raw_HN: npt.NDArray[np.float32]
    """Of one network its scores before the softmax, as CLAM's ``attention_scores``; of several
    the mean of the logarithms of their attention, since scores of two networks share no scale."""
    probabilities: dict[str, npt.NDArray[np.float64]]
    """(C,) by task; the mean over the networks."""
    mass_FH: npt.NDArray[np.float64]
    """(F, H) logarithm of the sum of the exponentials of each network's scores over the patches,
    which makes attention of them."""


@torch.inference_mode()
def attend(
    checkpoints: Sequence[Checkpoint],
    features_ND: Rows,
    *,
    mass_FH: npt.NDArray[np.float64] | None = None,
    device: torch.device | str = "cpu",
) -> Attention:
    """The attention of every head on the patches of a slide.

    Slides of many patches are read and go through the networks part by part.

    Args:
        checkpoints: one network, or the folds of a run, all with the same heads; moved to the
            device and left there.
        features_ND: (N, D) of any floating dtype, N at least 1: an array, or rows on disk.
        mass_FH: of another bag of the same slide, whose raw scores these are to be compared with;
            its own where not given.
        device: where it is computed.

    Raises:
        ConfigError: no network, networks with unequal heads, no patches, or features of another
            length than the networks take.
        SlideError: features on disk cannot be read.
    """
    heads = common_heads(checkpoints)
    dim, shape = checkpoints[0].dim, tuple(features_ND.shape)
    if len(shape) != 2 or shape[1] != dim or not shape[0]:
        raise ConfigError(
            f"features of shape {shape}: the network takes (patches, {dim}), and at least one "
            "patch; give the features of the encoder that it was trained with"
        )
    outputs = _outputs(checkpoints, features_ND, device)
    scores_FHN = torch.stack([output.scores_HN for output in outputs])
    own_FH = scores_FHN.double().logsumexp(dim=2)
    raw_HN = scores_FHN[0].float()
    if len(outputs) > 1:
        by_FH = own_FH if mass_FH is None else torch.from_numpy(mass_FH)
        raw_HN = (scores_FHN.double() - by_FH[:, :, None]).mean(dim=0).float()
    found = {
        task.name: torch.stack([output.logits[task.name][0].double() for output in outputs])
        for task in checkpoints[0].tasks
    }
    return Attention(
        heads,
        raw_HN.numpy(),
        {name: logits.softmax(dim=1).mean(dim=0).cpu().numpy() for name, logits in found.items()},
        own_FH.numpy(),
    )


def common_heads(checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """The heads that all networks have, in their order.

    Raises:
        ConfigError: there is no network, or two have other heads or other feature lengths.
    """
    if not checkpoints:
        raise ConfigError("no network: give the folder of a run, or a checkpoint")
    first = checkpoints[0]
    for other in checkpoints[1:]:
        if other.network.heads != first.network.heads or other.dim != first.dim:
            raise ConfigError(
                f"networks with the heads {', '.join(first.network.heads)} on features of "
                f"{first.dim}, and with {', '.join(other.network.heads)} on features of "
                f"{other.dim}: one map cannot show both; give the folds of one run"
            )
    return first.network.heads


class _Gathered:
    """What a network says of the parts of a bag, in memory that is taken once.

    Small tensors left behind between large embeddings would keep the allocator from using that
    room again: five networks on 120,000 patches then take 1.4 GB more.
    """

    def __init__(self, checkpoint: Checkpoint, num_patches: int, step: int) -> None:
        self._checkpoint, self._step = checkpoint, step
        self._scores_HN = torch.empty(len(checkpoint.network.heads), num_patches)
        self._logits_PC = {
            task.name: torch.empty(-(-num_patches // step), task.num_classes, dtype=torch.float64)
            for task in checkpoint.tasks
        }

    def add(self, part: int, bag_ND: torch.Tensor) -> None:
        """Takes in a part's patches."""
        network = self._checkpoint.network.to(bag_ND.device).eval()
        dtype = next(network.parameters()).dtype
        output: MILOutput = network(bag_ND.to(dtype))
        self._scores_of(part).copy_(output.scores_HN)
        for task, logits_PC in self._logits_PC.items():
            logits_PC[part].copy_(output.logits[task][0])

    def output(self) -> MILOutput:
        """What it says of the bag: scores and logits."""
        num_parts = -(-self._scores_HN.shape[1] // self._step)
        parts = [
            MILOutput(
                {task: logits_PC[part, None] for task, logits_PC in self._logits_PC.items()},
                self._scores_of(part),
                self._scores_of(part),
            )
            for part in range(num_parts)
        ]
        if len(parts) == 1:
            return parts[0]
        network = self._checkpoint.network
        assert isinstance(network, MergesParts)
        return MILOutput(network.merge(parts), self._scores_HN, self._scores_HN)

    def _scores_of(self, part: int) -> torch.Tensor:
        return self._scores_HN[:, part * self._step : (part + 1) * self._step]


def _outputs(
    checkpoints: Sequence[Checkpoint], features_ND: Rows, device: torch.device | str
) -> list[MILOutput]:
    """What each network says of the bag."""
    num_patches = features_ND.shape[0]
    merges = all(isinstance(one.network, MergesParts) for one in checkpoints)
    step = PART_ROWS if merges else num_patches
    gathered = [_Gathered(one, num_patches, step) for one in checkpoints]
    for part, start in enumerate(range(0, num_patches, step)):
        rows_ND = features_ND[start : min(start + step, num_patches)]
        bag_ND = torch.from_numpy(np.ascontiguousarray(rows_ND)).to(device)
        for one in gathered:
            one.add(part, bag_ND)
    return [one.output() for one in gathered]
