"""`python -m recjax`, the same as the `recjax` command."""

import sys

from recjax.cli import main

sys.exit(main())
