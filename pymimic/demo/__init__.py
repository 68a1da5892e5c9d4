"""The main job from end to end, on data that needs no download or on Letter and MNIST."""

from .measure import Model
from .run import Result, run_demo

__all__ = ["Model", "Result", "run_demo"]
