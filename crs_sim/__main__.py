"""``python -m crs_sim`` is ``crs-sim``."""

from .cli import main

if __name__ == "__main__":
    main()
