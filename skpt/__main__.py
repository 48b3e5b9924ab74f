"""``python -m skpt``."""

import sys

from skpt.cli import main

if __name__ == "__main__":
    sys.exit(main())
