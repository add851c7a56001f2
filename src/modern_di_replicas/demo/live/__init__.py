"""The live page of `demo --serve`: the servers, what is done to them, and what becomes of the requests."""
