"""The specs of everything that can be built: pydantic models, without torch and without files."""
