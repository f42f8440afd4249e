"""The version: that of the tag, as the installed package knows it (CONTRIBUTING.md).

It is looked up when it is asked for, as that takes longer than most of what `import lens_hpc` does.
"""


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lens_hpc")
    except PackageNotFoundError:
        return "0+unknown"  # a tree on PYTHONPATH that was never installed
