"""The command line's own words for what the core says of the fields of a spec."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pruning_core.spec.glue import GLUE_TASKS
from pruning_core.spec.nearest import did_you_mean
from pruning_core.spec.tasks import KINDS

# Sentences that would read oddly with each field replaced by its option; beginnings of what the core says.
_SAID = {
    "name the columns that the task reads": "name the column of texts (twice for pairs), or --image the one of images",
    "layout serve follows the engines": "--layout serve follows the engines asked for: name them, such as --engine vllm",
    "give one target, or a list of targets, or a quality_floor": "give --sparsity, another target, or --quality-floor alone",
}
_SEVERAL = {"task.columns": "--text (or --image) and --label", "columns": "--text (or --image) and --label"}
_FIELD = re.compile(r"(?<![\w./-])[a-z_]+(?:\.[a-z_]+)+(?![\w/])|(?<![\w./-])quality_floor(?![\w/.])")


def in_options(message: str, options: Mapping[str, tuple[str, str]]) -> str:
    """Return a sentence with options in the places of the fields that they set.

    Args:
        message: The sentence.
        options: The attribute and the option of each field, by its dotted path.
    """
    for beginning, better in _SAID.items():
        if message.startswith(beginning):
            return better

    def option(found: re.Match[str]) -> str:
        field = found[0]
        own = _SEVERAL.get(field) or next((options[name][1] for name in (field, f"task.{field}") if name in options), None)
        return field if own is None else own

    return _FIELD.sub(option, message)


def of_a_task(given: str | None, message: str) -> str:
    """Return what is wrong with --task: on the command line it is a name or a type, and never an object."""
    if given is None:
        return message
    meant = did_you_mean(given, [*GLUE_TASKS, *KINDS])
    return (
        f"{given} is no known task{meant or '.'} Named tasks are {', '.join(sorted(GLUE_TASKS))}; types of tasks, for your own "
        f"--data with --text or --image and --label, are {', '.join(KINDS)}"
    )
