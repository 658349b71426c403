"""The numbers of groups in the table against those of ``alternatives``, and their summary on a worked example."""

from collections.abc import Callable
from dataclasses import replace

from captum_moxi import GradientScreen, MoXIDeletion, MoXIInsertion
from captum_moxi.benchmarks import Bench
from captum_moxi.benchmarks.alternatives import count_alternatives
from captum_moxi.evaluation.records import Record, Records

ParseTable = Callable[[str], dict[str, list[str]]]


def test_groups_are_those_of_the_captum_classes(bench: Bench, parse_table: ParseTable) -> None:
    bench = replace(bench, grid=None)
    columns = parse_table(count_alternatives(bench))
    classifier, (_, image) = bench.classifiers[0], bench.images[0]
    x = classifier.preprocess([image])
    y = int(classifier.model(x).logits.argmax())
    searches = (MoXIInsertion(classifier.model), MoXIDeletion(classifier.model, screen=GradientScreen(8)))
    for row, moxi in enumerate(searches):
        groups = moxi.alternatives(x, target=y, at_most=5)
        assert columns["mode"][row] == moxi.mode
        assert float(columns["groups, mean"][row]) == len(groups)
        assert float(columns["players of the first group, mean"][row]) == int(groups[0].n_steps[0])


class KnownSizes(Records):
    """Records of two images: one with two groups, of three players and one player, and one without a group."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = {"first": [3, 1], "second": []}

    def get(self, settings: Record, measure: Callable[[], Record]) -> Record:
        return {"seconds": 2.0, "rows": 10, "sizes": self.sizes[settings["image"]]}


def test_the_table_counts_images_by_their_number_of_groups(bench: Bench, parse_table: ParseTable) -> None:
    image = bench.images[0][1]
    images = [("first", image), ("second", image)]
    columns = parse_table(count_alternatives(replace(bench, images=images, records=KnownSizes())))
    assert columns["groups, mean"] == ["1", "1"]
    assert [columns[title][0] for title in ("no group", "1 group", "2 groups", "5 or more")] == ["1", "0", "1", "0"]
    assert columns["players of the first group, mean"][0] == "3"
    assert columns["of the second"][0] == "1"
