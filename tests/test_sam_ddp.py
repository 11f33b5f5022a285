"""SAM under DistributedDataParallel: two processes step as one on the global batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import hybridsam_bridge as hsb

STEPS = 3


def _model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()


def _train(model, x):
    opt = hsb.SAM(torch.optim.Adam(model.parameters(), lr=1e-2), rho=0.2, clip_grad_norm=1.0)

    def closure():
        loss = (model(x) ** 2).mean()
        loss.backward()
        return loss

    for _ in range(STEPS):
        opt.step(closure)


def _data():
    return torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _worker(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    model = _model()
    _train(DistributedDataParallel(model), _data()[rank::2])
    torch.save(model.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch was built without gloo")
def test_two_processes_equal_one_on_the_global_batch(tmp_path):
    torch.multiprocessing.start_processes(_worker, args=(str(tmp_path),), nprocs=2, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    model = _model()
    _train(model, _data())
    for key, value in model.state_dict().items():
        assert torch.equal(first[key], second[key]), key
        # The mean over eight is the mean of two means over four, up to rounding, which Adam's first steps
        # (g / |g|) amplify where a gradient is small.
        torch.testing.assert_close(first[key], value, rtol=1e-9, atol=1e-12)
