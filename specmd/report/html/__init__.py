"""Runs as one page that opens anywhere: no server, no network, nothing beside the file.

`scenes` groups runs for reading, `points` and `maps` are the numbers behind the figures, `answers`
the first screen, `record` the table of runs with their contract, `charts` the figures (Altair),
`theme` their colours, `page` the file, `files` the same figures as PNG, SVG and PDF.
A figure is defined once; page and files differ in where its colours come from.
"""
