"""The stages' work: a module each, named as the stage, whose spec is in ``diffbench.specs.jobs``.

Every module has ``run(spec, root, device)``: it reads verified products below ``root``, computes, and writes its own
product, sidecar and run record.  Where it has ``cost(spec, timings)``, estimates have a column for the stage.
"""
