"""What recalls words: counts and sentences, corrected answers, word vectors, statements, and a bank of exchanges."""
