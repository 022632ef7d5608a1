"""Measures of whole conversations: what is written, in processes as a person starts them."""
