"""Plain PyTorch: a module without weights of its own, and a checkpoint that becomes them.

    python examples/pytorch.py                                # with a checkpoint that it makes
    python examples/pytorch.py s3://bucket/model.safetensors --device cuda:1

How it works: `skip_init` makes the module without initialising its parameters, so no time and no
memory go into values that are thrown away. `load_file` brings the checkpoint's tensors to the
device, and `load_state_dict(assign=True)` makes them the module's parameters: they are not copied.

Buffers that a state dict does not hold (`persistent=False`) are as uninitialised as the rest after
`skip_init`: a module that has some needs a way to make them anew, and `load` refuses it.
`transformers_from_pretrained.py` shows one.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import ringload
import torch
from torch import nn


class Classifier(nn.Module):
    """Two layers and a norm: of `inputs` features, `classes` scores."""

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
        """Scores `[batch, classes]` of features `[batch, inputs]`."""
        scores: torch.Tensor = self.second(torch.relu(self.norm(self.first(features))))
        return scores


def load(location: str, device: str = "cpu") -> Classifier:
    """The classifier whose state dict is at `location`, on `device`.

    Raises:
        ringload.Error: the checkpoint could not be loaded; the text says why.
        RuntimeError: its tensors are not those of the classifier, or are not all.
    """
    model = nn.utils.skip_init(Classifier)
    state_dict = ringload.load_file(location, device=device)
    model.load_state_dict(state_dict, assign=True)
    transient = [name for name, _ in model.named_buffers() if name not in state_dict]
    if transient:
        raise RuntimeError(f"{', '.join(transient)}: buffers that no state dict holds")
    return model.eval()


def main() -> None:
    """Loads a classifier, and classifies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("location", nargs="?", help="path or URI; without it, one is made")
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
