"""Recipes: named, complete configurations; and how a recipe, a TOML file and options make one."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.training.config import TrainConfig, TrainingError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPES: dict[str, dict[str, Any]] = {
    # Lai & Lam, ICIP 2021: TrainConfig's own defaults
    "seed": {},
    # minutes on a CPU, to see that a data set learns
    "quick": {
        "backbone": "spherenet4",
        "init": "data",
        "degrade": "fast",
        "batch_size": 32,
        "steps": 1000,
        "lr": 0.02,
    },
    # what the field trains today
    "modern": {
        "backbone": "ir50",
        "head": "adaface",
        "losses": "cross-entropy+octuplet",
        "views": "128,8-32,8,16",
        "schedule": "cosine:warmup=0.03",
        "ema": 0.9995,
        "precision": "bf16",
        "degrade": "fast",
    },
}
_FIELDS = {field.name for field in dataclasses.fields(TrainConfig)}


def compose(recipe: str, file: Path | None, options: Mapping[str, Any]) -> TrainConfig:
    """A recipe, overridden by a TOML file, overridden by options; what is None counts as not given.

    Raises:
        TrainingError: an unknown recipe, a file that cannot be read or has unknown fields, or a value that is not right;
            OptionError and their like, as ``TrainConfig``.
    """
    if recipe not in RECIPES:
        raise TrainingError(f"recipe {recipe!r} is unknown; choose from {', '.join(RECIPES)}")
    given = {name: value for name, value in options.items() if value is not None}
    return TrainConfig(**{**RECIPES[recipe], **(_read(file) if file else {}), **given})


def _read(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"{path}: {error.strerror}; expected a TOML file, such as --print-config prints") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"{path}: not TOML ({error}); --print-config prints an example") from None
    for name, value in content.items():
        if name not in _FIELDS:
            raise TrainingError(f"{path}: {name} is no setting; there are {', '.join(sorted(_FIELDS))}")
        if not _fits(name, value):
            raise TrainingError(f"{path}: {name} is {value!r}; expected {_expected(name)}")
    return content


def _kinds(name: str) -> tuple[type, ...]:
    """The types of a field's values, told from its annotation."""
    text = str(TrainConfig.__annotations__[name])
    kinds = {"bool": (bool,), "int": (int,), "float": (int, float)}
    return next((kind for word, kind in kinds.items() if text.startswith(word)), (str,))


def _fits(name: str, value: Any) -> bool:
    kinds = _kinds(name)
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _expected(name: str) -> str:
    return {bool: "true or false", int: "a number", str: "text in quotes"}[_kinds(name)[0]]


def as_toml(config: TrainConfig) -> str:
    """The whole configuration as a TOML file that ``compose`` reads; fields that are None are left out."""
    fields = config.to_dict()
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items() if value is not None)
