"""The command ``captum-moxi``.

==========  ===============================================================================================
main        the group of commands; **a new command gets its own file and one line here**
options     all options, each declared once; a command applies the options that it takes
types       types of option values; types of registered items read the registries
runner      the loop over images, and how errors are reported
others      one file for each command, which parses options, calls the library and prints the result
==========  ===============================================================================================
"""
