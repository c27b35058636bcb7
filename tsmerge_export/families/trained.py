"""The merge settings that a model's weights were trained for, kept in its config from file to file.

They stand under the key ``tsmerge`` of config.json. Upstream's own ``from_pretrained`` keeps every
key that it does not know.
"""

from __future__ import annotations

from torch import nn

from tsmerge_export.families.base import Family
from tsmerge_export.settings.trained import KEY, Trained, trained_in


def trained_of(family: Family, model: nn.Module) -> Trained | None:
    """What the weights were trained for; None where the config names nothing.

    Args:
        model: the family's module, as this package or its own library loaded it.

    Raises:
        UsageError: the config's entry cannot be read.
    """
    return trained_in(family.config_of(model))


def mark(model: nn.Module, trained: Trained | None) -> None:
    """Write into the config of a module in memory what its weights are trained for; None takes it out.

    ``save_checkpoint``, and the ``save_pretrained`` of its own library, then write it.
    """
    vars(model.config).pop(KEY, None)
    if trained is not None:
        setattr(model.config, KEY, trained.to_dict())
