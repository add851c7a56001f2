"""The embedded demonstration: a real application on real servers, with one row for each request."""
