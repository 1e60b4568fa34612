"""The training of networks and the loading of models: the loop, several processes, the GPUs of the machine."""
