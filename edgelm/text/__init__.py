"""What is read and written: tokens, conversations, secrets."""
