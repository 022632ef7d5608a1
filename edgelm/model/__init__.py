"""What the model is: its weights, its equations, where models are found."""
