"""One answer: which composition of policies to run, for a trace, a memory and some devices.

`space` says what there is to choose from, `search` tries it on ever longer prefixes of the trace,
`requests` says how sure the ranking is, `more` what would buy more, `answer` puts it together.
"""
