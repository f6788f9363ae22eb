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


def _outputs(
    checkpoints: Sequence[Checkpoint], features_ND: Rows, device: torch.device | str
) -> list[MILOutput]:
    """What each network says of the bag, without its embeddings."""
    num_patches = features_ND.shape[0]
    merges = all(isinstance(one.network, MergesParts) for one in checkpoints)
    step = PART_ROWS if merges else num_patches
    # One buffer a network: what parts leave behind between their embeddings would keep the
    # allocator from using that room again.
    scores = [torch.empty(len(one.network.heads), num_patches) for one in checkpoints]
    parts: list[list[MILOutput]] = [[] for _ in checkpoints]
    for start in range(0, num_patches, step):
        stop = min(start + step, num_patches)
        bag_ND = torch.from_numpy(np.ascontiguousarray(features_ND[start:stop])).to(device)
        for place, one in enumerate(checkpoints):
            output = _forward(one, bag_ND)
            own_HN = scores[place][:, start:stop]
            own_HN.copy_(output.scores_HN)
            parts[place].append(MILOutput(output.logits, own_HN, own_HN))
    return [
        _merged(one, own, scores_HN)
        for one, own, scores_HN in zip(checkpoints, parts, scores, strict=True)
    ]


def _forward(checkpoint: Checkpoint, bag_ND: torch.Tensor) -> MILOutput:
    network = checkpoint.network.to(bag_ND.device).eval()
    dtype = next(network.parameters()).dtype
    output: MILOutput = network(bag_ND.to(dtype))
    return output


def _merged(
    checkpoint: Checkpoint, parts: Sequence[MILOutput], scores_HN: torch.Tensor
) -> MILOutput:
    if len(parts) == 1:
        return parts[0]
    network = checkpoint.network
    assert isinstance(network, MergesParts)
    return MILOutput(network.merge(parts), scores_HN, scores_HN)
