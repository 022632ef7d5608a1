"""A stack of cells over a segment of tokens, forward and backward."""
