"""What runs on the devices: the accelerator, optimisation, checkpoints, scoring."""
