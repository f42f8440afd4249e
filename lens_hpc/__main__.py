"""`python -m lens_hpc VERB ...` is `lens-hpc VERB ...`, as `accelerate launch` starts it."""

import sys

from lens_hpc.cli import main

if __name__ == "__main__":
    sys.exit(main())
