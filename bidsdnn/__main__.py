"""``python -m bidsdnn`` is ``bidsdnn``."""

import sys

from bidsdnn.cli import main

if __name__ == "__main__":
    sys.exit(main())
