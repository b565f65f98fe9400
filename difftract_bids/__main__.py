"""``python -m difftract_bids`` is ``difftract-bids``."""

from difftract_bids.cli.run import main

if __name__ == "__main__":
    raise SystemExit(main())
