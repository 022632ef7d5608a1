"""A feed-forward part whose neuron blocks are chosen by a router."""
