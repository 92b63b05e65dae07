"""Networks that others have trained, brought along as a graph of ONNX: operators and numbers, and no code."""
