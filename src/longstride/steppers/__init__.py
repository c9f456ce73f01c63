"""One trial step of each family of methods."""
