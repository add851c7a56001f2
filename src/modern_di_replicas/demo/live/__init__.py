"""The live page of `demo --serve`: the servers, their faults, and the results of the requests."""
