"""A small regression whose training is quick and draws random numbers, for the trainer's tests."""

from __future__ import annotations

import multiprocessing

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import hybridsam_bridge as hsb

# Children of the fork server start with torch imported: a tenth of a second instead of several.
multiprocessing.set_forkserver_preload(["train_models"])
FORKSERVER = multiprocessing.get_context("forkserver")


def network(seed=0, dropout=0.2):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1)).double()


def points(count=20):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(count, 2, dtype=torch.float64, generator=generator)
    return x, (x[:, :1] * x[:, 1:]).sin()


def squares(model, batch):
    x, y = batch
    return ((model(x) - y) ** 2).mean()


DATA = {
    "one batch": lambda: (points(), {}),
    "dataset": lambda: (TensorDataset(*points()), {"batch_size": 6}),
    "loader": lambda: (DataLoader(TensorDataset(*points()), batch_size=6, shuffle=True), {}),
    "loader with a generator": lambda: (
        DataLoader(TensorDataset(*points()), batch_size=6, shuffle=True, generator=torch.Generator().manual_seed(5)),
        {},
    ),
}

OPTIMIZERS = {
    "Adam": lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
    "SGD": lambda model: torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9),
    "SAM": lambda model: hsb.SAM(torch.optim.Adam(model.parameters(), lr=1e-2), rho=0.05),
    "ASAM": lambda model: hsb.ASAM(torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9), rho=0.5),
    "LookSAM": lambda model: hsb.LookSAM(torch.optim.Adam(model.parameters(), lr=1e-2), rho=0.05, every=3),
}


def trainer(folder=None, optimizer="SAM", seed=0, **options):
    model = network(seed)
    opt = OPTIMIZERS[optimizer](model)
    options.setdefault("scheduler", torch.optim.lr_scheduler.ExponentialLR(opt, 0.97))
    return hsb.Trainer(model, opt, options.pop("loss_fn", squares), run_folder=folder, progress=False, **options)


def weights(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_same_bits(left, right):
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name
