"""The tokens of clients: how HTTP carries them, and which of them are believed."""
