"""Specs of registered items, for tests that every item of a kind must pass."""

from captum_moxi.registry import Entry, Registry

# tried in this order for an item's argument; the first one that its parser accepts is used
SAMPLE_ARGUMENTS = ("1", "0", "0.5", "a")


def example_specs(registry: Registry) -> list[str]:
    """One spec for each item: its name, followed by an argument if the item needs one."""
    return [f"{entry.name}:{_sample(entry)}" if entry.required else entry.name for entry in registry.entries]


def specs_with_argument(registry: Registry) -> list[str]:
    """One spec with an argument for each item that accepts one."""
    return [f"{entry.name}:{_sample(entry)}" for entry in registry.entries if entry.argument is not None]


def _sample(entry: Entry) -> str:
    for text in SAMPLE_ARGUMENTS:
        try:
            entry.parse(text)
        except ValueError:
            continue
        return text
    raise AssertionError(f"{entry.spec} accepts none of {SAMPLE_ARGUMENTS}; add a sample of its argument")
