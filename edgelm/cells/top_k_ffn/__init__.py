"""A feed-forward part of neuron blocks, of which every token wakes the same number."""
