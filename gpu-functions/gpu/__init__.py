"""The PyTorch engine: the same protocol and the same arithmetic as the CPU engine (gpu-functions/cpu), on a GPU."""
