"""One thread for each test process: the tensors are small, and `pytest -n 2` has filled two cores already."""

import torch

torch.set_num_threads(1)
