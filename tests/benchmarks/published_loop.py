"""The published way to train: one bag a step, from a file of its own, with ordinary torch.

Written from the description of CRANE's and CLAM's training: a bag's file is opened whenever the
bag is due; three cross entropies; Adam as it comes; loss and predictions are looked at in each
step.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import h5py
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

Item = tuple[torch.Tensor, torch.Tensor]
FileKind = Literal["pt", "h5"]


class BagFiles(Dataset[Item]):
    """A folder of bags: ``ID.pt`` or ``ID.h5`` with float32 features."""

    def __init__(
        self, folder: Path, kind: FileKind, labels: dict[str, tuple[int, ...]], order: Sequence[str]
    ) -> None:
        self._folder, self._kind, self._labels, self._order = folder, kind, labels, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, place: int) -> Item:
        """(N, D) features and (T,) labels of a bag."""
        name = self._order[place]
        path = self._folder / f"{name}.{self._kind}"
        return read_features(path), torch.tensor(self._labels[name])


def read_features(path: Path) -> torch.Tensor:
    """(N, D) float32 features of a bag's file."""
    if path.suffix == ".pt":
        features: torch.Tensor = torch.load(path, weights_only=True)
        return features
    with h5py.File(path) as file:
        return torch.from_numpy(file["features"][:])


class PublishedNetwork(nn.Module):
    """CRANE's network for three binary tasks, big, with the published names of weights."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()

        def drop() -> list[nn.Module]:
            return [nn.Dropout(dropout)] if dropout else []

        embedding = (nn.Linear(dim, 512), nn.ReLU(), *drop(), nn.Linear(512, 512), nn.ReLU())
        branches = {
            "attention_a": nn.Sequential(nn.Linear(512, 384), nn.Tanh(), *drop()),
            "attention_b": nn.Sequential(nn.Linear(512, 384), nn.Sigmoid(), *drop()),
            "attention_c": nn.Linear(384, 3),
        }
        self.attention_net = nn.Sequential(*embedding, *drop(), nn.ModuleDict(branches))
        for task in (1, 2, 3):
            self.add_module(f"classifier_{task}", nn.Linear(512, 2))

    def forward(self, features_ND: torch.Tensor) -> list[torch.Tensor]:
        """(1, 2) logits of each task."""
        *layers, branches = self.attention_net
        assert isinstance(branches, nn.ModuleDict)
        hidden_NE = features_ND
        for layer in layers:
            hidden_NE = layer(hidden_NE)
        gated_NA = branches["attention_a"](hidden_NE) * branches["attention_b"](hidden_NE)
        scores_NH = branches["attention_c"](gated_NA)
        attention_HN = functional.softmax(scores_NH.t(), dim=1)
        pooled_HE = attention_HN @ hidden_NE
        return [
            self.get_submodule(f"classifier_{task + 1}")(pooled_HE[task : task + 1])
            for task in range(3)
        ]


def train_epoch(
    network: PublishedNetwork, optimizer: torch.optim.Optimizer, bags: BagFiles, device: str = "cpu"
) -> float:
    """One epoch in the dataset's order; the mean loss."""
    network.train()
    total, wrong = 0.0, [0, 0, 0]
    loader = DataLoader(bags, batch_size=1, collate_fn=_collate)
    for features, labels in loader:
        features_ND, labels_T = features.to(device), labels.to(device)
        logits = network(features_ND)
        for task, logits_1C in enumerate(logits):
            functional.softmax(logits_1C, dim=1)
            guess = int(torch.argmax(logits_1C, dim=1).item())
            wrong[task] += guess != int(labels_T[task].item())
        losses = [
            functional.cross_entropy(logits_1C, labels_T[task : task + 1])
            for task, logits_1C in enumerate(logits)
        ]
        loss = (losses[0] + losses[1] + losses[2]) / 3
        total += loss.item()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    return total / len(bags)


def _collate(items: list[Item]) -> Item:
    features = torch.cat([features_ND for features_ND, _ in items])
    return features, torch.cat([labels_T for _, labels_T in items])
