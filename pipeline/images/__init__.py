"""Image files: their names, formats and pixels. A damaged or incomplete image is an error with a reason."""
