"""Kinds of layer part, one folder each: the paper (numpy), the passes (kernels), the graph (ONNX)."""
