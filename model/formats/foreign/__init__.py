"""Networks that other projects trained: their state dicts, recognised by keys and shapes, on our backbones."""
