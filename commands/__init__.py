"""The commands: each declares its options, imports what it needs when it runs, and wires the packages."""
