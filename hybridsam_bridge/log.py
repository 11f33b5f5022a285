"""The package's logger: standard library logging under the name "hybridsam_bridge"."""

from __future__ import annotations

import logging

logger = logging.getLogger("hybridsam_bridge")
