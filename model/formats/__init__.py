"""Files that hold networks: checkpoints, Hugging Face folders, ONNX."""
