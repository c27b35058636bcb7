"""The one exception of the recipes that is shown to the user without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """A mistake of the user: one line that names the flag or file and says what to do."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code
