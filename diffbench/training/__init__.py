"""How a network is trained and a model is opened: the loop, several processes, the GPUs of the machine."""
