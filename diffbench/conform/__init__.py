"""Conformance: the laws that every class of a kind obeys, and what they say of the classes that a file registers.

One file a kind, or a few that belong together; each law is a function with its equation (`diffbench.conform.law`).
"""
