"""ONNX's side of the library: nets written as ONNX models, and ONNX models as teachers. The extra `onnx` brings what it needs.

Neither onnx nor onnxruntime is imported before one of the functions is called.
"""

from .exporter import export
from .session import teacher

__all__ = ["export", "teacher"]
