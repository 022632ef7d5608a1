"""Writes ONNX graphs: the file format, and how weights enter a graph."""
