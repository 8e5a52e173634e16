"""The versions that a result was made with."""

from importlib.metadata import version


def library_versions() -> dict[str, str]:
    """Versions of this package and of what decides its numbers."""
    return {name: version(name) for name in ("hf_lgm", "torch", "transformers", "datasets", "pillow")}
