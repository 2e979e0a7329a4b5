"""YAML without surprises: what JSON could say too, every value with its line if it is refused."""

import re
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"


class NotPlain(yaml.YAMLError):
    """A key or value that settings cannot hold, and the line (from 1) on which it stands."""

    def __init__(self, message: str, node: yaml.Node) -> None:
        super().__init__(message)
        self.line = node.start_mark.line + 1


class PlainLoader(yaml.SafeLoader):
    """Texts, numbers, booleans, null, lists, and mappings whose keys are texts.

    A date is a text here, for files and runs are named by dates.

    Raises:
        NotPlain: another type, a key given twice, a text that no file's name and no tokenizer
            takes, a number or boolean that is none (`!!int x`).
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """One value; always deep, so that PyYAML refuses a value inside itself."""
        try:
            value = super().construct_object(node, deep=True)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # PyYAML's constructors of scalars raise many types
            kind = node.tag.removeprefix(_TAG)
            shown = str(node.value)[:40]
            raise NotPlain(f"'{shown}' is no {kind} that can be read", node) from error
        if isinstance(value, dict):
            for key, _ in node.value:  # with those that `<<` brought
                if key.tag != f"{_TAG}str":
                    raise NotPlain(f"'{key.value}' is no name of a setting", key)
        elif isinstance(value, str):
            if re.search("[\0\ud800-\udfff]", value):
                raise NotPlain("the text holds \\0 or half of a surrogate pair", node)
        elif not isinstance(value, list | int | float | None):
            raise NotPlain(f"settings hold no {node.tag.removeprefix(_TAG)}", node)
        return value

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        """A mapping; PyYAML itself would keep the last of two values with one key."""
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != f"{_TAG}merge":
                if key.value in seen:
                    raise NotPlain(f"'{key.value}' is given twice", key)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag != f"{_TAG}timestamp"]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
