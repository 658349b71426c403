from dataclasses import replace

import numpy as np
from described import assert_described

from captum_moxi.metrics import Replay, join_replays, replay_records
from captum_moxi.plot import replays_figure

REPLAY = Replay("zero", "A", np.array([7 / 8, 1 / 8]), np.array([1 / 8, 7 / 8]), fraction=1.0, is_complete=True)


def test_the_figure_has_a_marker_for_each_order_and_removal() -> None:
    other = replace(REPLAY, removal="blur", insertion=REPLAY.insertion + 0.25)
    for replays in ([REPLAY], [REPLAY, other], [REPLAY, other, replace(REPLAY, order="B")]):
        figure = replays_figure(replay_records(replays, resamples=20))
        assert_described(figure)
    means = [line.get_ydata()[0] for line in figure.axes[2].lines if line.get_marker() == "o"]
    assert means == [0]
    (heights,) = [line.get_ydata() for line in figure.axes[0].lines if len(line.get_ydata()) == 2]
    np.testing.assert_allclose(np.asarray(heights), [0.5, 0.75])


def test_unknown_values_have_no_marker() -> None:
    unknown = replace(REPLAY, insertion=np.array([np.nan, 1.0]))
    figure = replays_figure(replay_records([unknown], resamples=20))
    heights = [[float(line.get_ydata()[0]) for line in ax.lines if line.get_marker() == "o"] for ax in figure.axes]
    assert np.isnan(heights[0]) and heights[1] == [0.5] and np.isnan(heights[2])


def test_partial_orders_have_a_difference_of_areas_instead_of_srg() -> None:
    figure = replays_figure(replay_records([replace(REPLAY, fraction=0.5, is_complete=False)], resamples=20))
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[2] == "area difference: higher is better" and "SRG" not in figure.get_supxlabel()


def test_ten_images_have_bars() -> None:
    for copies, n_images in ((1, 2), (4, 8), (5, 10)):
        figure = replays_figure(replay_records([join_replays([REPLAY] * copies)], resamples=200))
        (bars,) = figure.axes[2].collections
        ((_, low), (_, high)) = bars.get_segments()[0]
        assert (high > low) == ("Bars: 95 % intervals" in figure.get_supxlabel()) == (n_images == 10)
