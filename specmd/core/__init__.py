"""The rules of the evaluation contract, and all that is compiled.

Life of a key: EMPTY -> LOADING (demanded, or ahead of its use) -> READY -> EMPTY. It is held, and
may not leave, while its event lasts, while it is loading, and while a kernel may read it.

To be read in this order:

event        what a policy is told: the world, the event, and the only functions that build them
state        the cache and a stretch of events as arrays; counters, log codes, the smallest changes
hooks        every question the core asks a policy, a prefetcher, a link
serve        serving an event: demand, then complete; the one place where the rules live
prefetch     what a prefetcher sees and how it proposes
order/       what policies rank with: lists, heap, blocks, ladder, scan, chance
instant_link the link of a replay: nothing takes time
binding      which functions answer the questions; kernel, the core bound to them, and its state
specialise   one source made native or interpreted; interpreted, the form its state then has;
             frozen_args, arguments read once; clearance, which plug-ins run bounds-checked
stacks       LRU and Belady at every capacity in one walk
"""
