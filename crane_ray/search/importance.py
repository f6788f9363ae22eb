"""How much each param of a search had to do with being among its best trials."""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from crane_ray.pages.scales import Scale, infer_scale
from crane_ray.pages.wording import key_of
from crane_ray.search.leaderboard import Leaderboard, Trial

FEWEST_TRIALS = 8
"""With fewer trials with a value, shares are chance."""

NUM_BEST = 5
"""Trials that at least are called the best; the method's authors ask for five or more."""


@dataclass(frozen=True)
class Importance:
    """Shares of the params, or why there are none."""

    shares: Mapping[str, float] | None
    """Path to a share; the largest first, together one."""
    reason: str = ""
    """Why there are no shares."""
    num_trials: int = 0
    """Trials with a value."""
    num_best: int = 0
    """Those among them that count as the best."""
    ranges: Mapping[str, str] = field(default_factory=dict)
    """Path to the range or the choices that were inferred from the trials, in words."""


def measure_importance(leaderboard: Leaderboard) -> Importance:
    """Each param's share in what sets the best trials apart from all trials.

    PED-ANOVA (Watanabe et al., IJCAI 2023), in its form for params that not every trial has
    (condPED-ANOVA, KDD 2026), as Optuna has them: the distribution of a param over the best
    trials against that over all. The best are a tenth of the trials, five at least, half of them
    at most.
    Params whose distributions are alike have no share, which says nothing about values that no
    trial tried. Ranges are inferred from the trials' own values (`infer_scale`), not taken from
    the search space.
    """
    scored = leaderboard.scored
    paths = [
        path
        for path in leaderboard.varied_paths()
        if len({key_of(trial.params.get(path)) for trial in scored}) > 1
    ]
    reason = _why_not(scored, paths)
    if reason:
        return Importance(None, reason, len(scored))
    num_best = _num_best(len(scored))
    scales = {path: infer_scale(trial.params.get(path) for trial in scored) for path in paths}
    # Half a trial less than that number: rounded up, it is that number whatever the division does.
    shares = _evaluate(leaderboard, scales, (num_best - 0.5) / len(scored))
    ordered = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    return Importance(
        dict(ordered),
        num_trials=len(scored),
        num_best=num_best,
        ranges={path: scale.describe() for path, scale in scales.items()},
    )


def _why_not(scored: tuple[Trial, ...], paths: list[str]) -> str:
    if len(scored) < FEWEST_TRIALS:
        return (
            f"{len(scored)} of the trials have a value; with fewer than {FEWEST_TRIALS} the "
            "shares would be chance"
        )
    if not paths:
        return "no param differs between the trials"
    if len(paths) == 1:
        return f"{paths[0]} is the only param that differs between the trials"
    worst, best = scored[-1].score, scored[0].score
    if worst == best:
        return "all trials have the same value"
    if scored[_num_best(len(scored)) - 1].score == worst:
        return "too many trials share the worst value to tell the best from the others"
    return ""


def _num_best(num_trials: int) -> int:
    return min(max(NUM_BEST, math.ceil(num_trials / 10)), num_trials // 2)


def _evaluate(
    leaderboard: Leaderboard, scales: Mapping[str, Scale], share: float
) -> dict[str, float]:
    # Optuna takes most of a second to import, and only this needs it.
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    direction = "maximize" if leaderboard.mode == "max" else "minimize"
    with _quiet(optuna):
        study = optuna.create_study(direction=direction)
        for trial in leaderboard.scored:
            held = {path: trial.params.get(path) for path in scales}
            params = {
                path: _as_optuna_has_it(value, scales[path])
                for path, value in held.items()
                if value is not None or scales[path].kind == "words"
            }
            kinds = {path: _distribution(optuna, scales[path]) for path in params}
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=kinds, value=trial.score)
            )
        evaluator = PedAnovaImportanceEvaluator(target_quantile=share)
        found = get_param_importances(study, evaluator=evaluator, params=list(scales))
    return {path: float(found[path]) for path in scales}


def _as_optuna_has_it(value: Any, scale: Scale) -> str | float:
    return key_of(value) if scale.kind == "words" else float(value)


def _distribution(optuna: Any, scale: Scale) -> Any:
    if scale.kind == "words":
        return optuna.distributions.CategoricalDistribution(scale.keys)
    return optuna.distributions.FloatDistribution(scale.low, scale.high, log=scale.kind == "log")


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Keeps Optuna from announcing a study that nobody asked for, and what it finds rare."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
