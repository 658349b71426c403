"""Runs of several methods over many images, and their reports.

A run goes through these modules, each of which imports only from those above it:

==============  =====================================================================================================
settings        what a run does: ``Settings``
rows            the columns of a run's rows; a new column goes here
store           the folder of a run: settings in a manifest, rows in Parquet
records         measurements in a file of JSON lines
labels, data    images and labels from a folder or a data set
evaluator       explains batches of images by every method and returns their rows
engines         process batches, locally or on a Ray cluster; a new engine goes here
runs            starts or continues a run
bootstrap       confidence intervals
curves          the rows of a run as curves
report_plots    the figures of a report; a new figure goes here
galleries       the selected patches of the first images
reports         the table of a report; a new column of the table goes here
replays         the orders of a run, played under corruptions and adversarial perturbations
==============  =====================================================================================================
"""
