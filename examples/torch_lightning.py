"""A mimic in Lightning's `Trainer`, which has the loop, the checkpoints and the schedule. The teacher is a forest."""

import logging

import lightning
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset

import pymimic as pm
import pymimic.torch as pt

EPOCHS = 10


class Mimic(lightning.LightningModule):
    """A student that learns logits."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.loss = pt.MimicNet(64, 1024, 10, rank=32), pt.MimicLoss()

    def training_step(self, batch, index):
        rows, logits = batch
        return self.loss(self.net(rows), logits)

    def configure_optimizers(self):
        optimizer = self.net.fused_optimizer("adamw", lr=5e-3)  # or any of torch.optim
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)]


logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
lightning.seed_everything(0, verbose=False)
pixels, labels = load_digits(return_X_y=True)
x, x_test, labels, labels_test = train_test_split((pixels / 16 - 0.3).astype(np.float32), labels, random_state=0)
teacher = pm.from_sklearn(RandomForestClassifier(300, random_state=0).fit(x, labels))
more = np.concatenate([x, *pm.gaussian_noise(x, copies=4, sigma=0.1, seed=0)])
cases = DataLoader(TensorDataset(torch.from_numpy(more), torch.from_numpy(pm.label(teacher, more))), batch_size=128, shuffle=True)

module = Mimic()
quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
lightning.Trainer(accelerator="cpu", max_epochs=EPOCHS, **quiet).fit(module, cases)
student = module.net.eval().to_student()
print(f"teacher accuracy: {np.mean(teacher.logits(x_test).argmax(1) == labels_test):.4f}")
print(f"student accuracy: {student.score(x_test, labels_test):.4f}")
