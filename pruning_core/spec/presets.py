"""Presets: settings that go together, under one name, such as those of a method's paper. Torch-free.

A preset is a shorthand: validation replaces it by the fields that it sets, in any part of the spec, so that code, reports and
stored requests only ever see those. It says how a method works, and not on how much data or for how long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

from pydantic import BaseModel
from pydantic.config import JsonDict

from pruning_core.spec.nearest import did_you_mean
from pruning_core.spec.together import Together

DEFAULT = "default"
_FIELD = "preset"


@dataclass(frozen=True, slots=True)
class Preset:
    """Settings under one name.

    Attributes:
        about: What is different with it, and whose settings they are; one sentence.
        settings: The value of each field that it sets, by its dotted path in the spec.
    """

    about: str
    settings: Mapping[str, object]

    def within(self, path: str) -> dict[str, Any]:
        """Return the fields that it sets of one object of the spec, such as ``method.training``."""
        below = {name.removeprefix(f"{path}."): value for name, value in self.settings.items() if name.startswith(f"{path}.")}
        return {name: value for name, value in below.items() if "." not in name}


NO_PRESETS: Mapping[str, Preset] = MappingProxyType({})


def expanded(given: dict[str, Any], presets: Mapping[str, Preset]) -> dict[str, Any]:
    """Return the fields of a spec with those that its method's preset sets, and without the preset.

    Args:
        given: Fields of the spec as they were sent, its method an object or a name; not changed.
        presets: The presets of its method.

    Raises:
        ValidationError: There is no such preset, or a field beside it says otherwise.
    """
    method = given.get("method")
    if not isinstance(method, Mapping) or _FIELD not in method:
        return given
    fields = dict(cast("Mapping[str, Any]", method))
    chosen, wrong = fields.pop(_FIELD), Together()
    found = {**given, "method": fields}
    if chosen in (DEFAULT, None):
        return found
    if not isinstance(chosen, str) or chosen not in presets:
        known = ", ".join((DEFAULT, *presets))
        meant = did_you_mean(chosen, presets) if isinstance(chosen, str) else ""
        wrong.say(f"{fields.get('name')} has no such preset; it has {known}{meant}", "method", _FIELD)
        wrong.end()
    for path, value in presets[chosen].settings.items():
        *parents, last = path.split(".")
        place = found
        for parent in parents:
            inner = place.get(parent)
            own = {} if inner is None else _stated(inner)
            if own is None:  # the field's own validation says what is wrong
                break
            place[parent] = place = own
        else:
            if last in place and place[last] != value:
                wrong.say(
                    f"preset {chosen} sets {path} to {_said(value)}, got {_said(place[last])}: leave {path} out, or name the "
                    "settings that you want in place of the preset",
                    *parents,
                    last,
                )
            place[last] = value
    wrong.end()
    return found


def _stated(value: object) -> dict[str, Any] | None:
    """Return a copy of the fields that an object states; None if it is no object."""
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in value.model_fields_set}
    return dict(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else None


def preset_among(spec: BaseModel, presets: Mapping[str, Preset]) -> str | None:
    """Return the preset whose settings a spec has, all of them; None if it has no preset's."""
    return next(
        (name for name, own in presets.items() if all(_at(spec, path) == value for path, value in own.settings.items())), None
    )


def words_of(preset: Preset) -> str:
    """List what a preset sets: ``method.labels use, recovery.kind masks``."""
    return ", ".join(f"{path} {_said(value)}" for path, value in preset.settings.items())


def document(schema: JsonDict, presets: Mapping[str, Preset]) -> None:
    """Add the shorthand to the JSON schema of a method's options: it is accepted, so a generated client must know it."""
    if not presets:
        return
    known = "; ".join(f"{name}: {own.about} It sets {words_of(own)}" for name, own in presets.items())
    control: JsonDict = {
        "type": "string",
        "enum": [DEFAULT, *presets],
        "default": DEFAULT,
        "title": "Preset",
        "description": f"Settings under one name, which a field beside it must not contradict. {known}.",
    }
    name, *others = cast("dict[str, JsonDict]", schema["properties"]).items()
    schema["properties"] = dict([name, (_FIELD, control), *others])


def _at(value: object, path: str) -> object:
    for name in path.split("."):
        value = getattr(value, name, None)
    return value


def _said(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
