# SPDX-License-Identifier: Apache-2.0
"""The models that are shipped: beside the package in a checkout, in `share` where it was installed."""

from __future__ import annotations

from pathlib import Path

from dnn_dist.errors import ConfigError


def find_model(name: str) -> Path:
    """The .tflite file of a path, or of the bare name of a shipped one. ConfigError when there is none."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = shipped_models()
    if shipped is not None and (shipped / name).is_file() and name:
        return shipped / name
    known = sorted(file.name for file in shipped.glob("*.tflite")) if shipped else []
    raise ConfigError(
        f"model: there is no file {name!r}; give a path, or one that is shipped: {', '.join(known) or 'none found'}"
    )


def shipped_models() -> Path | None:
    """The folder of shipped models: of the checkout, or of the installed package; None: there is none."""
    above = Path(__file__).resolve().parents
    candidates = [above[1] / "models", *(folder / "share" / "dnn_dist" / "models" for folder in above)]
    return next((folder for folder in candidates if folder.is_dir()), None)
