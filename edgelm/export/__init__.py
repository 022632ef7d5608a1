"""The model as ONNX, and its weights as integers."""
