"""`python -m jaxexec.cli`."""

import sys

from jaxexec.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
