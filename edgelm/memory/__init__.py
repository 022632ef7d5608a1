"""What is recalled by meaning: word vectors, statements of the person, a bank of exchanges, and how they answer."""
