"""The specifications of everything that can be built: pydantic models, no torch, no files."""
