"""All folds and seeds of an experiment at a time on a CPU, taking turns at bags that are read once.

Shapes: N patches, D feature length.
"""

from collections.abc import Iterator, Sequence

import torch

from crane_ray.mil.bags import Bag
from crane_ray.mil.grouped import GroupedEngine, refuse_packed, schedule
from crane_ray.mil.loop import Engine, epoch_seed, settle_losses
from crane_ray.mil.prediction import Study, predict
from crane_ray.mil.run import FoldRun, Logits
from crane_ray.mil.steps import step_loss

HELD_BYTES = 8_000_000
"""Of features at a time: one bag of 2,000 x 1024 in float32."""
Held = tuple[Bag, tuple[int, ...], torch.Tensor]
"""A bag, the places of the folds that train on it, and its (N, D) features."""


def grouped_engine(study: Study, runs: Sequence[FoldRun]) -> Engine:
    """What trains folds together fastest on the study's device.

    Raises:
        ConfigError: folds cannot be trained together with this config.
    """
    if study.reader.device.type == "cpu":
        return TurnsEngine(study)
    return GroupedEngine(study, runs)


class TurnsEngine:
    """Many folds at a time, on a CPU: each bag is read once, and one fold after the other steps.

    A fold's turn is all of its bags among those that are held: going from fold to fold with each
    small bag would take weights and moments out of the caches (2 to 7 % slower). One batched
    network of all folds takes 1.1 to 1.4 times as long: batched products are slower than single
    ones, which keep a core busy.

    Every fold draws its own random numbers: its trajectory is that of a run of its own, bit for
    bit, dropout included.
    """

    def __init__(self, study: Study) -> None:
        refuse_packed(study)
        self._study = study

    def train_epoch(self, runs: Sequence[FoldRun], epoch: int) -> list[float]:
        """See `Engine`."""
        losses: list[list[torch.Tensor]] = [[] for _ in runs]
        steps: list[list[list[Bag]]] = [[] for _ in runs]
        randomness = [_random_state(run, epoch) for run in runs]
        for run in runs:
            run.network.train()
        for held in self._held(runs, epoch):
            for member, run in enumerate(runs):
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

    def _held(self, runs: Sequence[FoldRun], epoch: int) -> Iterator[list[Held]]:
        """An epoch's bags, as many at a time as `HELD_BYTES` allow, at least one."""
        seed = self._study.config.training.seed
        held: list[Held] = []
        room = HELD_BYTES
        for bag, members in schedule(runs, self._study, epoch):
            features_ND = self._study.reader.sample(bag, seed=seed, epoch=epoch)
            held.append((bag, members, features_ND))
            room -= features_ND.nbytes
            if room <= 0:
                yield held
                held, room = [], HELD_BYTES
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
