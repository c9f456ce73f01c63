"""One thread for each test process: the tensors are small, and `pytest -n 2` has filled two cores already."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of compiled adaptive runs the algebra of masks alone, without a compiler."""
    from longstride.adaptive import chunks
    from longstride.native.emit import Unsuited

    def unsuited(*given: object, **more: object) -> None:
        raise Unsuited

    monkeypatch.setattr(chunks, "turned", unsuited)
    monkeypatch.setattr(chunks, "compiled", lambda *given, **options: chunks._chunk)
