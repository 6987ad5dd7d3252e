"""Networks and how they learn. Imports nothing else of this project."""
