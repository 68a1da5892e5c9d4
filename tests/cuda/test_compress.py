"""`compress` of a student on a device: the work of the host, given back where the student was."""

import numpy as np
import pytest
from small_students import inputs, rows_and_logits, same, trained

from pymimic import Predictor, compress


@pytest.mark.parametrize("bits", [8, 4])
def test_it_stays_where_it_was_with_the_bits_of_the_host(device, tmp_path, bits):
    student = trained(hidden=40)
    cases = rows_and_logits(student, 100)
    wanted = compress(student, bits=bits, prune=0.5, transfer=cases, epochs=0, progress=False)
    made = compress(student.to("cuda"), bits=bits, prune=0.5, transfer=cases, epochs=0, progress=False)
    assert (student.device, made.device, made.bits) == ("cuda", "cuda", bits)
    np.testing.assert_allclose(made.predict(inputs(9, 11)), wanted.predict(inputs(9, 11)), atol=0.05)  # the fit's target is the device's
    plain = compress(student.to("cpu"), bits=bits)
    on_device = compress(student.to("cuda"), bits=bits)
    on_device.save(tmp_path / "s")
    assert same(on_device.to("cpu"), plain)
    assert on_device.bits == bits
    assert same(type(plain).load(tmp_path / "s"), plain)


def test_it_is_trained_where_it_is_said(device):
    student = trained(hidden=20).to("cuda")
    made = compress(student, prune=0.5, transfer=rows_and_logits(student.to("cpu"), 40), epochs=1, device="cuda", progress=False)
    assert made.device == "cpu"
    assert np.isfinite(made.predict(inputs(3, 11))).all()


def test_integers_of_4_bits_are_served_as_they_are(device):
    small = compress(trained(hidden=90), bits=4)
    x = inputs(9, 11)
    expected = Predictor(small, "int8").predict(x)
    y = Predictor(small.to("cuda"), "int8").predict(device.xp.asarray(x)).get()
    np.testing.assert_allclose(y, expected, rtol=0, atol=2e-4 * np.abs(expected).max())
