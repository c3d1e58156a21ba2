"""Entry point of ``python -m crs_sim``, the same as ``crs-sim``."""

from .cli import main

if __name__ == "__main__":
    main()
