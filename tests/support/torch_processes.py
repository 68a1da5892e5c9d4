"""What tests of torch run in other processes, which import this module."""

import os

import torch
from torch import nn
from torch.utils.data import Dataset

import pymimic.torch as pt

ROWS, INPUTS, HIDDEN, OUTPUTS, RANK, STEPS = 16, 6, 40, 3, 4, 3


class Labelled(Dataset):
    """Rows, and what a net in a worker says of them."""

    def __init__(self, net):
        self.net = net

    def __len__(self):
        return 8

    def __getitem__(self, index):
        row = torch.full((INPUTS,), float(index))
        with torch.no_grad():
            return row, self.net(row)


def batch(step):
    """x and t of both processes."""
    draw = torch.Generator().manual_seed(step)
    return torch.randn(2 * ROWS, INPUTS, generator=draw), torch.randn(2 * ROWS, OUTPUTS, generator=draw)


def trained(net, module, rows):
    """The net after some steps on a part of each batch, by the module that wraps it."""
    optimizer, loss = torch.optim.AdamW(net.parameters(), lr=1e-2), pt.MimicLoss()
    for step in range(STEPS):
        x, t = batch(step)
        optimizer.zero_grad()
        loss(module(x[rows]), t[rows]).backward()
        optimizer.step()
    return net


def one_of_two(rank, folder):
    """One process of `DistributedDataParallel`; the first one writes its net to the folder."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    net = pt.MimicNet(INPUTS, HIDDEN, OUTPUTS, RANK, dropout=0.5, seed=1, origin=(rank * ROWS, 0))
    trained(net, nn.parallel.DistributedDataParallel(net), slice(rank * ROWS, (rank + 1) * ROWS))
    torch.save(net.state_dict(), f"{folder}/{rank}.pt")
    other = pt.MimicNet(INPUTS, HIDDEN, OUTPUTS, RANK)
    other.fused_optimizer()
    try:
        nn.parallel.DistributedDataParallel(other)(batch(0)[0])
    except RuntimeError as error:
        with open(f"{folder}/{rank}.txt", "w") as file:
            file.write(str(error))
    torch.distributed.destroy_process_group()
