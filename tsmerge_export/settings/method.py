"""What a merging method says about itself: a record that everything else is derived from.

Nothing here needs more than the standard library: the algorithm and the operator are named, and imported when they run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tsmerge_export.settings.option import Option

if TYPE_CHECKING:
    from tsmerge_export.settings.config import MergeConfig


@dataclass(frozen=True)
class MethodSpec:
    """A merging method.

    Attributes:
        name: of ``--merge``.
        source: the paper. keeps, cost: what it keeps of the tokens, and how its cost grows with their number N, in
            words.
        reference: ``module:Class`` of its :class:`~tsmerge_export.methods.method.Method`, in eager PyTorch.
        operator: module of its operator: ``SCHEMA``, ``variant`` and ``body``, see :mod:`tsmerge_export.ops`.
        op_type: the operator's name in the domain ``tsmerge``. Two methods may share one.
        options: its own settings, in the order of descriptions.
        rules: what must hold between settings; each raises UsageError for a MergeConfig of the method.
        causal: it can merge so that no slot is read from a later token, see ``MergeConfig.causal``.
        static: its operator has a body whose shapes follow from N alone (``static_body``), so that runtimes which plan
            lengths beforehand can take it.
        run_time: its operator has bodies that take the ratio as an input, so that it can be chosen at run time
            (``SCHEMA.run_time``).
        fixed: options that `tsmerge tune` leaves at their defaults.
        guesses: settings that `tsmerge tune` begins with, each over the guesses of the options.
        variants: of options that another operator stands for: the record that holds where the option is set.
        caption: from settings as ``MergeConfig.to_dict`` has them, a sentence for the picture of the tokens that went;
            or None.
    """

    name: str
    source: str
    keeps: str
    cost: str
    reference: str
    operator: str
    op_type: str
    options: tuple[Option, ...] = ()
    rules: tuple[Callable[[MergeConfig], None], ...] = ()
    causal: bool = False
    static: bool = False
    run_time: bool = False
    fixed: frozenset[str] = frozenset()
    guesses: tuple[Mapping[str, Any], ...] = field(default=({},), hash=False)
    variants: Mapping[str, MethodSpec] = field(default_factory=dict, hash=False)
    caption: Callable[[Mapping[str, Any]], str | None] | None = None

    def of(self, config: MergeConfig) -> MethodSpec:
        """The record that holds for settings of the method: a variant's, or this one."""
        chosen = (one for name, one in self.variants.items() if config.get(name))
        return next(chosen, self)

    def option(self, name: str) -> Option | None:
        """Its option of that name."""
        return next((option for option in self.options if option.name == name), None)
