"""What changes the weights: the model that answers is the model that learns."""
