"""Building connectome matrices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, traits

from difftract_bids.config import ConnectomeConfig
from difftract_bids.interfaces.settings import settings_spec

_Settings: Any = settings_spec(ConnectomeConfig)
