"""Compares the settings of a resumed run with those that it began with."""

from __future__ import annotations

from collections.abc import Mapping

from model.options import Options, plain_value, value_text
from model.training.config import TrainConfig, TrainingError
from shards.errors import LrfrError

_UNREADABLE = object()  # no setting equals it


def check_resumes(config: TrainConfig, saved: Mapping[str, object], *, branch: bool = False) -> None:
    """Raises: TrainingError: a setting of the ``saved`` configuration that must not change has changed.

    Args:
        branch: the run goes on in a new folder, where more settings may change.
    """
    for name, (before, now, changes) in changed(config, saved).items():
        if changes == "never" or (changes == "branch" and not branch):
            remedy = "choose another --out for a new run"
            if branch:
                remedy = "repeat the settings of that run, or start a new one with --from"
            elif changes == "branch":
                remedy = "to change it, branch off into a new folder: --resume CHECKPOINT --out NEW"
            option = config.declared()[name].flag or name
            difference = (
                _difference(config, name, before) or f"{option} was {before} when this run started, now it is {now}"
            )
            raise TrainingError(f"{difference}; {remedy}")


def changed(config: TrainConfig, saved: Mapping[str, object]) -> dict[str, tuple[object, object, str]]:
    """The settings that differ from the ``saved`` configuration: value before, value now, ``Option.changes``."""
    result: dict[str, tuple[object, object, str]] = {}
    for name, declared in config.declared().items():
        before, now = saved.get(name, declared.default), getattr(config, name)  # older versions lack some settings
        if _converted(name, before) != now:
            result[name] = before, plain_value(now), declared.changes
    return result


def _difference(config: TrainConfig, name: str, saved: object) -> str:
    """The options that differ between a setting and its ``saved`` value, such as two heads of one kind; or nothing."""
    before, now = _converted(name, saved), getattr(config, name)
    if not isinstance(now, Options) or type(before) is not type(now):
        return ""
    options = {option: (getattr(before, option), getattr(now, option)) for option in now.declared()}
    found = [
        f"{option} was {value_text(old)}, now {value_text(new)}" for option, (old, new) in options.items() if old != new
    ]
    return f"{name} {now.name} has changed since this run started: {'; '.join(found)}"


def _converted(name: str, saved: object) -> object:
    """The value of a setting; ``_UNREADABLE`` if this version does not read it."""
    try:
        return TrainConfig.converted({name: saved})[name]
    except LrfrError:
        return _UNREADABLE
