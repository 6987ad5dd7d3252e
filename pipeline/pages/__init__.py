"""The style of all HTML pages, and the pictures and bars that they show."""
