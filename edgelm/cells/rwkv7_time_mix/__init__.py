"""RWKV-7's time mix: a matrix memory a head that decays by channel and removes what it replaces."""
