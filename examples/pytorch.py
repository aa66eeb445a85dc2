"""Plain PyTorch: loads the weights of a module from a checkpoint.

    python examples/pytorch.py                                # creates a checkpoint and loads it
    python examples/pytorch.py s3://bucket/model.safetensors --device cuda:1

How it works: `skip_init` creates the module without initialising its parameters, which saves the
time and memory for values that would be overwritten. `load_file` loads the checkpoint's tensors to
the device, and `load_state_dict(assign=True)` makes them the module's parameters without a copy.

After `skip_init`, buffers that a state dict does not contain (`persistent=False`) are
uninitialised, too. A module with such buffers has to compute them after loading; `load` raises an
error for it. `transformers_from_pretrained.py` handles such buffers.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import ringload
import torch
from torch import nn


class Classifier(nn.Module):
    """Two linear layers and a norm, which compute `classes` scores from `inputs` features."""

    def __init__(
        self,
        inputs: int = 64,
        hidden: int = 256,
        classes: int = 10,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden, device=device)
        self.norm = nn.BatchNorm1d(hidden, device=device)
        self.second = nn.Linear(hidden, classes, device=device)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Returns the scores `[batch, classes]` of features `[batch, inputs]`."""
        scores: torch.Tensor = self.second(torch.relu(self.norm(self.first(features))))
        return scores


def load(location: str, device: str = "cpu") -> Classifier:
    """Loads the classifier whose state dict is at `location` to `device`.

    Raises:
        ringload.Error: the checkpoint could not be loaded; the message says why.
        RuntimeError: the checkpoint lacks tensors of the classifier, or has other tensors.
    """
    model = nn.utils.skip_init(Classifier)
    state_dict = ringload.load_file(location, device=device)
    model.load_state_dict(state_dict, assign=True)
    transient = [name for name, _ in model.named_buffers() if name not in state_dict]
    if transient:
        raise RuntimeError(f"the checkpoint lacks the buffers {', '.join(transient)}")
    return model.eval()


def main() -> None:
    """Loads a classifier and classifies two inputs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("location", nargs="?", help="path or URI; by default a new checkpoint")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        location = arguments.location or make_checkpoint(Path(folder) / "model.safetensors")
        model = load(location, arguments.device)
        features = torch.ones(2, model.first.in_features, device=arguments.device)
        print(model(features).argmax(dim=1).tolist())


def make_checkpoint(path: Path) -> str:
    """Writes the state dict of a new classifier to `path`."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(Classifier().state_dict(), path)
    return str(path)


if __name__ == "__main__":
    main()
