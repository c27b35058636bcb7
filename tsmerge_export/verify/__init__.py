"""The two verdicts: parity (``parity.check``) and merge cost (``cost.measure``). Never mixed."""
