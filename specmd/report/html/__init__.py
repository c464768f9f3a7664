"""Runs as one page that opens anywhere: no server, no network, nothing beside the file.

`scenes` groups runs for reading, `points` are the numbers behind the figures, `answers` the first
screen, `charts` the figures (Altair), `page` the file, `files` the same figures as PNG, SVG and PDF.
A figure is defined once; page and files differ in where its colours come from.
"""
