"""A search that never ran: trials whose objective follows a known rule."""

import math

import numpy as np

from crane_ray.search.leaderboard import Leaderboard, Trial

NAMES = ("crane", "clam_sb", "clam_mb", "mean_pool")
MERIT = {"crane": 0.05, "clam_sb": 0.03, "clam_mb": 0.02, "mean_pool": -0.02}


def trial(number: int, value: float | None, **changes: object) -> Trial:
    """A trial of a number and a value, all else as usual."""
    facts: dict[str, object] = {
        "trial_id": f"trial-{number:03}",
        "params": {"optim.lr": 1e-4 * (number + 1)},
        "status": "done" if value is not None else "failed",
        "metrics": {},
        "epochs": 10,
        "seconds": 12.5,
    }
    return Trial(number=number, value=value, **{**facts, **changes})  # type: ignore[arg-type]


def board(*trials: Trial, mode: str = "max", baseline: str | None = None) -> Leaderboard:
    """A leaderboard of a macro AUC."""
    return Leaderboard("macro AUC, val", mode, trials, baseline)  # type: ignore[arg-type]


def made_up_search(num_trials: int = 24, *, mode: str = "max", seed: int = 3) -> Leaderboard:
    """A search in which the learning rate and the network matter and dropout hardly does.

    Trial 0 is the default config; every ninth fails, a third is stopped early, the last is
    unfinished.
    """
    random = np.random.default_rng(seed)
    trials = []
    for number in range(num_trials):
        params: dict[str, object] = {
            "model.name": NAMES[int(random.integers(len(NAMES)))],
            "optim.lr": float(10 ** random.uniform(-5, -3)),
            "model.dropout": round(float(random.uniform(0, 0.5)), 3),
            "instances.num_sampled": None if random.random() < 0.2 else int(random.choice([4, 8])),
            "bags.level": "case" if random.random() < 0.5 else "slide",
        }
        if number == 0:
            params = {
                "model.name": "clam_sb", "optim.lr": 5e-5, "model.dropout": 0.25,
                "instances.num_sampled": 8, "bags.level": "slide",
            }  # fmt: skip
        trials.append(_trained(number, params, random, last=number == num_trials - 1))
    if mode == "min":
        trials = [_as_loss(one) for one in trials]
    words = "macro AUC, val" if mode == "max" else "loss, val"
    return Leaderboard(words, mode, tuple(trials), "a1b2_00000")  # type: ignore[arg-type]


def _trained(
    number: int, params: dict[str, object], random: np.random.Generator, *, last: bool
) -> Trial:
    rate = float(str(params["optim.lr"]))
    reach = 0.83 + MERIT[str(params["model.name"])] - 0.05 * (math.log10(rate) + 3.8) ** 2
    stopped = number % 3 == 2
    epochs = 6 if stopped else 20
    curve = [
        (epoch, float(0.5 + (reach - 0.5) * (1 - math.exp(-(epoch + 1) / 5))
                      + random.normal(0, 0.006)))
        for epoch in range(epochs)
    ]  # fmt: skip
    value: float | None = max(score for _, score in curve)
    status, error = ("stopped" if stopped else "done"), ""
    if number % 9 == 4:
        status, value, error = "failed", None, "TrainingDivergedError: loss is nan in epoch 2"
        curve = curve[:2]
    elif last:
        status, value, curve = "unfinished", None, curve[:3]
    metrics = {"val_loss": None if value is None else 1.2 - value, "auc slide-task": value}
    return Trial(
        trial_id=f"a1b2_{number:05}", number=number, params=params, status=status,  # type: ignore[arg-type]
        value=value, metrics=metrics, epochs=len(curve), seconds=len(curve) * 8.4, error=error,
        history=tuple(curve),
    )  # fmt: skip


def _as_loss(one: Trial) -> Trial:
    from dataclasses import replace

    value = None if one.value is None else 1.3 - one.value
    return replace(one, value=value, history=tuple((e, 1.3 - v) for e, v in one.history))
