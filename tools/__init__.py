"""Scripts for developers; not installed with the package."""
