"""Thin torch modules: differentiable in eager mode, and traceable into standard ONNX operators."""
