"""Nets in a DataLoader's workers and under DistributedDataParallel."""

import pytest
import torch
import torch_processes as there
from torch.utils.data import DataLoader

import pymimic.torch as pt


@pytest.mark.parametrize("how", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_net_in_the_workers_of_a_loader(how):
    net = pt.MimicNet(there.INPUTS, there.HIDDEN, there.OUTPUTS, there.RANK)
    net(torch.ones(64, there.INPUTS))  # threads have started
    loader = DataLoader(there.Labelled(net), batch_size=2, num_workers=2, multiprocessing_context=how)
    for rows, logits in loader:
        assert torch.allclose(logits, net(rows), atol=1e-5)


@pytest.mark.slow
def test_two_processes_are_one_on_the_joined_batch(tmp_path):
    """Their masks too, by `origin`."""
    torch.multiprocessing.spawn(there.one_of_two, (str(tmp_path),), nprocs=2)
    net = pt.MimicNet(there.INPUTS, there.HIDDEN, there.OUTPUTS, there.RANK, dropout=0.5, seed=1)
    want = there.trained(net, net, slice(None)).state_dict()
    for rank in range(2):
        got = torch.load(tmp_path / f"{rank}.pt")
        assert all(torch.allclose(got[name], want[name], rtol=1e-4, atol=1e-5) for name in want)
        assert (tmp_path / f"{rank}.txt").read_text().startswith("fused_optimizer: expected a net outside of DistributedDataParallel")
