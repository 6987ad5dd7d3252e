"""Files and functions that are run as they are: ONNX, TorchScript, torch.export and a user's own function."""
