"""The stages' work: one module for each stage, with its name; the specs are in ``diffbench.specs.jobs``.

Every module has ``run(spec, root, device_name)``: it reads verified products below ``root``, computes, and writes its
own product, sidecar and run record.  A module with ``cost(spec, timings)`` also gives the stage a column in estimates.
"""
