"""What is durable: a profile, the entries of its log, its files, and a learned change as tensors."""
