"""RWKV-7's channel mix: a feed-forward part with squared ReLU, of whose neurons few are awake for a token."""
