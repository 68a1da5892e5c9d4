"""CIFAR-10: the reader of the publisher's files, crops, nets of torch with a front, and the experiment on blobs."""

import csv
import os
from dataclasses import replace

import numpy as np
import pytest

from pymimic import FileFormatError, TransferSet
from pymimic.data.cases import LabelledSet
from pymimic.demo.datasets import Dataset, Rows
from pymimic.demo.students import Training
from pymimic.paper import cifar10, cifar10_images, run, run_paper
from pymimic.paper.cifar10_images import SHAPE
from pymimic.paper.crop import Crop
from pymimic.paper.teachers import Kept

FILES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
FEW = 20  # records in each file
SHALLOW = {"filters": 8, "kernel": 6, "stride": 2, "pool": 2, "rank": 5, "hidden": 20, "dropout": 0.1, "seed": 3}


def blobs(rows=40):
    """Images of ten colours."""
    rng = np.random.default_rng(0)
    centres = rng.random((10, 3, 1, 1), np.float32)

    def part(count):
        labels = rng.permutation(np.arange(count) % 10)
        noise = 0.02 * rng.standard_normal((count, *SHAPE), np.float32)
        return Rows(np.clip(centres[labels] + noise, 0, 1).reshape(count, -1), labels)

    return Dataset("cifar10", 10, part(rows), part(rows), part(rows), part(rows))


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.setattr(cifar10_images, "_RECORDS", FEW)
        monkeypatch.setattr(cifar10_images, "_VALIDATION", 30)
        rng = np.random.default_rng(0)
        inner = tmp_path / "cifar-10-batches-bin"
        inner.mkdir()
        for name in FILES:
            records = rng.integers(0, 256, (FEW, 3073), np.uint8)
            records[:, 0] %= 10
            records.tofile(inner / name)
        return tmp_path

    def test_rows_are_bytes_over_255_in_the_files_order(self, folder):
        data = cifar10_images.cifar10(folder, 50)
        records = np.concatenate([np.fromfile(folder / "cifar-10-batches-bin" / name, np.uint8).reshape(FEW, 3073) for name in FILES])
        assert [len(part.x) for part in (data.train, data.unlabelled, data.validation, data.test)] == [50, 20, 30, FEW]
        together = [np.concatenate(arrays) for arrays in zip(data.train, data.unlabelled, data.validation, data.test)]
        assert np.array_equal(np.rint(together[0] * 255), records[:, 1:])
        assert np.array_equal(together[1], records[:, 0])
        assert (data.inputs, data.outputs, data.train.x.dtype) == (3072, 10, np.float32)

    def test_the_inner_folder_does_as_well(self, folder):
        whole, inner = (cifar10_images.cifar10(path, 50) for path in (folder, folder / "cifar-10-batches-bin"))
        assert np.array_equal(whole.train.x, inner.train.x)

    @pytest.mark.parametrize(
        ("change", "got"), [(lambda b: b[:-1], "61,459 bytes"), (lambda b: b + b"0", "more"), (lambda b: b"", "0 bytes")]
    )
    def test_a_file_of_another_length_is_refused(self, folder, change, got):
        path = folder / "cifar-10-batches-bin" / "data_batch_3.bin"
        path.write_bytes(change(path.read_bytes()))
        with pytest.raises(FileFormatError, match=rf"path: .*data_batch_3\.bin.*: expected 20 records of 3,073 bytes, got {got}"):
            cifar10_images.cifar10(folder, 50)

    def test_a_class_beyond_nine_is_refused(self, folder):
        path = folder / "cifar-10-batches-bin" / "test_batch.bin"
        content = bytearray(path.read_bytes())
        content[7 * 3073] = 11
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=r"test_batch\.bin.*: expected classes in \[0, 9\], got 11 in record 7"):
            cifar10_images.cifar10(folder, 50)

    def test_what_is_missing_is_named(self, folder):
        with pytest.raises(ValueError, match="path: expected the folder with cifar10's files, got none"):
            cifar10_images.cifar10(None, 50)
        with pytest.raises(FileNotFoundError, match="path: expected the folder with cifar10's files, got no folder"):
            cifar10_images.cifar10(folder / "none", 50)
        with pytest.raises(ValueError, match=r"labelled: expected an int in \[1, 71\)"):
            cifar10_images.cifar10(folder, 71)
        os.remove(folder / "cifar-10-batches-bin" / "data_batch_2.bin")
        with pytest.raises(FileNotFoundError, match="data_batch_2"):
            cifar10_images.cifar10(folder, 50)


