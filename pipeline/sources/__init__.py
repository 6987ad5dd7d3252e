"""Image files and landmark tables of the supported data sets."""
