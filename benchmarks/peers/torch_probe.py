"""The linear probe that most PyTorch repositories have: a layer, Adam, batches, epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

NAME = "PyTorch, `nn.Linear` and Adam, 100 epochs"
SETTINGS = (0.001, 0.01)
"""Learning rates."""
EPOCHS, BATCH = 100, 32


def fit(
    features: np.ndarray, labels: np.ndarray, setting: float
) -> Callable[[np.ndarray], np.ndarray]:
    """Fits a head. Returns the function that gives labels."""
    torch.manual_seed(0)
    model = nn.Linear(features.shape[1], int(labels.max()) + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=setting)
    inputs = nn.functional.normalize(torch.from_numpy(features))
    loader = DataLoader(TensorDataset(inputs, torch.from_numpy(labels)), BATCH, shuffle=True)
    for _ in range(EPOCHS):
        for batch, its in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch), its).backward()
            optimizer.step()

    def predict(shown: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            logits = model(nn.functional.normalize(torch.from_numpy(shown)))
        return logits.argmax(dim=1).numpy()

    return predict
