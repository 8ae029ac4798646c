"""`python -m gangline`."""

from __future__ import annotations

import sys

from gangline.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
