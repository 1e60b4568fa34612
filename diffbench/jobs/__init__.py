"""One job each, from a spec to a product: data, train, sample, score, likelihood.

Every module has ``run(spec, root, device)``: it reads verified products below ``root``, computes, and
writes its own product, sidecar and run record.
"""
