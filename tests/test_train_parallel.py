"""Two processes train as one on the same global batches (gloo)."""

from __future__ import annotations

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import TensorDataset
from train_models import network, points, squares

import hybridsam_bridge as hsb

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch was built without gloo")


def failing_on(rank, at):
    """A loss that fails in one process only, at its call number ``at``."""
    calls = 0

    def loss(model, batch):
        nonlocal calls
        calls += 1
        if calls == at and (not torch.distributed.is_initialized() or torch.distributed.get_rank() == rank):
            raise hsb.SolveFailed("Broken.", status=hsb.Status.MAX_STEPS, sample=(), time=0.0, hint="")
        return squares(model, batch)

    return loss


def train(model, folder, fail):
    opt = hsb.SAM(torch.optim.Adam(model.parameters(), lr=1e-2), rho=0.1)
    loss = failing_on(1, 4) if fail else squares
    t = hsb.Trainer(model, opt, loss, run_folder=folder, progress=False)
    # 13 samples in batches of 6: shares of 3 + 3, 3 + 3, and a last batch of one sample for two processes
    return t.fit(TensorDataset(*points(13)), epochs=2, batch_size=6)


def worker(rank, folder, fail):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    model = network(dropout=0.0)
    result = train(DistributedDataParallel(model), f"{folder}/run", fail)
    torch.save({"weights": model.state_dict(), "skipped": result.skipped}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("fail", [False, True])
def test_two_processes_equal_one(tmp_path, fail):
    torch.multiprocessing.start_processes(worker, args=(str(tmp_path), fail), nprocs=2, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    model = network(dropout=0.0)
    result = train(model, tmp_path / "alone", fail)
    assert first["skipped"] == second["skipped"] == result.skipped == int(fail)
    for key, value in model.state_dict().items():
        assert torch.equal(first["weights"][key], second["weights"][key]), key
        # Sums in another order differ in the last bits, which Adam's first steps (g / |g|) may amplify.
        torch.testing.assert_close(first["weights"][key], value, rtol=1e-9, atol=1e-11)
    assert (tmp_path / "run" / "last.safetensors").exists()
