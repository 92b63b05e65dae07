"""Import of networks that others have trained: a graph is looked at, tried out, and written as a bundle."""
