"""uv, set up as pip is: mirrors, folders of wheels and certificates that pip was told of hold for ``make`` too.

uv reads neither pip's files nor its variables. ``python requirements/uv_as_pip.py UV COMMAND...`` asks pip for what
they say (``pip config list``) and runs uv with the same in uv's own variables; one that is already set is left alone. A
proxy in the usual variables (``HTTPS_PROXY``) needs no help.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping

#: pip's option to uv's variable. Both separate several values by spaces.
VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "no-index": "UV_NO_INDEX",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}
#: The sections that an install reads, weakest first: pip's own order.
SECTIONS = ("global", "install", ":env:")


def variables(listing: str) -> dict[str, str]:
    """uv's variables for what ``pip config list`` printed, lines of ``section.option='value'``."""
    said: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listing.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in said and option in VARIABLES and value:
            said[section][VARIABLES[option]] = " ".join(ast.literal_eval(value).split())
    found: dict[str, str] = {}
    for section in SECTIONS:
        found |= said[section]
    # As pip does: from all places, not the first that has the name. What is installed is locked by hash.
    return {"UV_INDEX_STRATEGY": "unsafe-best-match", **found}


def environment(listing: str, given: Mapping[str, str]) -> dict[str, str]:
    """*given* (the variables of this process) and what *listing* adds to it."""
    return {**variables(listing), **given}


def main(command: list[str]) -> int:
    """Run *command* (uv and its arguments); its exit code."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    listing = subprocess.run(pip, check=True, capture_output=True, text=True).stdout
    return subprocess.run(command, check=False, env=environment(listing, os.environ)).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
