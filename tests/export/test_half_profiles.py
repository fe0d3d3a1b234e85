"""The decoder of profiles in half precision, beyond what half precision holds."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the export extra is not installed")

from cellscribe.export.models.instructcell import ProfileDecoder  # noqa: E402


def test_large_cells_and_small_rates_are_kept() -> None:
    torch.manual_seed(0)
    decoder = ProfileDecoder(d_condition=4, d_mapped=3, n_latent=2, n_hidden=8, n_layers=1, n_genes=50)
    with torch.no_grad():
        for one in decoder.parameters():
            one.zero_()
        decoder.library2.bias.fill_(12.0)
        decoder.scale.bias[0] = 20.0
        wanted, _, _ = decoder(torch.zeros(1, 4), torch.zeros(1, 2), torch.zeros(1, 1))
        rates, _, _ = decoder.half()(*(torch.zeros(1, width).half() for width in (4, 2, 1)))
    assert rates.dtype == torch.float32
    torch.testing.assert_close(rates, wanted, rtol=1e-3, atol=0.0)
    assert wanted[0, 0] > 65_504
    assert 0 < wanted[0, 1] < 1e-3
