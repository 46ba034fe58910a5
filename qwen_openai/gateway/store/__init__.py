"""One SQLite file with the keys and what they have used."""
