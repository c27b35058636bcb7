"""``python -m tsmerge_export`` is ``tsmerge``: the same commands where the scripts are not on the path."""

from __future__ import annotations

import sys

from tsmerge_export.cli import main

if __name__ == "__main__":
    sys.exit(main())
