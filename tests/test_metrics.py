"""The metrics against what they are known to be."""

import pytest
import torch

from longstride.errors import ArgumentError
from longstride.metrics import class_agreement, endpoint_error, frechet_distance, statistics
from longstride.models.classifier import Classifier

F64 = torch.float64


def gaussian(seed, d=6):
    g = torch.Generator().manual_seed(seed)
    root = torch.randn(d, d, generator=g, dtype=F64)
    return torch.randn(d, generator=g, dtype=F64), root @ root.T


def test_endpoint_error_is_the_root_mean_square():
    x, reference = torch.zeros(2, 3), torch.tensor([[3.0, 0, 0], [0, 4.0, 0]])
    assert endpoint_error(x, reference) == pytest.approx((25 / 6) ** 0.5, rel=1e-15)
    with pytest.raises(ArgumentError, match="shape"):
        endpoint_error(torch.zeros(1, 3), reference)


def test_frechet_distance_of_commuting_covariances_is_the_closed_form():
    """|m1 - m2|^2 + sum (sqrt(a_i) - sqrt(b_i))^2 when both are diagonal in one basis."""
    q, _ = torch.linalg.qr(gaussian(0)[1])
    a, b = torch.rand(2, 6, dtype=F64, generator=torch.Generator().manual_seed(1))
    m1, m2 = gaussian(2)[0], gaussian(3)[0]
    expected = (m1 - m2).square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    got = frechet_distance(m1, q * a @ q.T, m2, q * b @ q.T)
    assert got == pytest.approx(expected.item(), rel=1e-10)


def test_frechet_distance_is_a_distance():
    one, two = gaussian(0), gaussian(1)
    assert abs(frechet_distance(*one, *one)) < 1e-10
    assert frechet_distance(*one, *two) == pytest.approx(frechet_distance(*two, *one), rel=1e-10)
    lengths = [frechet_distance(*a, *b) ** 0.5
               for a, b in ((one, two), (one, gaussian(2)), (gaussian(2), two))]  # fmt: skip
    assert lengths[0] <= lengths[1] + lengths[2]


def test_frechet_distance_does_not_see_rotations():
    q, _ = torch.linalg.qr(gaussian(5)[1])
    (m1, c1), (m2, c2) = gaussian(0), gaussian(1)
    turned = frechet_distance(q @ m1, q @ c1 @ q.T, q @ m2, q @ c2 @ q.T)
    assert turned == pytest.approx(frechet_distance(m1, c1, m2, c2), rel=1e-10)


def test_frechet_distance_of_degenerate_gaussians_is_that_of_points():
    m1, m2, none = torch.zeros(3), torch.tensor([3.0, 4.0, 0]), torch.zeros(3, 3)
    assert frechet_distance(m1, none, m2, none) == pytest.approx(25, rel=1e-15)


def test_frechet_distance_agrees_with_the_matrix_square_root():
    linalg = pytest.importorskip("scipy.linalg")
    (m1, c1), (m2, c2) = gaussian(0), gaussian(1)
    cross = linalg.sqrtm((c1 @ c2).numpy()).real.trace()
    expected = (m1 - m2).square().sum().item() + (c1 + c2).trace().item() - 2 * cross
    assert frechet_distance(m1, c1, m2, c2) == pytest.approx(expected, rel=1e-9)


def test_statistics_do_not_depend_on_the_batches(monkeypatch):
    net = Classifier(1, 8, 10).eval()
    x = torch.rand(23, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features = net.embedding(x).detach().double()
    monkeypatch.setattr("longstride.metrics.features.BATCH", 5)
    got = statistics(net, x)
    centred = features - features.mean(0)
    torch.testing.assert_close(got.mean, features.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got.cov, centred.T @ centred / 22, rtol=1e-5, atol=1e-8)
    assert got.n == 23
    assert not got.mean.requires_grad
    with pytest.raises(ArgumentError, match="at least 2"):
        statistics(net, x[:1])


def test_class_agreement_counts_the_classes_that_were_asked_for(monkeypatch):
    monkeypatch.setattr("longstride.metrics.features.BATCH", 3)
    brightness = lambda x: torch.nn.functional.one_hot(x.flatten(1).sum(1).long(), 4).float()  # noqa: E731
    x = torch.tensor([0.0, 1, 2, 3, 3, 3, 0, 1]).reshape(8, 1, 1, 1)
    y = torch.tensor([0, 1, 2, 3, 0, 0, 0, 0])
    assert class_agreement(brightness, x, y) == 5 / 8
