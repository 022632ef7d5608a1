"""The model in PyTorch: the peer of decoding and learning, and what ``tools/pretrain`` trains."""
