"""Recipes: named configurations, which a TOML file and command-line options override."""

from __future__ import annotations

import codecs
import json
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from model.errors import one_line
from model.training.config import TrainConfig, TrainingError
from shards.errors import LrfrError

Settings = dict[str, Any]
"""Values of settings, or their text; ``TrainConfig`` validates them."""

RECIPES: dict[str, Settings] = tomllib.loads((resources.files(__package__) / "recipes.toml").read_text())
SUMMARIES: dict[str, str] = {name: settings.pop("summary") for name, settings in RECIPES.items()}
# what the config.json of a run has beside the settings
RUN_FACTS = ("classes", "preprocessing", "trained_on", "teacher_digest", "branched_from")
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
MAX_BYTES = 1 << 14  # of a settings file: tomllib takes quadratic time and memory for a dotted key


def compose(recipe: str, file: Path | None, options: Mapping[str, object]) -> TrainConfig:
    """A recipe, overridden by a TOML file, overridden by those options that are not None.

    Args:
        file: TOML as ``as_toml`` writes it, or the ``config.json`` of a run.

    Raises:
        TrainingError: unknown recipe, or a file that is unreadable or has an unknown or invalid setting.
        OptionError: see ``TrainConfig``.
    """
    if recipe not in RECIPES:
        raise TrainingError(f"recipe {recipe!r} is unknown; choose from {', '.join(RECIPES)}")
    chosen = {**(_read(file) if file else {}), **{name: value for name, value in options.items() if value is not None}}
    settings = RECIPES[recipe] | chosen
    if settings.get("pretrained") is not None and "init" not in chosen:
        settings.pop("init", None)  # a recipe's is for new weights
    return TrainConfig(**settings)


def _read(path: Path) -> Settings:
    if path.exists() and not path.is_file():  # a pipe would block
        raise TrainingError(f"{path}: not a regular file; expected a TOML file, such as --print-config prints")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TrainingError(f"more than {MAX_BYTES:,} bytes; --print-config prints an example")
        data = path.read_bytes()
        text = data.decode("utf-16" if data.startswith(_UTF16_MARKS) else "utf-8-sig")  # as PowerShell writes files
        settings = _run_settings(text) if text.startswith("{") else tomllib.loads(text)
        if table := next((name for name, value in settings.items() if isinstance(value, dict)), None):
            raise TrainingError(f"[{table}] is a table; write each setting on a line of its own, without a heading")
        return TrainConfig.converted(settings)
    except OSError as error:
        raise TrainingError(f"{path}: {error.strerror}; expected a TOML file, such as --print-config prints") from None
    except (ValueError, RecursionError) as error:  # of text that is not UTF-8, not TOML, or too deeply nested
        raise TrainingError(f"{path}: not TOML ({one_line(error)}); --print-config prints an example") from None
    except LrfrError as error:
        raise TrainingError(f"{path}: {error}") from None


def _run_settings(text: str) -> Settings:
    """The settings in the ``config.json`` of a run. Raises: ValueError, RecursionError: not JSON."""
    return {name: value for name, value in json.loads(text).items() if name not in RUN_FACTS}


def describe() -> str:
    """The help text of ``--recipe``: a line for each recipe and each setting that differs from the default."""
    lines = []
    for name, settings in RECIPES.items():
        lines.append(f"{name}: {SUMMARIES[name]}")
        lines += [f"    {setting} = {json.dumps(value)}" for setting, value in settings.items()]
    return "\n".join(lines)


def as_toml(config: TrainConfig) -> str:
    """The configuration as a TOML file that ``compose`` reads. TOML has no null: settings that are None are left out."""
    settings = config.to_dict()
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items() if value is not None)
