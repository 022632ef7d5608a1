"""Inference: sessions, sampling, generation."""
