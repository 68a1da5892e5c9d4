"""A mimic in a loop of torch: a teacher that torch trained, a `DataLoader`, a scheduler, the optimizer inside the backward pass.

The teacher is a convolutional net. It labels the training rows and noisy copies of them. The student learns the logits, and its state loads
into a net of plain torch layers.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pymimic as pm
import pymimic.torch as pt

torch.manual_seed(0)
pixels, labels = load_digits(return_X_y=True)
x, x_test, labels, labels_test = train_test_split((pixels / 16 - 0.3).astype(np.float32), labels, random_state=0)

net = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(576, 10))
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
for _ in range(8):
    for rows, answers in DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(labels)), batch_size=64, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(rows), answers).backward()
        optimizer.step()

teacher = pt.teacher(net)  # asked in evaluation mode, whatever mode the net is in
more = np.concatenate([x, *pm.gaussian_noise(x, copies=4, sigma=0.1, seed=0)])
cases = TensorDataset(torch.from_numpy(more), torch.from_numpy(pm.label(teacher, more)))

student, loss, epochs = pt.MimicNet(64, 1024, 10, rank=32), pt.MimicLoss(), 5
optimizer = student.fused_optimizer("adamw", lr=5e-3)  # gradients of the wide layer are never stored
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
for epoch in range(epochs):
    for rows, logits in DataLoader(cases, batch_size=128, shuffle=True):
        optimizer.zero_grad()
        value = loss(student(rows), logits)
        value.backward()
        optimizer.step()
    scheduler.step()
    print(f"epoch {epoch + 1}: loss {value.item():.4f}")

said = student.eval().to_sequential()(torch.from_numpy(x_test)).argmax(1).numpy()
print(f"student accuracy: {np.mean(said == labels_test):.4f}")
print(f"agreement with the teacher: {np.mean(said == teacher.logits(x_test).argmax(1)):.4f}")
