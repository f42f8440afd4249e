"""`python -m lens_hpc VERB ...` is `lens-hpc VERB ...`: what `accelerate launch -m lens_hpc` starts."""

import sys

from lens_hpc.cli import main

if __name__ == "__main__":
    sys.exit(main())
