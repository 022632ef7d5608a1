"""Scores and suites: what a model, a profile or a conversation is worth; what is measured never imports them."""
