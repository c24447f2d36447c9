"""`python -m jaxfp TASK`: see `jaxfp.cli`."""

import sys

from jaxfp.cli import main

if __name__ == "__main__":
    sys.exit(main())
