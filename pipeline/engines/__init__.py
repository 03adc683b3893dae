"""What starts the processes that draw and perceive: local, Slurm, Ray. The stages do not know which."""
