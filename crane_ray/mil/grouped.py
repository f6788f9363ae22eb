"""All folds and seeds of an experiment as one batched network; each bag is read and moved once.

Every fold sees its own bags in the order in which it would see them alone, with its own optimiser:
its trajectory is that of a run of its own (but for dropout's random numbers).
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.func import functional_call, vmap

from crane_ray.errors import ConfigError
from crane_ray.mil.aggregator import Aggregator, build_aggregator
from crane_ray.mil.bags import Bag, labels_tensor
from crane_ray.mil.loop import epoch_seed, fold_counts, settle_losses
from crane_ray.mil.order import epoch_draws
from crane_ray.mil.prediction import Study, precision, predict
from crane_ray.mil.run import FoldRun, Logits, make_optimizer
from crane_ray.mil.steps import bags_loss, num_labelled

Tensors = dict[str, torch.Tensor]


class GroupedEngine:
    """Many folds at a time, on one device.

    The weights of all folds lie in one tensor a parameter; each fold's network works on views of
    them. One optimiser steps all folds at once; it keeps its state in that of the folds' own ones.
    """

    def __init__(self, study: Study, runs: Sequence[FoldRun]) -> None:
        refuse_packed(study)
        self._study = study
        with torch.device("meta"):
            network = build_aggregator(study.config.model, study.reader.pack.dim, study.tasks)
        if any(True for _ in network.buffers()):
            raise ConfigError(
                f"--model {study.config.model.name}: keeps statistics besides its weights, which "
                "grouped folds cannot; train without --grouped-folds"
            )
        self._loss = _LossOf(network, study)
        self._places = {id(run): place for place, run in enumerate(runs)}
        self._stacked = _stack(runs)
        networks = nn.ModuleList(run.network for run in runs)
        self._optimizer = make_optimizer(networks, study.config.training.optim)
        self._class_weights: Tensors = {}
        if study.config.training.class_weights == "balanced":
            self._class_weights = {
                task.name: torch.stack([run.class_weights[task.name] for run in runs])
                for task in study.tasks
            }

    def train_epoch(self, runs: Sequence[FoldRun], epoch: int) -> list[float]:
        """See `Engine`."""
        losses: list[list[torch.Tensor]] = [[] for _ in runs]
        steps: list[list[list[Bag]]] = [[] for _ in runs]
        seed = self._study.config.training.seed
        torch.manual_seed(epoch_seed(seed, epoch))  # of dropout
        self._loss.train()
        self._share_state(runs)
        for bag, members in schedule(runs, self._study, epoch):
            features_ND = self._study.reader.sample(bag, seed=seed, epoch=epoch)
            values = self._step([runs[member] for member in members], bag, features_ND)
            for member, value in zip(members, values, strict=True):
                losses[member].append(value)
                steps[member].append([bag])
        return [
            settle_losses(run, torch.stack(found), bags, epoch)
            for run, found, bags in zip(runs, losses, steps, strict=True)
        ]

    def evaluate(self, runs: Sequence[FoldRun]) -> list[Logits]:
        """See `Engine`."""
        return [predict(run.network, run.bags.val, self._study) for run in runs]

    def _step(self, runs: Sequence[FoldRun], bag: Bag, features_ND: torch.Tensor) -> torch.Tensor:
        """One step of several folds with the same bag; (G,) losses."""
        device = self._study.reader.device
        labels_1T = labels_tensor([bag]).to(device)
        labelled_T = num_labelled([bag]).to(device)
        places = [self._places[id(run)] for run in runs]
        picked = self._picked(places)
        weights = {name: values[places] for name, values in self._class_weights.items()}

        def loss_of(parameters: Tensors, weights: Tensors) -> torch.Tensor:
            arguments = (features_ND, labels_1T, labelled_T, weights)
            loss: torch.Tensor = functional_call(self._loss, parameters, arguments)
            return loss

        with precision(self._study):
            losses_G: torch.Tensor = vmap(loss_of, randomness="different")(picked, weights)
        losses_G.sum().backward()  # type: ignore[no-untyped-call]
        self._optimizer.zero_grad(set_to_none=True)  # the others' too: without one they stay
        for place, run in enumerate(runs):
            for name, parameter in run.network.named_parameters():
                gradient = picked[_PREFIX + name].grad
                parameter.grad = None if gradient is None else gradient[place]
        self._optimizer.step()
        return losses_G.detach()

    def _share_state(self, runs: Sequence[FoldRun]) -> None:
        for run in runs:
            for weights in run.network.parameters():
                if weights.requires_grad:
                    self._optimizer.state[weights] = run.optimizer.state[weights]

    def _picked(self, places: Sequence[int]) -> Tensors:
        """The weights of some folds as leaves of a graph; without a copy where it is all."""
        whole = list(places) == list(range(len(self._places)))
        return {
            _PREFIX + name: (values.detach() if whole else values[places]).requires_grad_(
                self._loss.get_parameter(_PREFIX + name).requires_grad
            )
            for name, values in self._stacked.items()
        }


_PREFIX = "network."


class _LossOf(nn.Module):
    """A network's loss of one bag, as a module, so that all of it runs on weights it is given."""

    def __init__(self, network: Aggregator, study: Study) -> None:
        super().__init__()
        self.network = network
        self._study = study

    def forward(
        self,
        features_ND: torch.Tensor,
        labels_1T: torch.Tensor,
        labelled_T: torch.Tensor,
        class_weights: Tensors,
    ) -> torch.Tensor:
        return bags_loss(
            self.network,
            self.network(features_ND),
            [len(features_ND)],
            labels_1T,
            num_labelled_T=labelled_T,
            num_bags=1,
            study=self._study,
            class_weights=class_weights,
        )


def refuse_packed(study: Study) -> None:
    """Refuses several bags a step: folds' steps would no longer have the same bags.

    Raises:
        ConfigError: a step has several.
    """
    if (study.config.training.bags_per_step or 1) > 1:
        raise ConfigError(
            f"--bags-per-step {study.config.training.bags_per_step}: grouped folds take one "
            "bag a step; leave it out, or train without --grouped-folds"
        )


def schedule(
    runs: Sequence[FoldRun], study: Study, epoch: int
) -> Iterator[tuple[Bag, tuple[int, ...]]]:
    """The bags of an epoch, each with the places of the folds that train on it then."""
    counts = [fold_counts(run, study, epoch) for run in runs]
    by_id = [{bag.bag_id: bag for bag in run.bags.train} for run in runs]
    most: Counter[str] = Counter()
    for found in counts:
        most |= Counter(found)
    for name, number in epoch_draws(most, seed=study.config.training.seed, epoch=epoch):
        members: dict[Bag, list[int]] = {}
        for place, found in enumerate(counts):
            if found.get(name, 0) > number:
                members.setdefault(by_id[place][name], []).append(place)
        for bag, places in members.items():  # a case may have other slides in another fold
            yield bag, tuple(places)


def _stack(runs: Sequence[FoldRun]) -> Tensors:
    """Moves the weights of networks into one (G, ...) tensor a parameter, which they then view."""
    networks = [dict(run.network.named_parameters()) for run in runs]
    stacked = {}
    for name in networks[0]:
        stacked[name] = torch.stack([network[name].detach() for network in networks])
        for network, values in zip(networks, stacked[name], strict=True):
            network[name].data = values
    return stacked