class TestCrop:
    images = np.random.default_rng(0).random((30, 3072), np.float32)

    def test_pieces_of_the_mirrored_image(self):
        new = Crop(shift=2, flip=False)(self.images, np.random.default_rng(1)).reshape(-1, *SHAPE)
        padded = np.pad(self.images.reshape(-1, *SHAPE), ((0, 0), (0, 0), (2, 2), (2, 2)), "reflect")
        places = [
            next((i, j) for i in range(5) for j in range(5) if np.array_equal(image[:, i : i + 32, j : j + 32], piece))
            for image, piece in zip(padded, new)
        ]
        assert len(set(places)) > 10

    def test_half_are_turned_left_to_right(self):
        images = self.images.reshape(-1, *SHAPE)
        new = Crop(shift=0)(self.images, np.random.default_rng(1)).reshape(-1, *SHAPE)
        turned = [np.array_equal(a[:, :, ::-1], b) for a, b in zip(images, new)]
        assert all(was or np.array_equal(a, b) for was, a, b in zip(turned, images, new))
        assert 5 < sum(turned) < 25

    def test_mixtures_lie_between_an_image_and_the_one_before(self):
        new = Crop(shift=0, flip=False, mixup=0.5)(self.images, np.random.default_rng(1))
        before = np.roll(self.images, 1, axis=0)
        parts = ((new - self.images) * (before - self.images)).sum(1) / np.square(before - self.images).sum(1)
        assert np.allclose(new, self.images + parts[:, None] * (before - self.images), atol=1e-6)
        assert 5 < np.count_nonzero(parts > 1e-6) < 25
        assert parts.max() < 1

    def test_wrong_arguments(self):
        with pytest.raises(ValueError, match=r"shift: expected an int in \[0, 32\)"):
            Crop(shift=32)
        with pytest.raises(ValueError, match="mixup: expected"):
            Crop(mixup=1.1)
        with pytest.raises(ValueError, match="x: expected"):
            Crop()(np.zeros((2, 784), np.float32), np.random.default_rng(0))


def test_without_torch_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(ImportError, match=r"paper: expected torch to be there.*pip install torch"):
        run_paper("cifar10", tmp_path / "new", tmp_path)
    assert not (tmp_path / "new").exists()


