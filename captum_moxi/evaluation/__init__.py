"""Runs of several methods over many images, and their reports.

A run uses these modules. Each of them imports only from modules above it:

==============  =====================================================================================================
settings        what a run does: ``Settings``
manifest        the JSON file with the settings of a run, which detects damage
rows            the columns of a run's rows; a new column goes here
parts           the Parquet files with the rows of a run, which detect damage
store           the folder of a run: its manifest and its parts
records         measurements in a file of JSON lines
labels, data    images and labels from a folder or a dataset
evaluator       explains batches of images by every method and returns their rows
engines         process batches, locally or on a Ray cluster; a new engine goes here
runs            starts or continues a run
curves          converts the rows of a run to curves
measurements    means and paired comparisons of several methods on the same images
report_plots    the figures of a report; a new figure goes here
galleries       figures with the selected patches of the first images
reports         the table of a report; a new column of the table goes here
replays         reuse the orders of a run for corruptions, adversarial attacks and other removals
==============  =====================================================================================================
"""
