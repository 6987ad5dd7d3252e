"""Generated faces in the folder layouts of the public data sets."""
