"""The embedded demonstration: a real application over real servers, with what happened shown row by row."""
