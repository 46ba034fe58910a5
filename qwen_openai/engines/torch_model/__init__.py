"""A checkpoint as a torch model in this process: what the engines that run one have in common."""
