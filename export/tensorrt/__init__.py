"""From a bundle's ONNX graphs to TensorRT plans, for both products."""

from cellscribe.export.tensorrt.build import BuildReport, build_plans

__all__ = ["BuildReport", "build_plans"]
