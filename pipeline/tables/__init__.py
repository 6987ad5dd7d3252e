"""Tables and lists that a user names: landmarks in text or Parquet, and small TOML files."""
