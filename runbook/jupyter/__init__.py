"""How notebooks are executed: papermill's engine, kernels that are forks, and stepping through in JupyterLab."""
