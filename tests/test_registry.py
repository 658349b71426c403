import pytest

from captum_moxi.registry import Entry, Registry, parse_natural, parse_positive_int


@pytest.fixture
def shapes() -> Registry[str]:
    registry: Registry[str] = Registry("shape")
    registry.register("circle", lambda: "circle", help="round")
    registry.register("polygon", lambda corners=3: f"{corners} corners", argument="N", help="a polygon with N corners")
    registry.register("layer", lambda layer: f"layer {layer}", argument="LAYER", parse=parse_natural, required=True)
    return registry


@pytest.mark.parametrize(
    ("spec", "item"),
    [("circle", "circle"), ("polygon", "3 corners"), ("polygon:5", "5 corners"), ("layer:0", "layer 0")],
)
def test_create_returns_the_item_that_the_spec_describes(shapes: Registry[str], spec: str, item: str) -> None:
    assert shapes.create(spec) == item


def test_a_registry_lists_its_items_in_the_order_of_registration(shapes: Registry[str]) -> None:
    assert list(shapes) == ["circle", "polygon", "layer"]
    assert len(shapes) == 3
    assert "circle" in shapes
    assert "circle:5" not in shapes
    assert shapes.specs == ["circle", "polygon:N", "layer:LAYER"]
    assert shapes.describe() == "circle, polygon:N, layer:LAYER"
    assert [entry.help for entry in shapes.entries] == ["round", "a polygon with N corners", ""]
    assert [entry.spec for entry in shapes.entries] == shapes.specs
    assert all(isinstance(entry, Entry) for entry in shapes.entries)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("square", r"shape 'square' is unknown; pass one of circle, polygon:N, layer:LAYER"),
        ("", r"shape '' is unknown"),
        ("Circle", r"shape 'Circle' is unknown"),
        ("circle:1", r"shape 'circle:1' has an argument, but circle takes none; pass circle"),
        ("layer", r"shape 'layer' needs an argument; pass layer:LAYER"),
        ("polygon:", r"shape 'polygon:' is not valid; pass polygon:N, where N is an int from 1 to 999999999"),
        ("polygon:0", r"where N is an int from 1 to 999999999"),
        ("polygon:-3", r"where N is an int from 1 to 999999999"),
        ("polygon:1.5", r"where N is an int from 1 to 999999999"),
        ("polygon:3:4", r"where N is an int from 1 to 999999999"),
        ("layer:-1", r"where LAYER is an int from 0 to 999999999"),
    ],
)
def test_an_invalid_spec_raises_an_error_that_says_what_to_pass(shapes: Registry[str], spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shapes.create(spec)


def test_a_name_can_be_registered_once_and_again_after_unregister(shapes: Registry[str]) -> None:
    with pytest.raises(ValueError, match=r"shape 'circle' is already registered"):
        shapes.register("circle", lambda: "another circle")
    assert shapes.create("circle") == "circle"
    shapes.unregister("circle")
    assert "circle" not in shapes
    with pytest.raises(ValueError, match="unknown"):
        shapes.create("circle")
    shapes.register("circle", lambda: "another circle")
    assert shapes.create("circle") == "another circle"


@pytest.mark.parametrize("name", ["", "a:b", "a,b", "a b", "a\tb", "a\n"])
def test_a_name_that_could_not_be_parsed_is_rejected(shapes: Registry[str], name: str) -> None:
    with pytest.raises(ValueError, match=r"is not a valid name; pass a name without colons, commas or whitespace"):
        shapes.register(name, lambda: "shape")


def test_an_error_of_the_factory_reaches_the_caller(shapes: Registry[str]) -> None:
    def fail(size: int) -> str:
        raise ValueError(f"{size} is too large")

    shapes.register("giant", fail, argument="SIZE")
    with pytest.raises(ValueError, match="7 is too large"):
        shapes.create("giant:7")


@pytest.mark.parametrize("text", ["1", "12", "007"])
def test_positive_ints_are_parsed(text: str) -> None:
    assert parse_positive_int(text) == int(text)


@pytest.mark.parametrize("text", ["", " 1", "+1", "-1", "1_0", "1.0", "1e3", "٣", "²", "one", "9" * 10])
def test_only_plain_digits_are_ints(text: str) -> None:
    with pytest.raises(ValueError, match="an int from 1 to 999999999"):
        parse_positive_int(text)
    with pytest.raises(ValueError, match="an int from 0 to 999999999"):
        parse_natural(text)


def test_zero_is_natural_but_not_positive() -> None:
    assert parse_natural("0") == 0
    with pytest.raises(ValueError, match="an int from 1 to 999999999"):
        parse_positive_int("0")
