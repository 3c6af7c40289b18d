"""One math thread: small models lose time to more, and other tests run beside these."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_math_thread():
    torch.set_num_threads(1)
