"""This library: a few rows with weights in int8; x, z and h to 16 bits, sums exact or in float32."""

from peers import pymimic

from pymimic import Predictor

TITLE, PRECISION, WEIGHT_BYTES, TOLERANCE = "pymimic, int8", "int8", 1, 0.03
versions = pymimic.versions


def forward(a):
    few = Predictor(pymimic.student_of(a), "int8")
    return lambda: few.predict(a["x"])
