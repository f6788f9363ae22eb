"""Percentiles of scores, as CLAM counts them, on a scale of 0 to 1."""

from typing import Any

import numpy as np
import numpy.typing as npt

from crane_ray.errors import ConfigError

Floats = npt.NDArray[np.float64]


def percentiles(scores_N: npt.NDArray[Any], reference_R: npt.NDArray[Any] | None = None) -> Floats:
    """Each score's share of the reference scores that lie at or below it, (N,) from 0 to 1.

    Among the scores themselves that is their rank over their number, equal scores sharing their
    mean rank (CLAM's ``to_percentiles``). Among other scores it is scipy's ``percentileofscore``
    of kind ``rank`` (CLAM's ``score2percentile``): the mean rank that the score would have among
    its equals, or the number of lower ones where it has none. Both are CLAM's divided by 100.

    Args:
        scores_N: (N,) scores.
        reference_R: (R,) what they are ranked among; the scores themselves where not given.

    Raises:
        ConfigError: a score is no number, or there are no references.
    """
    reference_R = scores_N if reference_R is None else reference_R
    if np.isnan(scores_N).any() or np.isnan(reference_R).any():
        raise ConfigError(
            "scores that are no numbers (NaN) have no percentiles; look at the features of the "
            "slide and at the network that scored it"
        )
    if not len(reference_R):
        if not len(scores_N):
            return np.zeros(0)
        raise ConfigError("percentiles among no reference scores; give at least one")
    ordered_R = np.sort(reference_R)
    below = np.searchsorted(ordered_R, scores_N, side="left")
    up_to = np.searchsorted(ordered_R, scores_N, side="right")
    # Of the ranks below + 1 to up_to of its equals the mean; without equals, those below.
    return np.asarray((below + up_to + (up_to > below)) / (2 * len(ordered_R)))
