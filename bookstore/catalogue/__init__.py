"""The books: what they are, how they are found, and how they come in."""
