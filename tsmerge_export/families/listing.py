"""The families as a list: what ``tsmerge families`` prints, and the table of docs/families.md."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from tsmerge_export import families
from tsmerge_export.console.missing import how_to_install
from tsmerge_export.errors import TsmergeError
from tsmerge_export.families import plugins
from tsmerge_export.families.base import Card

HEADER = ("family", "components", "tokens", "merging", "runtimes", "not supported, and why")


@dataclass(frozen=True)
class Entry:
    """A family. ``package`` is ``built-in`` or the plug-in's distribution; ``error``, why it cannot be used."""

    name: str
    package: str
    card: Card | None
    error: str | None = None

    def to_dict(self) -> dict[str, object]:
        """JSON-ready."""
        out: dict[str, object] = {"name": self.name, "package": self.package, "error": self.error}
        if self.card is not None:
            card = asdict(self.card)
            names = ("name", "what")
            card["components"] = [dict(zip(names, pair, strict=True)) for pair in self.card.components]
            out |= card
        return out

    def cells(self) -> tuple[str, ...]:
        """A row below :data:`HEADER`, in Markdown."""
        if self.card is None:
            return (self.name, *["?"] * (len(HEADER) - 1))
        card = self.card
        return (
            self.name,
            "; ".join(f"`{name}`: {what}" for name, what in card.components),
            card.tokens,
            card.merging,
            ", ".join(card.runtimes),
            "; ".join(card.unsupported) or "-",
        )


def entries() -> list[Entry]:
    """All families, the built-in ones first; one that cannot be loaded has an ``error`` and no card."""
    out = []
    for name in families.names():
        package = "built-in" if families.built_in(name) else plugins.package(plugins.found()[name][0])
        try:
            out.append(Entry(name, package, families.get(name).card))
        except TsmergeError as error:
            out.append(Entry(name, package, None, str(error)))
        except ModuleNotFoundError as error:
            out.append(Entry(name, package, None, how_to_install(str(error.name))))
    return out
