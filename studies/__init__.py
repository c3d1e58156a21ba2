"""Studies of the methods themselves, on synthetic patients; each writes what it found beside it."""
