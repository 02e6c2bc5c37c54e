"""`python -m robust_transfer <stage> …`: run one stage of the experiment."""

import sys

from robust_transfer.cli import main

sys.exit(main())
