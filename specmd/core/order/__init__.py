"""Orders over keys: the data structures policies rank with (see `lists`, `tree`).

Plain functions over arrays, in the subset of Python that numba compiles; the same functions run
interpreted over Python lists. Nothing here knows what a cache is.
"""
