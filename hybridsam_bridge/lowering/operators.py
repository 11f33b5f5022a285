"""All entries of the registry."""

from __future__ import annotations


def load() -> None:
    """Import every module that registers operators."""
    from hybridsam_bridge.lowering import (  # noqa: F401
        operators_conv,
        operators_index,
        operators_linear,
        operators_nn,
        operators_norm,
        operators_pointwise,
        operators_reduce,
        operators_view,
    )
