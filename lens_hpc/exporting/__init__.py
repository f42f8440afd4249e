"""A trained run for others: weights, ONNX and torch.export in one folder, with a card that says
what it is, how good it is and what it must not be used for.

It may touch models and what they are scored with. What an export needs of its format (onnx,
onnxscript) is imported when one is written.
"""
