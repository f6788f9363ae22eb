"""All folds and seeds of an experiment at a time on a CPU, taking turns at bags that are read once.

Shapes: N patches, D feature length.
"""

from collections.abc import Iterator, Sequence

import torch

from crane_ray.mil.bags import Bag
from crane_ray.mil.grouped import refuse_packed, schedule
from crane_ray.mil.loop import epoch_seed, settle_losses
from crane_ray.mil.prediction import Study, predict
from crane_ray.mil.run import FoldRun, Logits
from crane_ray.mil.steps import step_loss

PATCHES_AHEAD = 4096
"""Patches that are held for all folds."""


class TurnsEngine:
    """Many folds at a time, on a CPU.

    A fold that has the turn steps on all of its bags among those that are held, so that its
    weights stay in the processor's caches. One batched network of all folds is slower there:
    products of several matrices take longer than one after the other.

    Every fold draws its own random numbers: its trajectory is that of a run of its own, dropout
    included.
    """

    def __init__(self, study: Study) -> None:
        refuse_packed(study)
        self._study = study

    def train_epoch(self, runs: Sequence[FoldRun], epoch: int) -> list[float]:
        """See `Engine`."""
        losses: list[list[torch.Tensor]] = [[] for _ in runs]
        steps: list[list[list[Bag]]] = [[] for _ in runs]
        randomness = [_random_state(run, epoch) for run in runs]
        for held in self._held(runs, epoch):
            for member, run in enumerate(runs):
                run.network.train()
                torch.set_rng_state(randomness[member])
                for bag, members, features_ND in held:
                    if member in members:
                        losses[member].append(self._step(run, bag, features_ND))
                        steps[member].append([bag])
                randomness[member] = torch.get_rng_state()
        return [
            settle_losses(run, torch.stack(found), bags, epoch)
            for run, found, bags in zip(runs, losses, steps, strict=True)
        ]

    def evaluate(self, runs: Sequence[FoldRun]) -> list[Logits]:
        """See `Engine`."""
        return [predict(run.network, run.bags.val, self._study) for run in runs]

    def _held(
        self, runs: Sequence[FoldRun], epoch: int
    ) -> Iterator[list[tuple[Bag, tuple[int, ...], torch.Tensor]]]:
        """The bags of an epoch with their folds and features, a few at a time."""
        seed = self._study.config.training.seed
        held: list[tuple[Bag, tuple[int, ...], torch.Tensor]] = []
        room = PATCHES_AHEAD
        for bag, members in schedule(runs, self._study, epoch):
            features_ND = self._study.reader.sample(bag, seed=seed, epoch=epoch)
            held.append((bag, members, features_ND))
            room -= len(features_ND)
            if room <= 0:
                yield held
                held, room = [], PATCHES_AHEAD
        yield held

    def _step(self, run: FoldRun, bag: Bag, features_ND: torch.Tensor) -> torch.Tensor:
        """One step of a fold; its loss."""
        run.optimizer.zero_grad(set_to_none=True)
        loss = step_loss(run, [features_ND], [bag], [bag], study=self._study)
        loss.backward()  # type: ignore[no-untyped-call]
        run.optimizer.step()
        return loss.detach()


def _random_state(run: FoldRun, epoch: int) -> torch.Tensor:
    """Of torch's generator, as a run of its own has it at the start of an epoch."""
    return torch.Generator().manual_seed(epoch_seed(run.seed, epoch)).get_state()
