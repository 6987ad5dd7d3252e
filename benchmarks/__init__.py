"""Data set -> protocol -> score. Gets an ``embed`` callable; never imports the model."""
