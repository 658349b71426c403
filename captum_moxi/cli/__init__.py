"""The command ``captum-moxi``.

==========  ===============================================================================================
main        the group of commands; **a new command gets a file of its own and one line here**
options     all options, each declared once; commands pick the ones that they take
types       types of option values; those that name registered items read the registries
runner      the loop over images, and how errors are reported
others      one file for each command: parse options, call the library, print
==========  ===============================================================================================
"""