class TestNets:
    """Of torch."""

    @pytest.fixture(autouse=True)
    def _torch(self):
        pytest.importorskip("torch")

    def deep(self):
        from pymimic.paper.torch_net import TorchNet

        return TorchNet("deep", SHAPE, 10, widths=[4, 4, 6, 8], stride=2, dropout=0.3)

    def shallow(self, **changes):
        from pymimic.paper.torch_net import TorchNet

        return TorchNet("shallow", SHAPE, 10, **(SHALLOW | changes))

    @pytest.mark.parametrize("kind", ["deep", "shallow"])
    def test_a_trained_net_comes_back_from_its_file(self, kind, tmp_path):
        data, net = blobs(), getattr(self, kind)()
        net.fit(LabelledSet(*data.train, 10), Training("cross_entropy", 1e-2, 2, 16), 1)
        net.save(tmp_path / "net.safetensors")
        again = type(net).load(tmp_path / "net.safetensors")
        assert np.array_equal(net.logits(data.test.x), again.logits(data.test.x))
        assert net.describe() == again.describe()
        fresh = getattr(self, kind)()
        assert not np.array_equal(fresh.logits(data.test.x), again.logits(data.test.x))

    def test_sizes_are_counted_by_hand(self):
        net, pixels = self.shallow(), self.shallow(filters=0)
        features = 8 * 7 * 7
        filters, places = 8 * 3 * 6 * 6, 14 * 14
        rest = 5 * features + 20 * 5 + 20 * 10
        assert net.multiply_adds == filters * places + rest
        assert net.parameter_count == filters + 8 + rest + 20 + 10 + 6  # and the standardisation
        assert pixels.multiply_adds == 5 * 3072 + 20 * 5 + 20 * 10

    @pytest.mark.parametrize("loss", ["cross_entropy", "mimic", "distillation"])
    def test_the_shallow_net_learns_from_labels_and_from_logits(self, loss):
        data = blobs(100)
        logits = 8 * np.eye(10, dtype=np.float32)[data.train.labels]
        cases = LabelledSet(*data.train, 10) if loss == "cross_entropy" else TransferSet(data.train.x, logits)
        net = self.shallow(dropout=0.0, hidden=64)
        net.fit(cases, Training(loss, 1e-2, 12, 20, temperature=3.0, augment=Crop()), 1)
        assert net.score(*data.test) > 0.8

    def test_runs_repeat(self):
        data, made = blobs(), [self.shallow(), self.shallow()]
        for net in made:
            net.fit(LabelledSet(*data.train, 10), Training("cross_entropy", 1e-2, 2, 16, augment=Crop()), 1)
        assert np.array_equal(*(net.logits(data.test.x) for net in made))

    def test_a_net_begins_with_filters_in_pairs_and_whitened_inputs(self):
        import torch

        from pymimic.paper import torch_layers

        net = self.shallow().module
        x = np.random.default_rng(0).random((300, 3072), np.float32)
        torch_layers.begin(net, x, 0)
        with torch.no_grad():
            images, features = net[:2](torch.from_numpy(x)), net[:-1](torch.from_numpy(x))
            z = features @ net[-1].V.T
            hidden = z @ net[-1].U.T + net[-1].b
        assert images.mean((0, 2, 3)).abs().max() < 1e-4
        assert (images.std((0, 2, 3)) - 1).abs().max() < 1e-4
        assert torch.equal(net[2].weight[:4], -net[2].weight[4:])
        assert hidden.mean(0).abs().max() < 1e-3
        covariance = torch.cov(z.T)
        assert (covariance - torch.diag(torch.diag(covariance))).abs().max() < 0.05
        assert 0 < torch.diag(covariance).min() <= torch.diag(covariance).max() < 1

    def test_a_file_of_other_layers_is_refused(self, tmp_path):
        net = self.shallow()
        net.settings["rank"] = 6  # which the weights do not have
        net.save(tmp_path / "net.safetensors")
        with pytest.raises(FileFormatError, match=r"net\.safetensors.*expected a torch-net's configuration and weights"):
            type(net).load(tmp_path / "net.safetensors")

    def test_teachers_are_kept_net_by_net(self, tmp_path, monkeypatch):
        data = blobs()
        recipe = Kept(cifar10.ConvnetsOfTorch((4, 4, 4, 4), 2, Training("cross_entropy", 1e-2, 1, 20), 3), tmp_path)
        fit, made = cifar10.ConvnetsOfTorch.fit_one, []

        def stop_at_the_third(self, *arguments):
            if len(made) == 2:
                raise KeyboardInterrupt
            made.append(1)
            return fit(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(cifar10.ConvnetsOfTorch, "fit_one", stop_at_the_third)
            with pytest.raises(KeyboardInterrupt):
                recipe(data, data.train, 5)
        kept = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        assert len(kept) == 2
        fitted = recipe(data, data.train, 5)
        assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
        each = [net.logits(data.test.x) for net in fitted.teacher.members]
        assert len({logits.tobytes() for logits in each}) == len(each) == 3
        assert np.allclose(fitted.teacher.logits(data.test.x), np.mean(each, axis=0), atol=1e-5)

    @pytest.mark.parametrize("kind", [cifar10.CIFAR10, pytest.param(cifar10.CIFAR10Full, marks=pytest.mark.slow)])
    def test_the_experiment_runs_to_its_end(self, kind, tmp_path, monkeypatch):
        monkeypatch.setattr(run, "_EXPERIMENTS", (kind,))
        monkeypatch.setattr(kind, "devices", ("cpu",))
        monkeypatch.setattr(kind, "data", lambda self, seed: blobs())
        monkeypatch.setattr(cifar10, "_FAST", replace(cifar10._FAST, images=80))
        page = run_paper("cifar10", tmp_path, fast=True).read_text()
        with (tmp_path / f"{kind.name}-fast.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        assert [line["part"] for line in lines] == ["teacher", "teachers", *["with a convolution"] * 4, *["without convolution"] * 4]
        assert all(0 <= float(line["test_accuracy"]) <= 1 for line in lines)
        assert [line["rows"] for line in lines[2:6]] == ["40", "40", "80", "80"]
        assert kind.title in page


def test_the_full_experiment_is_for_a_gpu_alone(tmp_path):
    small, full = (kind(tmp_path, False, "cpu", None) for kind in (cifar10.CIFAR10, cifar10.CIFAR10Full))
    assert (small.devices, full.devices) == (("cpu",), ("cuda",))
    assert (full.scale.rank, full.scale.hidden, full.scale.front["filters"]) == (1200, 30_000, 128)
    assert small.open().path != full.open().path
