"""Engine `transformers`: many answers of one checkpoint at once, on transformers' batching.

`engine` keeps the contract of `base.Engine`; `track` is one answer on its way, `batch` picks the
tokens of all of them at each step, `runner` starts and watches transformers' loop; `startup` loads,
`sizing` chooses context, slots and cache. On a CPU, `packed` lays weights out and `attention` has
each answer look at its own keys.
"""
