"""What to install for a module that is not there."""

from __future__ import annotations

import re
from collections import Counter

_PACKAGE = "tsmerge-export"
#: Modules whose distribution has another name.
_DISTRIBUTIONS = {"chronos": "chronos-forecasting", "tensorrt_rtx": "tensorrt-rtx-cu13"}
_REQUIREMENT = re.compile(r"([\w.-]+).*?extra == ['\"]([\w-]+)['\"]")


def how_to_install(module: str) -> str:
    """One line without a subject: the command that brings a module.

    Args:
        module: its name, as an import gives it; of ``a.b`` the first part counts.

    Returns:
        ``torch is not installed; pip install 'tsmerge-export[export]'``: by the smallest extra of this package that
        asks for it, else by its own name.
    """
    name = module.partition(".")[0]
    wanted = _DISTRIBUTIONS.get(name, name.replace("_", "-"))
    extra = _extras().get(wanted.lower())
    what = wanted if extra is None else f"'{_PACKAGE}[{extra}]'"
    return f"{name} is not installed; pip install {what}"


def _extras() -> dict[str, str]:
    """Distribution -> the smallest extra that asks for it; none where this package runs from its source tree."""
    from importlib.metadata import PackageNotFoundError, requires  # slow to import, and mostly all is there

    try:
        found = requires(_PACKAGE) or []
    except PackageNotFoundError:
        return {}
    asked = [match.groups() for match in map(_REQUIREMENT.match, found) if match is not None]
    size = Counter(extra for _, extra in asked)
    asked.sort(key=lambda pair: -size[pair[1]])
    return {name.replace("_", "-").lower(): extra for name, extra in asked}
