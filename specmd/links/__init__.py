"""Links: what moves an expert, and when it is there.

The residency core is the same for all of them; `hooks` lists what it asks of a link.
`immediate` is replay (no clock), `clock` is timed simulation.
"""
